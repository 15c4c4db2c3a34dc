"""A server without HTTP in this process: the real reconciler, pool, service, records and workers, scripted models."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from mullama.chat import types as chat
from mullama.controller.event_log import EventLog
from mullama.controller.git.follower import GitFollower
from mullama.controller.model_commands import ModelCommands
from mullama.controller.model_page.document import ModelDocuments
from mullama.controller.operator import LocalOperator
from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change, Line
from mullama.controller.telemetry.metrics_sampler import MetricsSampler
from mullama.controller.watch.editor import ManifestEditor
from mullama.errors import Conflict
from mullama.manifest.load import load_text
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.plan.observed import Machine
from mullama.reconcile.files import Files
from mullama.reconcile.hub_models import HubBrowser
from mullama.reconcile.machine import observe_machine
from mullama.runtime.attempts import Attempts
from mullama.runtime.base import ApplyOptions, Caller, Origin
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.serving.captures import CaptureLog
from mullama.runtime.serving.client_store import ClientStore
from mullama.runtime.serving.service import ModelService
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.snapshot import Snapshot
from mullama.runtime.span_queue import SpanQueue
from mullama.runtime.worker.spawn import SpawnedWorker, SpawnWorker
from mullama.store.client_objects import ObjectFile
from mullama.store.records import Records
from mullama.store.usage import UsageFile
from tests.processes.forked import fork_worker

CALLER = Caller(dialect="openai", request_id="test")


@dataclass
class Addresses:
    """The addresses of an HTTP server, without sockets. taken: addresses that cannot be opened."""

    taken: set[str] = field(default_factory=set)
    open: tuple[str, ...] = ()
    keys_when_opened: list[int] = field(default_factory=list)
    count_keys: Callable[[], int] = lambda: 0

    async def renew(self, tls: object, *, drain: bool = False) -> None:
        pass

    async def listen_on(self, addresses: tuple[str, ...], tls: object = None) -> tuple[str, ...]:
        if self.taken & set(addresses):
            raise Conflict("the address is in use")
        if set(addresses) - set(self.open):
            self.keys_when_opened.append(self.count_keys())
        self.open = tuple(addresses)
        return self.open


class LocalServer:
    """The parts of one server process, in this process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {"HOME": str(home)}
        self.machine: Machine | None = None
        self.now = 1e9
        self.spawn: SpawnWorker = fork_worker
        self.records = Records(home / "state", "test")
        self.records.create()
        self.addresses, self.event_log, self.metrics = Addresses(), EventLog(), Metrics()
        self.attempts = Attempts(counts=self.records.attempts(), save=self.records.note_attempts)
        self.pool = Pool(self.event_log.note, self.attempts, spawn=lambda engine="": self.spawn(engine))
        files = Files.here(self.env)
        self.reconciler = Reconciler(
            records=self.records, pool=self.pool, files=files, http=self.addresses, env=self.env,
            event_log=self.event_log, metrics=self.metrics,
            observe_machine=lambda hardware: self.machine or observe_machine(hardware),
        )  # fmt: skip
        self.addresses.count_keys = lambda: len(self.service.access().keys)
        self.commands = ModelCommands(self.reconciler, files, self.env)
        self.objects = ClientStore(
            ObjectFile(self.records.objects_path), lambda: self.snapshot.manifest.server.stored, lambda: self.now,
            lambda: self.snapshot.manifest.moved,
        )  # fmt: skip
        self.rates = RateBook(lambda: self.snapshot.manifest, lambda: self.now, refused=self.metrics.rate_limited)
        self.usage = UsageLog(
            UsageFile(self.records.usage_path), lambda: self.snapshot.manifest.observability.usage.keep,
            self.reconciler.status.usage_recorded, lambda: self.now, moved=lambda: self.snapshot.manifest.moved,
        )  # fmt: skip
        self.captures = CaptureLog(lambda: self.snapshot.manifest.observability.captures)
        self.spans = SpanQueue(lambda: self.snapshot.manifest.observability.otlp, self.metrics.spans)
        self.peers = PeerBook(lambda: self.snapshot.manifest, self.env, self.event_log.note)
        self.service = ModelService(
            lambda: self.snapshot, self.pool, self.commands, self.metrics, self.objects, self.rates, self.usage,
            self.captures, self.spans, self.peers,
        )  # fmt: skip
        self.git = GitFollower(
            folder=self.records.git_folder, current=lambda: self.reconciler.current, adopt=lambda _: None,
            conditions=self.reconciler.status.conditions, event_log=self.event_log, env=self.env,
        )  # fmt: skip
        self.sampler = MetricsSampler(
            self.metrics, self.pool, lambda: self.reconciler.current, self.event_log, clock=lambda: self.now
        )
        self.hub = HubBrowser(files, lambda: self.snapshot.manifest, observe=lambda _: self.machine or Machine())
        self.operator = LocalOperator(
            reconciler=self.reconciler, files=files, pool=self.pool, event_log=self.event_log, metrics=self.metrics,
            rates=self.rates, usage=self.usage, captures=self.captures, sampler=self.sampler, peers=self.peers,
            git=self.git, editor=ManifestEditor(self.reconciler, self.env),
            documents=ModelDocuments(self.pool, self.env), hub=lambda: self.hub,
            reload=self._no_file, stop=lambda: None,
        )  # fmt: skip

    async def _no_file(self, reason: str) -> str:
        return "nothing to do"

    @property
    def snapshot(self) -> Snapshot:
        return self.reconciler.current.snapshot

    def script(self, name: str = "a", **more: Any) -> str:
        """Write a script next to the manifest; return its `from`."""
        (self.home / f"{name}.script.json").write_text(json.dumps({"name": name, "faults": True, **more}))
        return f"./{name}.script.json"

    def tree(self, models: dict[str, Any], **blocks: Any) -> dict[str, Any]:
        """Return the tree of a resolved manifest."""
        tree = {"mullama": "v1", "server": {"listen": ["127.0.0.1:0"]}, "models": models, **blocks}
        loaded = load_text(json.dumps(tree), name="m.yaml", base_dir=str(self.home), profiles=(), env=self.env)
        return block_to_tree(loaded.manifest)

    def change(
        self, models: dict[str, Any], options: ApplyOptions | None = None, origin: Origin | None = None, **blocks: Any
    ) -> Change:
        return Change(
            desired=parse_resolved(self.tree(models, **blocks)),
            origin=origin or Origin(),
            options=options or ApplyOptions(),
        )

    async def apply_lines(self, *arguments: Any, **blocks: Any) -> list[Line]:
        """Apply a manifest, as `change` takes it, and return all lines of progress."""
        return [line async for line in self.reconciler.apply(self.change(*arguments, **blocks))]

    async def apply(self, *arguments: Any, **blocks: Any) -> Line:
        """Apply a manifest and return the result."""
        return (await self.apply_lines(*arguments, **blocks))[-1]

    async def events(self, model: str, text: str, **more: Any) -> AsyncGenerator[chat.Event, None]:
        async with aclosing(self.service.events(request_of(model, text, **more), CALLER)) as stream:
            async for events in stream:
                for event in events:
                    yield event

    async def ask(self, model: str, text: str, **more: Any) -> str:
        deltas = [e.text async for e in self.events(model, text, **more) if isinstance(e, chat.TextDelta)]
        return "".join(deltas)

    @contextmanager
    def suspended(self, model: str) -> Iterator[None]:
        """Suspend the model's worker: running requests cannot end inside the block."""
        worker = self.pool.worker(self.snapshot.deployments[model].unit)
        assert worker is not None
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # the test may have killed it
                os.kill(worker.pid, signal.SIGCONT)

    def status(self, model: str) -> dict[str, Any]:
        return next(m for m in self.operator.status()["models"] if m["name"] == model)

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.operator.status()["conditions"] if c["type"] == kind)


def suspended_worker(engine: str = "", /) -> SpawnedWorker:
    """Start a worker whose load does not end."""
    spawned = fork_worker(engine)
    os.kill(spawned.process.pid, signal.SIGSTOP)
    return spawned


def request_of(model: str, text: str, **more: Any) -> chat.ChatRequest:
    return chat.ChatRequest(model=model, messages=(chat.text_message("user", text),), **more)


@asynccontextmanager
async def local_server(home: Path) -> AsyncIterator[LocalServer]:
    """Run a server, then kill its workers and require that they are gone."""
    server = LocalServer(home)
    try:
        yield server
    finally:
        pids = server.pool.pids()
        await server.pool.abort()
        assert not [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with local_server(tmp_path) as running:
        yield running


async def until(holds: Callable[[], bool], within: float = 60.0) -> None:
    """Let other tasks run until the condition holds. Raises `TimeoutError` after so many seconds.

    The time limit of a test is no bound: its exception arrives in any task, and only that of the test ends by it.
    """
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.005)
