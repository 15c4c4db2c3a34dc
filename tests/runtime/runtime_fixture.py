"""A server without its HTTP: the real reconciler, pool, service, records and workers, over scripted models."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mullama.chat import types as chat
from mullama.controller.event_log import EventLog
from mullama.controller.model_commands import ModelCommands
from mullama.controller.operator import LocalOperator
from mullama.controller.reconciler import Reconciler
from mullama.errors import Conflict
from mullama.manifest.load import load_text
from mullama.manifest.tree import block_to_tree
from mullama.reconcile.files import Files
from mullama.runtime.base import ApplyOptions, Caller, Origin
from mullama.runtime.metrics import Metrics
from mullama.runtime.pool import Attempts, Pool
from mullama.runtime.serving.service import ModelService
from mullama.store.records import Records

CALLER = Caller(dialect="openai", request_id="test")


@dataclass
class Addresses:
    """The part of the HTTP server that a manifest changes: remembers, and can be told that an address is taken."""

    taken: set[str] = field(default_factory=set)
    open: tuple[str, ...] = ()
    keys_when_opened: list[int] = field(default_factory=list)
    keys_now: Callable[[], int] = lambda: 0

    async def change(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        if self.taken & set(addresses):
            raise Conflict("the address is in use")
        if set(addresses) - set(self.open):
            self.keys_when_opened.append(self.keys_now())
        self.open = tuple(addresses)
        return self.open


class Stand:
    """What one server process is made of, in this one."""

    def __init__(self, home: Path, env: dict[str, str] | None = None) -> None:
        self.home, self.env = home, {"HOME": str(home), **(env or {})}
        self.records = Records(home / "state", "test")
        self.records.create()
        self.addresses, self.journal, self.stats = Addresses(), EventLog(), Metrics()
        attempts = Attempts(counts=self.records.attempts(), save=self.records.note_attempts)
        self.pool = Pool(self.journal.note, attempts)
        files = Files.here(self.env)
        self.reconciler = Reconciler(
            records=self.records, pool=self.pool, files=files, listeners=self.addresses, env=self.env,
            journal=self.journal, stats=self.stats,
        )  # fmt: skip
        self.addresses.keys_now = lambda: len(self.service.access().keys)
        self.verbs = ModelCommands(self.reconciler, files, self.env)
        self.service = ModelService(lambda: self.reconciler.snapshot, self.pool, self.verbs, self.stats)
        self.operator = LocalOperator(self.reconciler, self.pool, self._no_file, lambda: None)

    async def _no_file(self, reason: str) -> str:
        return "nothing to do"

    def script(self, name: str = "a", **more: Any) -> str:
        """A script beside the manifest; its `from`."""
        (self.home / f"{name}.script.json").write_text(json.dumps({"name": name, "faults": True, **more}))
        return f"./{name}.script.json"

    def tree(self, models: dict[str, Any], **blocks: Any) -> dict[str, Any]:
        """A resolved manifest's tree."""
        whole = {"mullama": "v1", "server": {"listen": ["127.0.0.1:0"]}, "models": models, **blocks}
        loaded = load_text(json.dumps(whole), name="m.yaml", base_dir=str(self.home), profiles=(), env=self.env)
        return block_to_tree(loaded.manifest)

    async def apply(self, models: dict[str, Any], options: ApplyOptions | None = None, **blocks: Any) -> dict[str, Any]:
        """The last line of an apply."""
        last: dict[str, Any] = {}
        lines = self.reconciler.apply(self.tree(models, **blocks), Origin(), options or ApplyOptions())
        async for line in lines:
            last = line
        return last

    async def events(self, model: str, text: str, **more: Any) -> AsyncGenerator[chat.Event, None]:
        request = chat.ChatRequest(model=model, messages=(chat.say("user", text),), **more)
        async with aclosing(self.service.events(request, CALLER)) as stream:
            async for events in stream:
                for event in events:
                    yield event

    async def ask(self, model: str, text: str, **more: Any) -> str:
        said = [e.text async for e in self.events(model, text, **more) if isinstance(e, chat.TextDelta)]
        return "".join(said)

    @contextmanager
    def still(self, model: str) -> Iterator[None]:
        """The model's worker stands still: what runs cannot end meanwhile, however long this process is held up."""
        worker = self.pool.worker(self.reconciler.snapshot.deployments[model].unit)
        assert worker is not None
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker.pid, signal.SIGCONT)

    def status(self, model: str) -> dict[str, Any]:
        return next(m for m in self.operator.status()["models"] if m["name"] == model)

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.operator.status()["conditions"] if c["type"] == kind)


@asynccontextmanager
async def stand(home: Path, env: dict[str, str] | None = None) -> AsyncIterator[Stand]:
    made = Stand(home, env)
    try:
        yield made
    finally:
        pids = made.pool.pids()
        await made.pool.abort()
        assert not [pid for pid in pids if psutil.pid_exists(pid)]


def run(test: Callable[[], Awaitable[None]], seconds: float = 110) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await test()

    asyncio.run(bounded())


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until it holds; `run` bounds how long."""
    while not holds():  # noqa: ASYNC110 - what is waited for is another process
        await asyncio.sleep(0.005)
