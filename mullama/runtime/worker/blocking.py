"""A worker for synchronous callers, through a thread with an event loop.

Every call blocks until its answer and may be made from any thread. The worker is a child process, so a crash of native
code is an `EngineFailed` here, and closing returns the memory.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from mullama.engines.base import EngineChoice, EngineFacts, Generate, Output, WeightsOptions
from mullama.errors import EngineFailed, Invalid, NotFound, Refused
from mullama.plan.observed import KnownFiles, Machine
from mullama.reconcile.files import Files, described
from mullama.reconcile.scripted_models import is_script, script_files
from mullama.runtime.worker.parent import WorkerClient
from mullama.runtime.worker.process import Death
from mullama.sources.library import find_stored
from mullama.store.foreign import Foreign, usual_roots
from mullama.units import size
from mullama.weights.facts import WeightFacts
from mullama.weights.memory import ContextShape, MemoryNeed, WeightsPlacement, need

T = TypeVar("T")
_HEADROOM = 256 * 1024**2


def files_here(source: str, env: Mapping[str, str]) -> KnownFiles:
    """Return the stored weights behind a path or source. Reads headers and uses no network.

    Raises `NotFound` for weights that are not stored, `BadWeights` for files that must not reach native code.
    """
    path = Path(source).expanduser()
    text = str(path.absolute()) if path.exists() else source
    if is_script(text):
        return script_files(text)
    stored = find_stored(text, Files.here(env).index, Foreign(usual_roots(env)))
    if stored is None:
        if source.startswith((".", "/", "~")) or source.endswith(".gguf"):
            raise NotFound(f"{source} does not exist", name=source, hint=f"relative paths begin at {Path.cwd()}")
        raise NotFound(f"{source} is not on this machine", name=source, hint=f"mullama pull {source} fetches it")
    return described(stored)


def choice_of(files: KnownFiles, options: WeightsOptions) -> EngineChoice:
    """Return the engine, files and options with which these files are loaded."""
    return EngineChoice(name="scripted" if is_script(files.source) else "llamacpp", files=files.paths, options=options)


def refuse_too_big(
    facts: WeightFacts | None, options: WeightsOptions, contexts: tuple[ContextShape, ...], machine: Machine
) -> None:
    """Raise `Refused` for a load that does not fit into free memory.

    Mapped weights may exceed main memory, because the system reads them again as needed.
    """
    if facts is None or facts.layers == 0 or machine.ram_total == 0:
        return
    shape = WeightsPlacement(
        gpu_layers=options.gpu_layers,
        devices=len(machine.gpus),
        split=options.split,
        main_gpu=options.main_gpu,
        tensor_split=options.tensor_split,
    )
    wanted = need(facts, shape, contexts)
    _refuse_main_memory(wanted, mapped=options.mmap and not options.mlock, free=machine.ram_available)
    for device, gpu in zip(machine.gpus, wanted.gpus, strict=False):
        if gpu.total > device.free:
            free, needed = size(device.free, digits=2), size(gpu.total, digits=2)
            raise Refused(f"{device.name} has {free} free, {needed} are needed", hint="use fewer layers")


def _refuse_main_memory(wanted: MemoryNeed, *, mapped: bool, free: int) -> None:
    ram = wanted.kv_ram + wanted.compute_ram + (0 if mapped else wanted.weights_ram)
    if ram + _HEADROOM > free:
        raise Refused(
            f"the load needs {size(ram, digits=2)} of main memory, and {size(free, digits=2)} is free",
            hint="use a smaller context, a smaller cache type or fewer layers in main memory",
        )


class BlockingWorker:
    """A worker of one program. The constructor loads the weights; `close` ends the worker."""

    def __init__(self, choice: EngineChoice) -> None:
        self._loop = asyncio.new_event_loop()
        # PR_SET_PDEATHSIG kills the child when the thread that started it ends, so this thread lives as long.
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="mullama-model", daemon=True)
        self._thread.start()
        try:
            self._worker = self._result(WorkerClient.start(choice, _ignored))
        except BaseException:
            _stop_loop(self._loop, self._thread)
            raise
        self._end = weakref.finalize(self, _end_worker, self._worker, self._loop, self._thread)

    @property
    def worker(self) -> WorkerClient:
        """The client whose coroutines `call` runs. Raises `Invalid` once closed."""
        if self.closed:
            raise Invalid("the model is closed")
        return self._worker

    @property
    def facts(self) -> EngineFacts:
        return self._worker.facts

    @property
    def closed(self) -> bool:
        return not self._end.alive

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the worker and return its result. An interrupt cancels it."""
        if self.closed:
            work.close()
            raise Invalid("the model is closed")
        return self._result(work)

    def _result(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def outputs(self, job: Generate) -> Iterator[Output]:
        """Yield the outputs of a job up to `Ended`. Closing the iterator cancels the job."""
        arrived: queue.SimpleQueue[Output | BaseException | None] = queue.SimpleQueue()
        pump = asyncio.run_coroutine_threadsafe(_pump(self.worker, job, arrived), self._loop)
        try:
            while (output := arrived.get()) is not None:
                if isinstance(output, BaseException):
                    raise output
                yield output
        finally:
            pump.cancel()

    def close(self) -> None:
        """End the worker. Closing twice does nothing."""
        self._end()


async def _pump(worker: WorkerClient, job: Generate, arrived: queue.SimpleQueue[Output | BaseException | None]) -> None:
    try:
        async with aclosing(worker.generate(job)) as stream:
            async for outputs in stream:
                for output in outputs:
                    arrived.put(output)
    except asyncio.CancelledError:
        arrived.put(EngineFailed("the model was closed while it answered"))
        raise
    except Exception as error:  # noqa: BLE001 - raised again in the thread that waits for it
        arrived.put(error)
    finally:
        arrived.put(None)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end_worker(worker: WorkerClient, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread.is_alive():
        asyncio.run_coroutine_threadsafe(_stop_worker(worker), loop).result()
    _stop_loop(loop, thread)


async def _stop_worker(worker: WorkerClient) -> None:
    await worker.stop()
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _stop_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _ignored(death: Death) -> None:
    """Ignore the end of a worker: the next call raises it."""
