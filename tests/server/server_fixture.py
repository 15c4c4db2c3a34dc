"""The HTTP server on 127.0.0.1 over a stub runtime, for tests: its answers are scripted, its calls are recorded."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import socket
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mullama.chat import inventory, types
from mullama.chat.transcription import Transcribed, Transcript
from mullama.dialects import DIALECTS
from mullama.dialects.base import Dialect, Operation
from mullama.dialects.stored_objects import FetchStored, ListStored, StoredObject, StoredPage, UpdateStored
from mullama.errors import Conflict, MullamaError, NotFound
from mullama.manifest.spec import Manifest
from mullama.runtime.base import (
    Access,
    Admission,
    ApplyOptions,
    Caller,
    KeyRecord,
    LeaseRequest,
    MetricsQuery,
    Origin,
    TextEdit,
    Tracer,
)
from mullama.runtime.fleet import RolloutRecord
from mullama.server.app import App, create_app
from mullama.server.http.limits import Bounds
from mullama.server.http.listen import HttpServer
from mullama.store.blobs import Blobs

T = TypeVar("T")
USAGE = types.Usage(prompt_tokens=3, completion_tokens=2)
# No deadline ends a test that is held up for some seconds: a test that waits for one makes that one short.
PATIENT = Bounds(header_time=60, body_idle=60, keep_alive=60, linger=60, flush=30)
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


ANSWERS: Mapping[type, Callable[[Any], Any]] = {
    inventory.ListModels: lambda _: inventory.Inventory(models=(inventory.ModelCard(name="tiny"),)),
    inventory.ListRunning: lambda _: inventory.Inventory(models=(inventory.ModelCard(name="tiny"),)),
    inventory.ShowModel: lambda operation: inventory.ModelCard(name=operation.model),
    inventory.LoadModel: lambda operation: inventory.Loaded(model=operation.model, unloaded=operation.keep_alive == 0),
    types.CountRequest: lambda _: types.TokenCount(tokens=3),
    types.RenderRequest: lambda _: types.DetokenizedText(text="text"),
    types.DetokenizeRequest: lambda _: types.DetokenizedText(text="text"),
    types.RerankRequest: lambda _: types.Ranking(results=((0, 0.5),), usage=USAGE),
    types.EmbedRequest: lambda operation: types.Vectors(vectors=((0.5, 0.25),) * len(operation.inputs), usage=USAGE),
    types.TokenizeRequest: lambda _: types.Tokens(ids=(1, 2), pieces=(b"a", b"\xff")),
}
STATUS = {
    "format": "mullama.status/1",
    "state": "ready",
    "uptime": 1.0,
    "models": [{"name": "tiny", "state": "ready"}],
}


@dataclass
class StubRuntime:
    """Service and operator in one, without models and processes.

    `script` is played for each completion; a string in it names a gate at which the completion waits until
    `open_gate` is called. `closed` counts completions that were ended early.
    """

    script: tuple[Step, ...] = SAYS_HELLO
    manifest: Manifest = field(default_factory=manifest)
    keys: tuple[KeyRecord, ...] = ()
    lines: tuple[Any, ...] = ({"event": "result", "outcome": "applied"},)
    not_ready: tuple[str, ...] = ()
    generation: int = 7
    """0 before the first manifest is applied."""
    state: str = "ready"
    blobs: Blobs | None = None
    """The stored files; None for none."""
    admission: Admission | None = None
    seen: list[Any] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    kept: dict[str, StoredObject] = field(default_factory=dict)
    reached: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Event = field(default_factory=threading.Event)
    gates: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    async def play(self, script: tuple[Any, ...]) -> AsyncIterator[Any]:
        try:
            for step in script:
                if isinstance(step, str):
                    self.reached.release()
                    await self.gates[step].wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.closed.release()
            raise

    # Service

    def access(self) -> Access:
        return Access(manifest=self.manifest, keys=self.keys, generation=self.generation)

    def admit(self, operation: Operation, caller: Caller) -> Admission | None:
        return self.admission

    def default_model(self, caller: Caller) -> str:
        return "usual"

    def context_size(self, model: str) -> int:
        return 4096

    async def events(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        self.seen.append(request)
        self.callers.append(caller)
        if request.model == "missing":
            raise NotFound("model 'missing' not found", name="missing")
        async for event in self.play(self.script):
            yield (event,)

    async def transcribe(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        """Every sound says hello, except that of a model called deaf. The script may begin with a gate."""
        request.sound.file.seek(0)
        self.seen.append((request, request.sound.file.read()))
        self.callers.append(caller)
        if request.model == "deaf":
            raise NotFound("model 'deaf' not found", name="deaf")
        async for _ in self.play(tuple(step for step in self.script[:1] if isinstance(step, str))):
            pass
        yield (types.Started(prompt_tokens=3),)
        yield (types.TextDelta(text=" Hel"), types.TextDelta(text="lo"))
        yield (Transcribed(transcript=Transcript(text="Hello", segments=(), duration=0.9, usage=USAGE)),)

    async def answer(self, operation: Any, caller: Caller) -> Any:
        if isinstance(operation, types.ChatRequest | types.CompletionRequest):
            events = [event async for batch in self.events(operation, caller) for event in batch]
            return aggregate(events)
        self.seen.append(operation)
        self.callers.append(caller)
        if isinstance(operation, ListStored):
            return StoredPage(objects=tuple(self.kept.values()), more=False)
        if isinstance(operation, FetchStored | UpdateStored):
            if operation.id not in self.kept:
                raise NotFound(f"no response {operation.id}")
            return self.kept[operation.id]
        kinds = [kind for kind in type(operation).__mro__ if kind in ANSWERS]
        return ANSWERS[kinds[0]](operation) if kinds else inventory.Done()

    async def tasks(self, operation: Any, caller: Caller) -> AsyncIterator[inventory.TaskStatus]:
        self.seen.append(operation)
        yield inventory.TaskStatus(status="pulling manifest")
        yield inventory.TaskStatus(status="success")

    async def watch(self, caller: Caller) -> AsyncIterator[inventory.ModelStateReport]:
        for state in ("opening", "ready", ""):
            yield inventory.ModelStateReport(model="tiny", state=state)

    async def store(self, stored: StoredObject, caller: Caller) -> None:
        self.kept[stored.id] = stored

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes], caller: Caller) -> bool:
        self.seen.append((digest, b"".join([chunk async for chunk in chunks])))
        return True

    # Operator

    def status(self) -> dict[str, Any]:
        return {**STATUS, "state": self.state}

    def stack(self) -> dict[str, Any]:
        return {"generation": 7, "revision": "abc", "manifest": {}, "origin": {}}

    async def model(self, name: str, *, paths: bool) -> dict[str, Any]:
        return {"model": {"name": name}, "paths": paths}

    async def worker_log(self, name: str) -> dict[str, Any]:
        return {"pid": 1, "lines": [name], "output": ""}

    def open_file(self, digest: str) -> int:
        if self.blobs is None or not self.blobs.has(digest):
            raise NotFound(f"the store has no file {digest}", name=digest)
        return self.blobs.open(digest)

    def captures(self) -> list[dict[str, Any]]:
        rows = [{"id": 2, "model": "a", "key": "ci", "route": "a", "result": "error"}]
        return [*rows, {"id": 1, "model": "b", "key": None, "route": "b", "result": "ok"}]

    def capture(self, id: int) -> dict[str, Any]:
        if id != 2:
            raise NotFound(f"there is no capture {id}")
        return {"id": 2, "prompt": "Hi", "answer": "Hello"}

    async def follow_captures(self, after: int) -> AsyncIterator[dict[str, Any]]:
        yield {"id": after + 1, "model": "a"}

    def live(self) -> AsyncIterator[dict[str, Any]]:
        return self.play(({"id": 1, "status": STATUS, "events": []}, "more", {"id": 2, "models": []}))

    async def manifest_text(self) -> dict[str, Any]:
        return {"path": "/m.yaml", "profiles": [], "text": "", "digest": "d", "revision": "abc", "readonly": ""}

    async def plan_text(self, text: str, profiles: tuple[str, ...] | None) -> dict[str, Any]:
        self.seen.append((text, profiles))
        return {"problems": [], "warnings": [], "plan": None, "profiles": [], "removes_all": False}

    def save_text(self, edit: TextEdit, options: ApplyOptions) -> AsyncIterator[dict[str, Any]]:
        self.seen.append((edit, options))
        return self.play(self.lines)

    def git_notice(self, body: bytes, headers: Mapping[str, str]) -> None:
        self.seen.append(body)

    async def search_hub(self, query: str, *, limit: int, every: bool) -> list[dict[str, Any]]:
        self.seen.append((query, limit, every))
        return [{"repository": "org/m"}]

    async def hub_advice(self, source: str, *, context: int, profile: Any) -> dict[str, Any]:
        self.seen.append((source, context, profile))
        return {"format": "mullama.hub/1", "repository": source}

    async def key_report(self) -> dict[str, Any]:
        return {"format": "mullama.keys/1", "keys": []}

    def metrics_history(self, query: MetricsQuery) -> dict[str, Any]:
        self.seen.append(query)
        return {"format": "mullama.metrics/1"}

    async def usage(self, query: Any) -> list[dict[str, Any]]:
        self.seen.append(query)
        return [{"key": "ci", "requests": 2, "prompt_tokens": 3}]

    async def look_at_files(self) -> None:
        pass

    def missing(self) -> tuple[str, ...]:
        return self.not_ready

    async def plan(self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions) -> dict[str, Any]:
        self.seen.append((manifest, origin, options))
        return {"format": "mullama.plan/1", "steps": []}

    def apply(
        self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions
    ) -> AsyncIterator[dict[str, Any]]:
        self.seen.append((manifest, origin, options))
        return self.play(self.lines)

    async def reload(self, reason: str) -> dict[str, Any]:
        return {"changed": False, "outcome": "applied", "message": "nothing changed"}

    def history(self) -> list[dict[str, Any]]:
        return [{"generation": 7}]

    async def compare_revisions(self, before: int, after: int) -> dict[str, Any]:
        return {"before": before, "after": after, "texts": ["", ""], "plan": {"format": "mullama.plan/1"}}

    async def plan_undo(self, to: int | None) -> dict[str, Any]:
        self.seen.append(("plan undo", to))
        return {"format": "mullama.plan/1", "steps": []}

    async def drift(self) -> dict[str, Any]:
        self.seen.append("drift")
        return {"format": "mullama.plan/1", "steps": []}

    async def refresh(self) -> dict[str, Any]:
        self.seen.append("refresh")
        return {"format": "mullama.plan/1", "steps": []}

    def undo(self, to: int | None, options: ApplyOptions, fleet: str = "") -> AsyncIterator[dict[str, Any]]:
        self.seen.append((to, options, fleet))
        return self.play(self.lines)

    def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        return self.play(({"id": after + 1, "kind": "first"}, "more", {"id": 9}))

    started = 1763600000

    def metrics(self, model: str = "") -> str:
        return "mullama_up 1\n"

    @property
    def leases(self) -> StubLeases:
        return StubLeases(self.seen)

    @property
    def rollouts(self) -> StubRollouts:
        return StubRollouts(self.seen)

    async def fleet(self) -> dict[str, Any]:
        return {"format": "mullama.fleet-view/1", "name": None, "hosts": []}

    def stop(self) -> None:
        self.stopped.set()


class StubRollouts:
    """Notes the records that are left."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    @property
    def record(self) -> RolloutRecord | None:
        return next((one for one in reversed(self._seen) if isinstance(one, RolloutRecord)), None)

    async def leave(self, record: RolloutRecord) -> None:
        self._seen.append(record)


class StubLeases:
    """Notes what is asked of the lease."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen

    def tree(self) -> dict[str, Any]:
        return {"fence": 3, "lease": None}

    def require(self, fence: int | None) -> None:
        if fence is not None and fence < 3:
            raise Conflict("too low")

    async def take(self, request: LeaseRequest) -> dict[str, Any]:
        self._seen.append(request)
        return self.tree()

    async def release(self, holder: str) -> dict[str, Any]:
        self._seen.append(holder)
        return self.tree()


def aggregate(events: Sequence[types.Event]) -> types.Answer:
    """The complete answer of a script's events."""
    warnings = next((event.warnings for event in events if isinstance(event, types.Started)), ())
    text = "".join(event.text for event in events if isinstance(event, types.TextDelta))
    choice = types.Choice(
        index=0,
        parts=(types.TextRun(text=text),),
        reason=types.StopReason.STOP,
        stop_sequence=None,
    )
    return types.Answer(choices=(choice,), usage=USAGE, timings=types.Timings(), warnings=warnings)


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


class RunningServer:
    """A server that runs in its own thread, and the ways to talk to it."""

    def __init__(self, runtime: StubRuntime, app: App, server: HttpServer, loop: Any) -> None:
        self.runtime = runtime
        self.app = app
        self.http = server
        self.loop = loop
        self.address = ("127.0.0.1", 0)
        self.control = ""

    @property
    def port(self) -> int:
        return self.address[1]

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(90)

    def nothing_runs(self) -> bool:
        """Wait until no request is in progress."""
        deadline = time.monotonic() + 60
        while len(self.app.inflight) and time.monotonic() < deadline:
            self.wait(asyncio.sleep(0))
        return len(self.app.inflight) == 0

    def open_gate(self, name: str) -> None:
        self.loop.call_soon_threadsafe(lambda: self.runtime.gates[name].set())

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=60)

    def raw(self, *pieces: bytes) -> bytes:
        """Send the bytes, and read until the server closes."""
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
    data = bytearray()
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return bytes(data)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = connection.recv(65536)
        assert piece, f"closed before {end!r}: {data!r}"
        data += piece
    return data


@contextmanager
def running_server(
    runtime: StubRuntime | None = None,
    bounds: Bounds | None = None,
    dialects: Mapping[str, Dialect] = DIALECTS,
    control: str | None = None,
    listen: tuple[str, ...] = ("127.0.0.1:0",),
    tracer: Tracer | None = None,
) -> Iterator[RunningServer]:
    """A running server; at the end it is stopped without a drain."""
    runtime = runtime or StubRuntime()
    bounds = bounds or PATIENT
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    app = create_app(runtime, runtime, dialects, bounds, tracer=tracer)
    server = HttpServer(bounds)
    running = RunningServer(runtime, app, server, loop)
    try:
        found = running.wait(server.start(app, listen, control))
        tcp = [address for address in found if not address.startswith("unix:")]
        if tcp:
            running.address = ("127.0.0.1", int(tcp[0].rpartition(":")[2]))
        running.control = control or ""
        yield running
    finally:
        running.wait(server.stop(0))
        running.wait(app.close(0))
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
