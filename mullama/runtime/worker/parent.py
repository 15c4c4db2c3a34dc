"""The parent's side of a worker: starts the child process, speaks to it, watches it, and reports its end.

The only bridge between async code and the process that runs a model. A worker is used from one event loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mullama.engines.base import (
    ContextFacts,
    ContextOptions,
    Embed,
    Embedded,
    Ended,
    EngineChoice,
    EngineFacts,
    EngineStats,
    Failed,
    Generate,
    Job,
    Output,
    Prefix,
)
from mullama.errors import ContextOverflow, EngineFailed, Invalid, Kind, MullamaError, Refused, Unsupported
from mullama.runtime.worker import protocol
from mullama.runtime.worker.cores import CoreAllocator
from mullama.runtime.worker.inbox import Inbox

# What a child may see of the environment: enough to find libraries and devices, no keys and no tokens.
_ENVIRONMENT = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION",
    "GGML_VK_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
)  # fmt: skip
# OpenMP threads that spin without bound at barriers ruin everything else on the same cores; threads that sleep
# between two decodes are late for the next one. These counts outlast the half millisecond between two decodes.
_BOUNDED_SPIN = {"GOMP_SPINCOUNT": "60000", "KMP_BLOCKTIME": "2", "GGML_NO_BACKTRACE": "1"}

_LAST = (Ended, Embedded, Failed)  # what comes last of a job
_RING = 64 * 1024
_PING_EVERY = 5.0
_STALL = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a worker ended: a sentence, and the last of what it printed."""

    message: str
    report: str


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """The child's environment, from the parent's."""
    return {**_BOUNDED_SPIN, **{name: env[name] for name in _ENVIRONMENT if name in env}}


class WorkerProcess:
    """One child process. Made by `start`; `died` is told once, however it ends."""

    def __init__(
        self, process: asyncio.subprocess.Process, died: Callable[[Death], None], cores: CoreAllocator
    ) -> None:
        self._process = process
        self._died = died
        self._cores = cores
        self._rank = (0, 1)  # among the workers that compute, and how many these are
        self._unpacker = protocol.Unpacker()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._running: dict[int, Inbox] = {}  # by the job's id
        self._number = 0
        self._ring: deque[bytes] = deque()
        self._ring_bytes = 0
        self._ended: Death | None = None
        self._stopping = False
        self._steps = -1
        self._transport: asyncio.Transport | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._progress: Callable[[float], None] = lambda share: None
        self.facts: EngineFacts

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(
        cls,
        choice: EngineChoice,
        died: Callable[[Death], None],
        progress: Callable[[float], None] = lambda share: None,
        cores: CoreAllocator | None = None,
    ) -> WorkerProcess:
        """A child with the weights loaded; workers with the same `cores` share them.

        Raises `EngineFailed` (or what the engine said) when that fails.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "mullama.runtime.worker.child", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), start_new_session=True, env=environment(os.environ),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise EngineFailed(f"the worker process could not be started: {error}") from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = cls(process, died, cores or CoreAllocator())
        await worker._connect(ours)
        worker._progress = progress
        try:
            answer = await worker._call({"t": "load", "choice": protocol.dump(choice)})
            worker.facts = protocol.load(EngineFacts, answer)
        except BaseException:
            await worker.kill()
            raise
        worker._tasks.append(asyncio.create_task(worker._watch()))
        return worker

    async def _connect(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: _Link(self._received, self._lost), sock=ours)
        self._transport = transport
        self._tasks = [asyncio.create_task(self._drain_output()), asyncio.create_task(self._wait())]

    # Contexts

    async def open_context(self, name: str, options: ContextOptions) -> ContextFacts:
        answer = await self._call({"t": "open", "name": name, "options": protocol.dump(options)})
        return protocol.load(ContextFacts, answer)  # type: ignore[no-any-return]

    async def close_context(self, name: str) -> None:
        await self._call({"t": "close", "name": name})

    async def retune_context(self, name: str, *, threads: int, scales: tuple[float, ...]) -> None:
        await self._call({"t": "retune", "name": name, "threads": threads, "scales": scales})

    def share_cores(self, rank: int, of: int) -> None:
        """See `runtime.cores`; takes effect with the next step."""
        if (rank, of) != self._rank:
            self._rank = (rank, of)
            self._send({"t": "share", "rank": rank, "of": of})

    async def declare_prefixes(self, name: str, prefixes: tuple[Prefix, ...]) -> None:
        await self._call({"t": "declare", "name": name, "prefixes": protocol.dump(prefixes)})

    # Work

    def next_id(self) -> int:
        """A number for a job that no other job of this worker has."""
        self._number += 1
        return self._number

    async def generate(self, *jobs: Generate, inbox: Inbox | None = None) -> AsyncGenerator[list[Output], None]:
        """The outputs of the jobs, those together that came together, until each job has `Ended`.

        Closing the iterator cancels what still runs at once. Raises what the first `Failed` says, `EngineFailed`
        when the process dies, and whatever `inbox` is failed with.
        """
        inbox = inbox or Inbox()
        left = len(jobs)
        try:
            for job in jobs:
                self._submit(job, inbox)
            while left:
                outputs = await inbox.take()
                left -= sum(isinstance(output, Ended) for output in outputs)
                yield outputs
        finally:
            self._cancel(jobs)

    async def embed(self, job: Embed) -> Embedded:
        inbox = Inbox()
        try:
            self._submit(job, inbox)
            (output,) = await inbox.take()
        finally:
            self._cancel((job,))
        if not isinstance(output, Embedded):
            raise EngineFailed(f"the worker answered an embedding with {type(output).__name__}")
        return output

    def _submit(self, job: Job, inbox: Inbox) -> None:
        if self._ended is not None:
            raise self._failure(self._ended)
        if not self._running and self.facts.gpu_layers < self.facts.layers:
            self._cores.begin(self)
        self._running[job.id] = inbox
        self._send({"t": "submit", "job": protocol.dump(job)})

    def _cancel(self, jobs: Iterable[Job]) -> None:
        """Those that still run."""
        for job in jobs:
            if self._finished(job.id):
                self._send({"t": "cancel", "id": job.id})

    def _finished(self, id: int) -> Inbox | None:
        """Nothing more is to come of a job; whom it was for, None when that was known."""
        inbox = self._running.pop(id, None)
        if inbox is not None and not self._running:
            self._cores.end(self)
        return inbox

    async def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        message = {"t": "tokenize", "text": text, "add_special": add_special, "parse_special": parse_special}
        return tuple(await self._call(message))

    async def detokenize(self, tokens: tuple[int, ...]) -> bytes:
        return bytes.fromhex(await self._call({"t": "detokenize", "tokens": tokens}))

    async def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        return tuple(bytes.fromhex(piece) for piece in await self._call({"t": "pieces", "tokens": tokens}))

    async def stats(self) -> EngineStats:
        return protocol.load(EngineStats, await self._call({"t": "stats"}))  # type: ignore[no-any-return]

    # End

    async def stop(self, patience: float = 5.0) -> None:
        """Ask the child to leave; end it when it has not gone after `patience` seconds."""
        self._stopping = True
        self._send({"t": "exit"})
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            self._kill_group()
        except asyncio.CancelledError:  # nobody waits for it to leave any more, and it must not be left behind
            await self.kill()
            raise
        await self._finish()

    async def kill(self) -> None:
        """End the child now, whatever it does."""
        self._stopping = True
        self._kill_group()
        await self._finish()

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                self._process.kill()

    async def _finish(self) -> None:
        await self._process.wait()
        if self._transport is not None:
            self._transport.close()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        await asyncio.gather(*(t for t in self._tasks if t is not current), return_exceptions=True)

    # The connection

    def _received(self, data: bytes) -> None:
        try:
            for message in self._unpacker.feed(data):
                self._dispatch(message)
        except EngineFailed as error:
            self._end(Death(message=error.message, report=self.report()))
            self._kill_group()

    def _dispatch(self, message: dict[str, Any]) -> None:
        match message["t"]:
            case "out":
                for output in message["o"]:
                    self._deliver(output)
            case "answer":
                if (future := self._answers.pop(message["n"], None)) and not future.done():
                    future.set_result(message["value"])
            case "error":
                if (future := self._answers.pop(message["n"], None)) and not future.done():
                    future.set_exception(_error(message["kind"], message["message"], message["hint"], {}))
            case "pong":
                self._steps = message["steps"]
                if (future := self._answers.pop(message["n"], None)) and not future.done():
                    future.set_result(None)
            case "progress":
                self._progress(message["share"])
            case "hello":
                if message["protocol"] != protocol.PROTOCOL:
                    raise EngineFailed(f"the worker speaks protocol {message['protocol']}")
            case kind:
                raise EngineFailed(f"the worker sent an unknown message {kind!r}")

    def _deliver(self, output: Output) -> None:
        inbox = self._finished(output.id) if isinstance(output, _LAST) else self._running.get(output.id)
        if inbox is None:  # of a job that was cancelled
            return
        if isinstance(output, Failed):
            inbox.fail(error_of(output))
        else:
            inbox.put(output)

    def _send(self, message: dict[str, Any]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(protocol.pack(message))

    async def _call(self, message: dict[str, Any]) -> Any:
        """One question, one answer."""
        if self._ended is not None:
            raise self._failure(self._ended)
        number = self.next_id()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self._send({**message, "n": number})
        try:
            return await future
        finally:
            self._answers.pop(number, None)

    # Watching

    async def _watch(self) -> None:
        """A child that answers no ping, or makes no step while it has work, is hung: it is ended."""
        loop = asyncio.get_running_loop()
        moved, last = loop.time(), self._steps
        while True:
            await asyncio.sleep(_PING_EVERY)
            try:
                async with asyncio.timeout(_STALL):
                    await self._call({"t": "ping"})
            except TimeoutError:
                return self._hang("it did not answer")
            except EngineFailed:
                return None
            if self._steps != last or not self._running:
                moved, last = loop.time(), self._steps
            elif loop.time() - moved > _STALL:
                return self._hang("it made no progress")

    def _hang(self, why: str) -> None:
        self._end(Death(message=f"the worker hung: {why} for {_STALL:g} s", report=self.report()))
        self._kill_group()

    async def _drain_output(self) -> None:
        """Keep the last of what the child prints, so that a full pipe never stops it."""
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(1 << 16):
            self._ring.append(data)
            self._ring_bytes += len(data)
            while self._ring_bytes > _RING and len(self._ring) > 1:
                self._ring_bytes -= len(self._ring.popleft())

    async def _wait(self) -> None:
        code = await self._process.wait()
        # The pipe may still hold the last words of the dead.
        await asyncio.wait({self._tasks[0]}, timeout=1.0)
        self._end(Death(message=_how(code), report=self.report()))

    def _lost(self) -> None:
        """The connection is gone; `_wait` will say why."""

    def _end(self, death: Death) -> None:
        if self._ended is not None:
            return
        self._ended = death
        failure = self._failure(death)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(failure)
        for id in tuple(self._running):
            if (inbox := self._finished(id)) is not None:
                inbox.fail(failure)
        if not self._stopping:
            self._died(death)

    def _failure(self, death: Death) -> EngineFailed:
        last = death.report.strip().splitlines()[-1:] or [""]
        words = f": {last[0][:300]}" if last[0] else ""
        return EngineFailed(f"{death.message}{words}", report=death.report, retry_after=2.0)

    def report(self) -> str:
        """The last of what the child printed, control characters made harmless."""
        text = b"".join(self._ring)[-_RING:].decode("utf-8", "replace")
        return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


class _Link(asyncio.Protocol):
    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._received, self._lost_connection = received, lost

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost_connection()


def _how(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "the worker was killed (SIGKILL: often out of memory)"
    return f"the worker died of {name}"


def error_of(failed: Failed) -> MullamaError:
    """The error that a job's failure stands for."""
    return _error(failed.kind.value, failed.message, failed.hint, dict(failed.numbers))


def _error(kind: str, message: str, hint: str, numbers: dict[str, int]) -> MullamaError:
    if "context_size" in numbers and "prompt_tokens" in numbers:
        return ContextOverflow(numbers["prompt_tokens"], numbers["context_size"])
    match Kind(kind):
        case Kind.INVALID:
            return Invalid(message, hint=hint)
        case Kind.REFUSED:
            return Refused(message, hint=hint)
        case Kind.TOO_LARGE | Kind.NOT_FOUND:
            return Unsupported(message, hint=hint)
        case _:
            return EngineFailed(message, hint=hint)
