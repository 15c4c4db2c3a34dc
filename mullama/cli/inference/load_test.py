"""Puts a closed-loop load on an OpenAI-compatible server: each client sends a request when its last one is answered.

The client parses HTTP/1.1 itself. httpcore takes three times the processor time for each event of a stream, and client
and server usually share the machine that is measured.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Literal

from mullama.client.address import ServerAddress
from mullama.client.errors import error_of
from mullama.errors import MullamaError, Unavailable
from mullama.struct import Struct

_WORDS = (
    "time way year work people place case day part house money night water book school state family story month right "
    "study life room mother area"
)
WORDS = tuple(_WORDS.split())  # one token each in the vocabularies of most models


class Load(Struct, frozen=True, kw_only=True):
    """The requests to send."""

    model: str
    clients: int = 1
    requests: int = 1
    """Requests of each client."""
    warmup: int = 0
    """Requests before the measurement."""
    prompt_len: int = 512
    """Words of each prompt; most vocabularies have one token for each."""
    gen_len: int = 128
    """Most tokens of each answer."""
    shared_len: int = 0
    """Words at the beginning of every prompt; the system message of the chat API."""
    api: Literal["chat", "completions"] = "chat"
    until_end: bool = False
    """Let the model end its answers instead of sending `ignore_eos`."""
    schema: Any = None
    """JSON schema of the answers, None for free text."""
    seed: int = 0

    def body(self, number: int) -> dict[str, Any]:
        """Return the request with this number. Seed and number determine the words of its prompt."""
        own = words(self.prompt_len, self.seed * 1_000_003 + number)
        shared = words(self.shared_len, -1)
        body: dict[str, Any] = {"model": self.model, "max_tokens": self.gen_len, "temperature": 0, "stream": True}
        body["stream_options"] = {"include_usage": True}
        if self.api == "completions":
            body["prompt"] = f"{shared} {own}".strip()
        else:
            system = [{"role": "system", "content": shared}] if shared else []
            body["messages"] = [*system, {"role": "user", "content": own}]
        if not self.until_end and self.schema is None:
            body["ignore_eos"] = True
        if self.schema is not None:
            named = {"name": "answer", "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body


class Sample(Struct, frozen=True, kw_only=True):
    """The measurements of one answer."""

    first: float
    """Seconds from the request to the first piece of text."""
    gaps: tuple[float, ...]
    """Seconds between consecutive pieces."""
    prompt_tokens: int
    """As the server counts them."""
    tokens: int
    """Tokens of the answer, as the server counts them."""
    text: str


class Measured(Struct, frozen=True, kw_only=True):
    """The measurements of a load."""

    samples: tuple[Sample, ...]
    seconds: float
    """From the first request to the end of the last answer."""

    @property
    def tokens(self) -> int:
        return sum(sample.tokens for sample in self.samples)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def firsts(self) -> list[float]:
        return [sample.first for sample in self.samples]

    @property
    def gaps(self) -> list[float]:
        return [gap for sample in self.samples for gap in sample.gaps]


def words(count: int, seed: int) -> str:
    """Return random words, separated by spaces."""
    choose = random.Random(str(seed))  # a string, because Random ignores the sign of a number
    return " ".join(choose.choices(WORDS, k=count))


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of all values lie; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def run(address: ServerAddress, load: Load, key: str | None = None) -> Measured:
    """Send all requests. The first request that fails ends the run with its error."""
    for number in range(load.warmup):
        await ask(address, load.body(-1 - number), key)
    begun = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_client(address, load, client, key)) for client in range(load.clients)]
    except* MullamaError as failures:
        raise failures.exceptions[0] from None
    seconds = time.perf_counter() - begun
    return Measured(samples=tuple(sample for task in tasks for sample in task.result()), seconds=seconds)


async def _client(address: ServerAddress, load: Load, client: int, key: str | None) -> list[Sample]:
    return [await ask(address, load.body(client * load.requests + number), key) for number in range(load.requests)]


async def ask(address: ServerAddress, body: Mapping[str, Any], key: str | None = None) -> Sample:
    """Send one streamed request. Raises the error that the server answers, or `Unavailable` for a broken stream."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    begun = last = time.perf_counter()
    first = 0.0
    gaps: list[float] = []
    text: list[str] = []
    usage: dict[str, Any] = {}
    async with aclosing(_events(address, path, body, key)) as events:
        async for event in events:
            usage = event.get("usage") or usage
            if piece := _text(event):
                now = time.perf_counter()
                if text:
                    gaps.append(now - last)
                else:
                    first = now - begun
                last = now
                text.append(piece)
    if not usage:
        raise Unavailable(f"{address} sent no token counts", hint="it must support stream_options.include_usage")
    return Sample(
        first=first or time.perf_counter() - begun,
        gaps=tuple(gaps),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        tokens=int(usage.get("completion_tokens") or 0),
        text="".join(text),
    )


def _text(event: Mapping[str, Any]) -> str:
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        if text := choice.get("text") or delta.get("content") or delta.get("reasoning_content"):
            return str(text)
    return ""


async def _events(
    address: ServerAddress, path: str, body: Mapping[str, Any], key: str | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the JSON of each server-sent event up to `[DONE]`."""
    reader, writer = await _connect(address)
    try:
        writer.write(_request(address, path, body, key))
        status, headers = await _head(reader, address)
        if status != 200:
            rest = await reader.read(65536)
            raise error_of(status, _unchunked(rest) if "chunked" in headers else rest, str(address))
        async for line in _lines(reader, chunked="chunked" in headers):
            field, _, data = line.partition(b":")
            if field != b"data":
                continue
            if data.strip() == b"[DONE]":
                return
            event = json.loads(data)
            if "error" in event:
                raise Unavailable(f"{address} failed during the answer: {event['error']}")
            yield event
        raise Unavailable(f"{address} ended the answer early")
    except (OSError, EOFError, ValueError) as error:
        raise Unavailable(f"{address} ended the connection: {error}") from error
    finally:
        writer.close()


async def _connect(address: ServerAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        if address.path is not None:
            return await asyncio.open_unix_connection(address.path)
        secure = ssl.create_default_context() if address.tls else None
        return await asyncio.open_connection(address.host, address.port, ssl=secure)
    except OSError as error:
        raise Unavailable(f"no server answers at {address}: {error.strerror or error}") from error


def _request(address: ServerAddress, path: str, body: Mapping[str, Any], key: str | None) -> bytes:
    data = json.dumps(body).encode()
    host = f"[{address.host}]" if ":" in address.host else address.host
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}:{address.port}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(data)}", "Connection: close", *([f"Authorization: Bearer {key}"] if key else [])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


async def _head(reader: asyncio.StreamReader, address: ServerAddress) -> tuple[int, str]:
    """Return the status and the transfer encoding (`chunked` or empty)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise Unavailable(f"{address} does not speak HTTP/1.1")
    headers = {
        name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines)
    }
    return int(parts[1]), headers.get("transfer-encoding", "")


async def _lines(reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
    """Yield each line of a body as soon as it is complete."""
    rest = b""
    while data := await (_chunk(reader) if chunked else reader.read(65536)):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """Read the next chunk; it is empty at the end of the body."""
    size = int((await reader.readline()).split(b";")[0], 16)
    data = await reader.readexactly(size + 2)
    return data[:-2]


def _unchunked(data: bytes) -> bytes:
    """Return the first chunk of a body; an error fits into one."""
    size, _, rest = data.partition(b"\r\n")
    return rest[: int(size, 16)]
