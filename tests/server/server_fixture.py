"""A whole HTTP server on 127.0.0.1 over a small real runtime, for tests: scripted answers, seen calls."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mullama.chat import inventory, types
from mullama.dialects import DIALECTS
from mullama.dialects.base import CancelResponse, Dialect, FetchResponse, ListResponseItems, StoredResponse
from mullama.errors import MullamaError, NotFound
from mullama.manifest.spec import Manifest
from mullama.runtime.base import Access, ApplyOptions, Caller, KeyRecord, Origin
from mullama.server.app import App, create_app
from mullama.server.http.limits import Bounds
from mullama.server.http.listen import HttpServer

T = TypeVar("T")
USAGE = types.Usage(prompt_tokens=3, completion_tokens=2)
# No deadline ends a test that is held up for some seconds: a test that waits for one makes that one short.
PATIENT = Bounds(header_time=60, body_idle=60, keep_alive=60, linger=60, farewell=30)
Step = types.Event | MullamaError | Exception | float | str  # an event, a failure, or a gate to wait at

SAYS_HELLO: tuple[Step, ...] = (
    types.Started(prompt_tokens=3),
    types.TextDelta(text="Hel"),
    types.TextDelta(text="lo"),
    types.Finished(reason=types.StopReason.STOP),
    types.Completed(usage=USAGE, timings=types.Timings()),
)


def manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate({"mullama": "v1", **changes})


def key(name: str, secret: str, *roles: Any) -> KeyRecord:
    digest = hashlib.sha256(secret.encode()).digest()
    return KeyRecord(name=name, sha256=digest, models=("*",), roles=roles, priority=0)


@dataclass
class Runtime:
    """Service and operator in one. `script` is played for each generation; a string in it names a gate
    that the generation waits at until `open_gate` is called; `closed` counts generations ended early.
    """

    script: tuple[Step, ...] = SAYS_HELLO
    manifest: Manifest = field(default_factory=manifest)
    keys: tuple[KeyRecord, ...] = ()
    lines: tuple[Any, ...] = ({"event": "result", "outcome": "applied"},)
    not_ready: tuple[str, ...] = ()
    seen: list[Any] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    kept: dict[str, StoredResponse] = field(default_factory=dict)
    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Event = field(default_factory=threading.Event)
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)

    # Service

    def access(self) -> Access:
        return Access(manifest=self.manifest, keys=self.keys, generation=7)

    def context_size(self, model: str) -> int:
        return 4096

    async def events(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        self.seen.append(request)
        self.callers.append(caller)
        if request.model == "missing":
            raise NotFound("model 'missing' not found", name="missing")
        async for event in self._play(self.script):
            yield (event,)

    async def answer(self, operation: Any, caller: Caller) -> Any:
        self.seen.append(operation)
        self.callers.append(caller)
        match operation:
            case types.ChatRequest() | types.CompletionRequest():
                return await self._fold(operation)
            case inventory.ListModels() | inventory.ListRunning():
                return inventory.Inventory(models=(inventory.ModelCard(name="tiny"),))
            case FetchResponse(id=id) | CancelResponse(id=id) | ListResponseItems(id=id):
                if id not in self.kept:
                    raise NotFound(f"no response {id}")
                return self.kept[id]
            case inventory.ShowModel(model=model):
                return inventory.ModelCard(name=model)
            case inventory.LoadModel(model=model, keep_alive=keep_alive):
                return inventory.Loaded(model=model, unloaded=keep_alive == 0)
            case types.CountRequest():
                return types.TokenCount(tokens=3)
            case types.RenderRequest() | types.DetokenizeRequest():
                return types.DetokenizedText(text="text")
            case types.RerankRequest():
                return types.Ranking(results=((0, 0.5),), usage=USAGE)
            case _:
                return self._short_answer(operation)

    def _short_answer(self, operation: Any) -> Any:
        match operation:
            case types.EmbedRequest():
                return types.Vectors(vectors=((0.5, 0.25),) * len(operation.inputs), usage=USAGE)
            case types.TokenizeRequest():
                return types.Tokens(ids=(1, 2), pieces=(b"a", b"\xff"))
            case _:
                return inventory.Done()

    async def _fold(self, request: Any) -> types.Answer:
        if request.model == "missing":
            raise NotFound("model 'missing' not found", name="missing")
        text = ""
        warnings: tuple[str, ...] = ()
        async for event in self._play(self.script):
            warnings = event.warnings if isinstance(event, types.Started) else warnings
            text += event.text if isinstance(event, types.TextDelta) else ""
        choice = types.Choice(
            index=0,
            text=text,
            thinking="",
            tool_calls=(),
            reason=types.StopReason.STOP,
            stop_sequence=None,
            logprobs=(),
        )
        return types.Answer(choices=(choice,), usage=USAGE, timings=types.Timings(), warnings=warnings)

    async def _play(self, script: tuple[Any, ...]) -> AsyncIterator[Any]:
        try:
            for step in script:
                if isinstance(step, str):
                    self.reached.release()
                    await self._gates.setdefault(step, asyncio.Event()).wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.closed.release()
            raise

    def open_gate(self, name: str) -> None:
        """From the server's loop only."""
        self._gates.setdefault(name, asyncio.Event()).set()

    async def tasks(self, operation: Any, caller: Caller) -> AsyncIterator[inventory.TaskStatus]:
        self.seen.append(operation)
        yield inventory.TaskStatus(status="pulling manifest")
        yield inventory.TaskStatus(status="success")

    def store_response(self, response: StoredResponse, caller: Caller) -> None:
        self.kept[response.id] = response

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes], caller: Caller) -> bool:
        whole = b"".join([chunk async for chunk in chunks])
        self.seen.append((digest, whole))
        return True

    # Operator

    def status(self) -> dict[str, Any]:
        return {
            "format": "mullama.status/1",
            "state": "ready",
            "uptime": 1.0,
            "models": [{"name": "tiny", "state": "ready"}],
        }

    def stack(self) -> dict[str, Any]:
        return {"generation": 7, "revision": "abc", "manifest": {}, "origin": {}}

    def missing(self) -> tuple[str, ...]:
        return self.not_ready

    async def plan(self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions) -> dict[str, Any]:
        self.seen.append((manifest, origin, options))
        return {"format": "mullama.plan/1", "steps": []}

    async def apply(
        self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions
    ) -> AsyncIterator[dict[str, Any]]:
        self.seen.append((manifest, origin, options))
        async for line in self._play(self.lines):
            yield line

    async def reload(self, reason: str) -> dict[str, Any]:
        return {"changed": False, "message": "nothing changed"}

    def history(self) -> list[dict[str, Any]]:
        return [{"generation": 7}]

    async def undo(self, to: int | None) -> AsyncIterator[dict[str, Any]]:
        self.seen.append(to)
        yield {"event": "result", "outcome": "applied"}

    async def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        async for event in self._play(({"id": after + 1, "kind": "first"}, "more", {"id": 9})):
            yield event

    def metrics(self) -> str:
        return "mullama_up 1\n"

    def stop(self) -> None:
        self.stopped.set()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line]


class Stage:
    """The server while it runs in its own thread, and the ways to talk to it."""

    def __init__(self, runtime: Runtime, app: App, server: HttpServer, loop: Any) -> None:
        self.runtime = runtime
        self.app = app
        self.server = server
        self.loop = loop
        self.address = ("127.0.0.1", 0)
        self.control = ""

    @property
    def port(self) -> int:
        return self.address[1]

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs this on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(90)

    def nothing_runs(self) -> bool:
        """Waits for the loop to finish what a closed connection began."""
        deadline = time.monotonic() + 60
        while len(self.app.inflight) and time.monotonic() < deadline:
            self.wait(asyncio.sleep(0))
        return len(self.app.inflight) == 0

    def open_gate(self, name: str) -> None:
        self.loop.call_soon_threadsafe(self.runtime.open_gate, name)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=60)

    def raw(self, *pieces: bytes) -> bytes:
        """Sends the bytes, and reads until the server closes."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_all(connection)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request with http.client; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            connection.request(method, path, body=data, headers=dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()


def read_all(connection: socket.socket) -> bytes:
    whole = bytearray()
    try:
        while piece := connection.recv(65536):
            whole += piece
    except ConnectionResetError:
        pass
    return bytes(whole)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    whole = b""
    while end not in whole:
        piece = connection.recv(65536)
        assert piece, f"closed before {end!r}: {whole!r}"
        whole += piece
    return whole


@contextmanager
def staged(
    runtime: Runtime | None = None,
    bounds: Bounds | None = None,
    dialects: Mapping[str, Dialect] = DIALECTS,
    control: str | None = None,
    listen: tuple[str, ...] = ("127.0.0.1:0",),
) -> Iterator[Stage]:
    """A running server; stopped without a drain at the end, whatever is still going on."""
    runtime = runtime or Runtime()
    bounds = bounds or PATIENT
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    app = create_app(runtime, runtime, dialects, bounds)
    server = HttpServer(bounds)
    stage = Stage(runtime, app, server, loop)
    try:
        found = stage.wait(server.start(app, listen, control))
        tcp = [address for address in found if not address.startswith("unix:")]
        if tcp:
            stage.address = ("127.0.0.1", int(tcp[0].rpartition(":")[2]))
        stage.control = control or ""
        yield stage
    finally:
        stage.wait(server.stop(0))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


def request(path: str, body: Any = None, method: str = "POST", *extra: str) -> bytes:
    """The bytes of a request, for sockets."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *extra]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
Maker = Callable[..., Any]
