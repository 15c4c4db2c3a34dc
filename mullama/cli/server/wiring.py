"""The composition root: the only place that chooses concrete stores, sources, engines and dialects."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mullama
from mullama.errors import Conflict, MullamaError
from mullama.reconcile.files import Files
from mullama.store.process import birth
from mullama.store.records import Records, ServerRecord

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.manifest.spec import Manifest
    from mullama.runtime.base import Origin

DRAIN_SECONDS = 30.0
_ENDING = (signal.SIGTERM, signal.SIGINT)
_OBJECTS = 10_000  # that may be made before a server looks for unreachable ones, which takes a few milliseconds at most
_LONGEST_SOCKET = 100  # bytes of a socket's path; systems allow 104 to 108
_log = logging.getLogger("mullama")


def run_server(
    loaded: LoadedManifest, *, origin: Mapping[str, Any], records: Records, env: Mapping[str, str], held: bool
) -> int:
    """Serve until stopped; the exit code. `held` waits for the first manifest on the control socket."""
    from mullama.runtime.base import Origin

    _log_to_stderr(loaded.manifest)
    source = Origin(path=origin["path"], profiles=tuple(origin["profiles"]), digest=origin["digest"])
    if (running := records.server()) is not None:
        raise Conflict(f"a server for this address runs already (pid {running.pid})", hint="mullama down stops it")
    gc.freeze()  # what the imports made stays for good
    gc.set_threshold(_OBJECTS)
    with records.lock("serve", name="serving.lock"):
        return asyncio.run(_serve(loaded, source, records, env, held=held))


def _log_to_stderr(manifest: Manifest) -> None:
    """One line per event, in the manifest's form and level; libraries only speak up when something is wrong."""
    from mullama.server.log import Lines

    wanted = manifest.observability.logs
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(wanted.format))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("mullama").setLevel(wanted.level.upper())


async def _serve(
    loaded: LoadedManifest, origin: Origin, records: Records, env: Mapping[str, str], *, held: bool
) -> int:
    from mullama.dialects import DIALECTS
    from mullama.manifest.tree import block_to_tree
    from mullama.runtime.base import ApplyOptions
    from mullama.server import log
    from mullama.server.app import create_app
    from mullama.server.http.listen import HttpServer

    process = _Process.make(records, env, HttpServer())
    app = create_app(process.service, process.operator, DIALECTS)
    control = control_path(records, env)
    process.listen_to_signals()
    try:
        await process.http.start(app, (), control)
        _announce(records, process, control, origin)
        process.reconciler.after.append(lambda applied: _announce(records, process, control, applied))
        process.reconciler.after.append(lambda _: log.follow(process.service.access().manifest.observability.logs))
        process.follower.start()
        code = 0
        if not held:
            tree = block_to_tree(loaded.manifest)
            async for line in process.reconciler.apply(tree, origin, ApplyOptions(trigger="start")):
                code = _told(line, code)
        serves = held or process.reconciler.snapshot.generation > 0
        if serves:
            await process.stopping.wait()
        return 0 if serves else code
    finally:
        records.withdraw(os.getpid())
        await process.close()
        for number in (*_ENDING, signal.SIGHUP):  # there is nothing left to hurry, and this end must not become a death
            signal.signal(number, signal.SIG_IGN)


def _told(line: Mapping[str, Any], code: int) -> int:
    """Write one line of progress to the log; the exit code so far."""
    if line["event"] == "step":
        _log.info("%s: %s %s", line["model"], line["state"], line["message"])
    elif line["event"] == "warning":
        _log.warning("%s", line["message"])
    elif line["event"] == "result":
        _log.info("%s", line["message"])
        return int(line["exit"])
    return code


@dataclass(slots=True, kw_only=True)
class _Process:
    """Everything that one server process is made of."""

    http: Any
    reconciler: Any
    follower: Any
    service: Any
    operator: Any
    pool: Any
    stopping: asyncio.Event
    hurry: asyncio.Event
    hup: asyncio.Event
    reloads: asyncio.Task[None] | None = None

    @classmethod
    def make(cls, records: Records, env: Mapping[str, str], http: Any) -> _Process:
        from mullama.controller.event_log import EventLog
        from mullama.controller.model_commands import ModelCommands
        from mullama.controller.operator import LocalOperator
        from mullama.controller.reconciler import Reconciler
        from mullama.controller.watch.follower import ManifestWatcher
        from mullama.runtime.metrics import Metrics
        from mullama.runtime.pool import Attempts, Pool
        from mullama.runtime.serving.service import ModelService

        journal, stats = EventLog(), Metrics()
        attempts = Attempts(counts=records.attempts(), save=records.note_attempts)
        pool = Pool(journal.note, attempts)
        files = Files.here(env)
        reconciler = Reconciler(
            records=records, pool=pool, files=files, listeners=http, env=env, journal=journal, stats=stats
        )
        follower = ManifestWatcher(reconciler, env)
        stopping = asyncio.Event()
        return cls(
            http=http,
            reconciler=reconciler,
            follower=follower,
            service=ModelService(lambda: reconciler.snapshot, pool, ModelCommands(reconciler, files, env), stats),
            operator=LocalOperator(reconciler, pool, follower.reload, stopping.set),
            pool=pool,
            stopping=stopping,
            hurry=asyncio.Event(),
            hup=asyncio.Event(),
        )

    def listen_to_signals(self) -> None:
        """SIGTERM and SIGINT ask for the end, the second one for a quick one; SIGHUP reads the manifest again.

        Not by the loop's own handlers: those fall back to the system's when the loop closes.
        """
        loop = asyncio.get_running_loop()

        def end() -> None:
            (self.hurry if self.stopping.is_set() else self.stopping).set()

        for number in _ENDING:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self.hup.set))
        self.reloads = loop.create_task(self._reload_when_asked())

    async def _reload_when_asked(self) -> None:
        """One reading after the other: signals that come during one are answered by one more."""
        while True:
            await self.hup.wait()
            self.hup.clear()
            try:
                await self.operator.reload("SIGHUP")
            except MullamaError as error:
                _log.warning("SIGHUP: %s", error)

    async def close(self) -> None:
        """Drain, unload, end; a second signal makes it quick."""
        await self.follower.close()
        hurry = asyncio.create_task(self.hurry.wait())
        drain = asyncio.create_task(self.http.stop(DRAIN_SECONDS))
        await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            await self.http.stop(0)
        unload = asyncio.create_task(self.reconciler.stop())
        await asyncio.wait({unload, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not unload.done():
            await self.pool.abort()
        tasks = [task for task in (drain, unload, hurry, self.reloads) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def control_path(records: Records, env: Mapping[str, str]) -> str:
    """Where the control socket of an instance is: short enough for the system, private to the user."""
    runtime = env.get("XDG_RUNTIME_DIR")
    bases = [Path(runtime)] if runtime and Path(runtime).is_dir() else []
    name = f"{records.key}.sock"
    user = f"mullama-{os.getuid()}"
    paths = [base / user / name for base in (*bases, Path(tempfile.gettempdir()), Path("/tmp"))]
    path = next((p for p in paths if len(os.fsencode(p)) <= _LONGEST_SOCKET), paths[-1])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise Conflict(f"{path.parent} belongs to somebody else", hint="set XDG_RUNTIME_DIR to a folder of your own")
    return str(path)


def _announce(records: Records, process: _Process, control: str, origin: Origin) -> None:
    records.announce(
        ServerRecord(
            pid=os.getpid(),
            started=time.time(),
            listen=process.http.listening,
            control=control,
            manifest=origin.path,
            version=mullama.__version__,
            birth=birth(os.getpid()),
        )
    )
