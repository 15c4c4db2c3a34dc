"""The connection to one peer: requests of OpenAI's API, their errors as mullama's, and answers as they arrive."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mullama.errors import Busy, ContextOverflow, Invalid, MullamaError, PeerLost, TimedOut, Unavailable
from mullama.manifest.spec import Peer
from mullama.runtime.peers.answer_stream import error_text
from mullama.runtime.peers.connection import Connection, ConnectionFailed, ServerSilent
from mullama.runtime.peers.connection_pool import ConnectionPool, NotConnected

_LONGEST_ERROR = 1024**2
_LONGEST_ANSWER = 256 * 1024**2
_LONGEST_WAIT = 3600.0
"""The most seconds of a Retry-After that are sent on."""


def _trust(name: str, peer: Peer) -> ssl.SSLContext:
    """Return the certificate authorities of a peer. Raises `PeerLost` for a file that cannot be read."""
    try:
        return ssl.create_default_context(cafile=peer.ca_file)
    except OSError as error:
        reason = (
            "holds no certificate in PEM form"
            if isinstance(error, ssl.SSLError)
            else (error.strerror or str(error)).lower()
        )
        raise PeerLost(
            f"the certificate authorities of peer {name} cannot be read from {peer.ca_file}: {reason}",
            hint=f"check peers.{name}.ca_file, or fleet.hosts.{name}.ca_file of a fleet",
        ) from error


class PeerClient:
    """Sends requests to a peer. name: of the peer, for errors. key: its API key; None for none.

    Raises `PeerLost` for a key that no header can have, for certificate authorities that cannot be read, and for a host
    that is none.
    """

    def __init__(self, name: str, peer: Peer, key: str | None) -> None:
        if key is not None and not _IN_HEADER.fullmatch(key):
            raise PeerLost(
                f"the key of peer {name} has a character that no header can have",
                hint="check peers.*.key: it is printable ASCII without a line break",
            )
        self._name, self._peer, self.key = name, peer, key
        self._open, self._retired = 0, False
        headers = {"accept": "text/event-stream, application/json", "user-agent": "mullama"}
        headers |= {"authorization": f"Bearer {key}"} if key is not None else {}
        secure = _trust(name, peer) if peer.url.startswith("https://") else None
        try:
            self._pool = ConnectionPool(
                peer.url, headers, secure, connect=peer.connect_timeout, silence=peer.timeout
            )  # fmt: skip
        except UnicodeError as error:
            raise PeerLost(f"peer {name} has no valid host: {peer.url}", hint=f"check peers.{name}.url") from error

    async def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    async def retire(self) -> None:
        """Close the connections when the present requests have ended."""
        self._retired = True
        if not self._open:
            await self.close()

    @asynccontextmanager
    async def stream(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Send a request and yield the pieces of its answer. The end of the block closes its connection unless the
        answer is complete, which cancels the request there.

        Raises the error of the peer's status, and `Unavailable` or `TimedOut` for a connection that fails.
        """
        async with self._answer("POST", path, _json(body), headers) as response:
            yield self._pieces(response)

    async def ask(self, path: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request, of method GET without a body, and return the JSON of its answer. Raises as `stream`."""
        data = None if body is None else _json(body)
        whole = bytearray()
        async with self._answer("GET" if data is None else "POST", path, data, headers) as response:
            async for piece in self._pieces(response):
                whole += piece
                if len(whole) > _LONGEST_ANSWER:
                    raise Unavailable(f"peer {self._name} sent an answer of more than {_LONGEST_ANSWER} bytes")
        try:
            return json.loads(whole)
        except ValueError as error:
            raise Unavailable(f"peer {self._name} sent an answer that is no JSON") from error

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str] | None
    ) -> AsyncGenerator[Connection, None]:
        kind = {"content-type": "application/json"} if data is not None else {}
        self._open += 1
        try:
            async with self._pool.request(method, path, {**kind, **(headers or {})}, data) as connection:
                if connection.status >= 300:
                    raise await self._refusal(connection)
                yield connection
        except NotConnected as error:
            raise PeerLost(
                f"peer {self._name} did not accept a connection in {self._peer.connect_timeout:g} s"
            ) from error
        except ServerSilent as error:
            raise self._silent() from error
        except ConnectionFailed as error:
            raise self._unreachable(error) from error
        finally:
            self._open -= 1
            if self._retired and not self._open:
                await self.close()

    async def _pieces(self, connection: Connection) -> AsyncGenerator[bytes, None]:
        try:
            while piece := await connection.read():
                yield piece
        except ServerSilent as error:
            raise self._silent() from error
        except ConnectionFailed as error:
            raise self._unreachable(error) from error

    def _silent(self) -> TimedOut:
        return TimedOut(
            f"peer {self._name} sent nothing for {self._peer.timeout:g} s", hint="peers.*.timeout bounds it"
        )

    def _unreachable(self, error: ConnectionFailed) -> PeerLost:
        return PeerLost(f"peer {self._name} is not reachable: {error}", hint="is its server running?")

    async def _refusal(self, connection: Connection) -> MullamaError:
        """Return the error of an answer with the status of one."""
        data = b""
        while len(data) <= _LONGEST_ERROR and (piece := await connection.read()):
            data += piece
        try:
            tree = json.loads(data)
        except ValueError:
            tree = data.decode("utf-8", "replace")
        given = tree.get("error", tree) if isinstance(tree, dict) else tree
        wait = connection.headers.get("retry-after", "")
        seconds = min(float(wait), _LONGEST_WAIT) if wait.isdecimal() else None
        return refusal(self._name, connection.status, given, seconds)


_IN_HEADER = re.compile(r"[!-~]+(?:[ \t]+[!-~]+)*")


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def refusal(name: str, status: int, error: Any, wait: float | None) -> MullamaError:
    """Return mullama's error for an answer of a peer.

    error: the error object of its body, or its text. wait: the seconds of Retry-After.
    """
    text = f"peer {name}: {error_text(error) or f'status {status}'}"
    tree = error if isinstance(error, dict) else {}
    code = tree.get("code") or tree.get("type")
    if code in ("context_length_exceeded", "exceed_context_size_error"):
        asked, size = tree.get("n_prompt_tokens"), tree.get("n_ctx")
        if isinstance(asked, int) and isinstance(size, int):
            return ContextOverflow(asked, size)
        return Invalid(text)
    match status:
        case 400 | 413 | 415 | 422:
            field = tree.get("param")
            return Invalid(text, field=field if isinstance(field, str) else None)
        case 401 | 403:
            return PeerLost(f"peer {name} refuses the key of this server", hint="check peers.*.key and its rights")
        case 300 | 301 | 302 | 303 | 307 | 308:
            return Unavailable(
                f"peer {name} redirects to another address, which gets neither the request nor the key",
                hint="write the final address as peers.*.url",
            )
        case 404:
            return Unavailable(text, hint="does the peer serve this model, and OpenAI's API at this address?")
        case 429:
            return Busy(text, retry_after=wait or 1.0)
        case 408 | 504:
            return TimedOut(text)
        case _:
            return Unavailable(text, retry_after=wait)
