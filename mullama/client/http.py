"""HTTP client of a mullama server: TCP, TLS or a Unix socket; JSON, NDJSON and event streams.

Every failure is a `MullamaError`: `Unavailable` without a response, else the error that the server raised. The client
uses http.client, because a command should not wait for the import of a larger library.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from mullama.client.address import ServerAddress
from mullama.client.errors import error_of
from mullama.errors import Invalid, TimedOut, Unavailable

_CONNECT_SECONDS = 5.0
_NO_SERVER = "mullama apply starts a server, mullama serve runs one in the foreground"
_CLIENT_CERTIFICATE = "if it asks for a certificate of its clients: --cert-file FILE, or MULLAMA_CERT_FILE"
_DISTRUSTED = "name the file with the authority that signed its certificate: --ca-file FILE, or MULLAMA_CA_FILE"
_NO_KEY = "name the file with the key: --key-file FILE, or set MULLAMA_API_KEY"
_WRONG_KEY = "correct the key in the file of --key-file, or in MULLAMA_API_KEY"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _TcpConnection(http.client.HTTPConnection):
    def __init__(self, address: ServerAddress, timeout: float | None) -> None:
        super().__init__(address.host, address.port, timeout=timeout)
        self._node = address.node

    def connect(self) -> None:
        self.sock = socket.create_connection((self._node, self.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class StreamStop:
    """Ends one request from another thread: its socket is shut down, and the reader gets `Unavailable`."""

    def __init__(self) -> None:
        self.stopped = False
        self._wire: socket.socket | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End the request, or the next one that is held."""
        with self._lock:
            self.stopped = True
            if self._wire is not None:
                _shut(self._wire)

    def hold(self, wire: socket.socket) -> None:
        """Take the socket of a request that begins."""
        with self._lock:
            self._wire = wire
            if self.stopped:
                _shut(wire)


def _shut(wire: socket.socket) -> None:
    with suppress(OSError):  # the server closed it first
        wire.shutdown(socket.SHUT_RDWR)


class Client:
    """Sends requests to one server. Each request opens a connection.

    Args:
        address: the server.
        key: the API key.
        headers: further headers of each request.
        ca_file: PEM file of the authorities that sign the server's certificate; None for those of the system.
        cert_file: PEM file with the certificate of this client and its key, for a server that asks for one.
        timeout: seconds for a complete response. Streams have no limit between lines, because the server sends none
            while it loads a model.
    """

    def __init__(
        self, address: ServerAddress, *, key: str | None = None, timeout: float = 60.0,
        headers: Mapping[str, str] | None = None, ca_file: str | None = None, cert_file: str | None = None,
    ) -> None:  # fmt: skip
        self.address = address
        self._ca_file, self._cert_file = ca_file, cert_file
        self._headers = dict(headers or {})
        self._key = key
        self._timeout = timeout

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request, with the key."""
        return {**self._headers, **({"Authorization": f"Bearer {self._key}"} if self._key else {})}

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def post(self, path: str, tree: Mapping[str, Any], *, within: float | None = None) -> Any:
        return self.request("POST", path, tree, within=within)

    def delete(self, path: str) -> Any:
        return self.request("DELETE", path, {})

    def has(self, path: str) -> bool:
        """Return True if HEAD finds the path, False for status 404."""
        with self._exchange("HEAD", path, None, time.monotonic() + self._timeout) as (response, _):
            if response.status == 404:
                return False
            self._check(response)
            return True

    def send(self, path: str, pieces: Iterable[bytes], size: int) -> None:
        """POST a body of `size` bytes in pieces, without a time limit."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self._exchange("POST", path, None, math.inf, (pieces, headers)) as (response, _):
            self._check(response)

    def probe(self, path: str) -> tuple[int, Any]:
        """Return status and JSON of a GET, also of an error status, such as that of /readyz."""
        deadline = time.monotonic() + self._timeout
        with self._exchange("GET", path, None, deadline) as (response, _):
            return response.status, _tree(self._read(response))

    def lines(
        self, method: str, path: str, tree: Mapping[str, Any], *, within: float = math.inf,
        headers: Mapping[str, str] | None = None, stop: StreamStop | None = None,
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """Yield the objects of an NDJSON response. An error status raises before the first.

        within: seconds for the complete response, else `TimedOut`. The server continues its work after that.
        headers: further ones of this request.
        """
        deadline = time.monotonic() + within
        with self._exchange(method, path, tree, deadline, headers=headers, stop=stop) as (response, wire):
            self._check(response)
            while True:
                wire.settimeout(_remaining(deadline))
                line = self._line(response)
                if not line:
                    return
                if line.strip():
                    yield _object(line)

    def sent_events(self, path: str, pieces: Iterable[bytes], kind: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a server-sent event stream that answers a POST of a body in pieces. kind: its type."""
        with self._exchange("POST", path, None, math.inf, (pieces, {"Content-Type": kind})) as (response, _):
            self._check(response)
            while line := self._line(response):
                field, _, data = line.partition(b":")
                if field == b"data":
                    yield _object(data)

    def events(
        self, path: str, *, idle: float | None = None, stop: StreamStop | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the objects of a server-sent event stream, without comments and pings.

        idle: end after this many seconds without an event.
        """
        with self._exchange("GET", path, None, math.inf, stop=stop) as (response, wire):
            self._check(response)
            wire.settimeout(idle)
            while True:
                try:
                    line = self._line(response)
                except TimedOut:
                    return
                if not line:
                    return
                field, _, data = line.partition(b":")
                if field == b"data":
                    yield _object(data)

    def request(
        self, method: str, path: str, tree: Mapping[str, Any] | None = None, *, within: float | None = None,
        stop: StreamStop | None = None,
    ) -> Any:  # fmt: skip
        """Return the JSON of a response. within: seconds for it, in place of the timeout of the client."""
        deadline = time.monotonic() + (self._timeout if within is None else within)
        with self._exchange(method, path, tree, deadline, stop=stop) as (response, _):
            self._check(response)
            return _tree(self._read(response))

    def _check(self, response: http.client.HTTPResponse) -> None:
        if response.status >= 400:
            error = error_of(response.status, self._read(response), str(self.address))
            if response.status == 401:
                error.hint = _WRONG_KEY if self._key else _NO_KEY
            raise error

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        tree: Mapping[str, Any] | None,
        deadline: float,
        raw: tuple[Iterable[bytes], Mapping[str, str]] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        stop: StreamStop | None = None,
    ) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
        """Send a request and yield its response and socket after the headers arrived; close both at the end.

        raw: body that is not JSON, with its headers.
        """
        sent = {"Accept": "application/json", "Connection": "close", **self.headers, **(headers or {})}
        body: bytes | Iterable[bytes] | None = None
        if raw is not None:
            body, sent = raw[0], {**sent, **raw[1]}
        elif tree is not None:
            body = json.dumps(tree, ensure_ascii=False).encode()
            sent["Content-Type"] = "application/json"
        with closing(self.connect()) as connection:
            wire: socket.socket = connection.sock
            if stop is not None:
                stop.hold(wire)
            with _ErrorTranslation(self.address):
                wire.settimeout(_remaining(deadline))
                connection.request(method, path, body=body, headers=sent)
                response = connection.getresponse()
            with closing(response):
                yield response, wire

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection. Raises `Unavailable` if no server answers."""
        connection = self._connection()
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            distrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise Unavailable(
                f"no server answers at {self.address}: {_reason(error)}",
                hint=_DISTRUSTED if distrusted else _NO_SERVER,
            ) from error
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        address = self.address
        if address.path is not None:
            return _UnixConnection(address.path, _CONNECT_SECONDS)
        if not address.tls:
            return _TcpConnection(address, _CONNECT_SECONDS)
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise Invalid(
                f"no certificate authorities can be read from {self._ca_file}: {_reason(error)}", hint=_DISTRUSTED
            ) from error
        if self._cert_file is not None:
            context.load_cert_chain(self._cert_file)
        return http.client.HTTPSConnection(address.host, address.port, timeout=_CONNECT_SECONDS, context=context)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        with _ErrorTranslation(self.address):
            return response.read()

    def _line(self, response: http.client.HTTPResponse) -> bytes:
        with _ErrorTranslation(self.address):
            return response.readline()


def _remaining(deadline: float) -> float | None:
    """Return the seconds until the deadline for a socket, at least one millisecond; None for no limit."""
    return None if deadline == math.inf else max(deadline - time.monotonic(), 0.001)


class _ErrorTranslation:
    """Context manager that translates errors of the socket to errors that name the server."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise TimedOut(f"{self._address} did not respond in time") from error
        if isinstance(error, (OSError, http.client.HTTPException)):
            raise Unavailable(
                f"{self._address} closed the connection: {_reason(error)}", hint=self._hint_of(error)
            ) from error

    def _hint_of(self, error: Exception) -> str:
        """Return the way to a server that ends connections without a response: it expects another protocol of them."""
        if not isinstance(error, http.client.RemoteDisconnected) or self._address.path is not None:
            return ""
        return (
            _CLIENT_CERTIFICATE
            if self._address.tls
            else f"if it speaks HTTPS: --host {self._address._replace(tls=True)}"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _tree(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Unavailable("the response is not JSON", hint="another program may use this address") from error


def _object(line: bytes) -> dict[str, Any]:
    tree = _tree(line)
    if not isinstance(tree, dict):
        raise Unavailable("a line of the response is not a JSON object")
    return tree
