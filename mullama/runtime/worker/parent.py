"""The parent's side of a worker: sends commands, passes outputs to their requests, and notices a hang or an end.

The only bridge between async code and the process that runs a model. A client is used from one event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

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
from mullama.runtime.worker.process import Death, WorkerProcess

T = TypeVar("T")

_LAST = (Ended, Embedded, Failed)  # the last output of a job
_PING_EVERY = 5.0  # seconds
_HANG_SECONDS = 60.0  # without an answer or a step; the longest decode that was seen took a few seconds


class WorkerClient:
    """The connection to one worker, made by `start`. died: called once when the worker ends without a stop."""

    def __init__(self, process: WorkerProcess, died: Callable[[Death], None], cores: CoreAllocator) -> None:
        self._process = process
        self._died = died
        self._cores = cores
        self._rank = (0, 1)  # among the workers that compute, and their number
        self._unpacker = protocol.Unpacker(protocol.read_reply)
        self._answers: dict[int, asyncio.Future[protocol.Value]] = {}
        self._running: dict[int, Inbox] = {}  # by the job's id
        self._number = 0
        self._death: Death | None = None
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
    ) -> WorkerClient:
        """Start a worker and load the weights; workers with the same `cores` share them.

        Raises `EngineFailed`, or the engine's own error.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await WorkerProcess.start(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        client = cls(process, died, cores or CoreAllocator())
        client._progress = progress
        try:
            await client._connect(ours)
            client.facts = await client._ask(protocol.LoadWeights(number=client.next_id(), choice=choice), EngineFacts)
        except BaseException:
            await client.kill()
            raise
        client._tasks.append(asyncio.create_task(client._watch()))
        return client

    async def _connect(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: _Connection(self._received), sock=ours)
        self._tasks = [asyncio.create_task(self._wait())]

    # Contexts

    async def open_context(self, name: str, options: ContextOptions) -> ContextFacts:
        return await self._ask(
            protocol.OpenContext(number=self.next_id(), name=name, options=options), ContextFacts
        )  # fmt: skip

    async def close_context(self, name: str) -> None:
        await self._ask(protocol.CloseContext(number=self.next_id(), name=name), type(None))

    async def retune_context(self, name: str, *, threads: int, scales: tuple[float, ...]) -> None:
        question = protocol.RetuneContext(number=self.next_id(), name=name, threads=threads, scales=scales)
        await self._ask(question, type(None))

    async def declare_prefixes(self, name: str, prefixes: tuple[Prefix, ...]) -> None:
        question = protocol.DeclarePrefixes(number=self.next_id(), name=name, prefixes=prefixes)
        await self._ask(question, type(None))

    def share_cores(self, rank: int, of: int) -> None:
        """Send the worker its share of the cores, which it uses from the next step on. See `CoreAllocator`."""
        if (rank, of) != self._rank:
            self._rank = (rank, of)
            self._send(protocol.ShareCores(rank=rank, of=of))

    # Jobs

    def next_id(self) -> int:
        """Return a number that no other job or question of this worker has."""
        self._number += 1
        return self._number

    async def generate(self, *jobs: Generate, inbox: Inbox | None = None) -> AsyncGenerator[list[Output], None]:
        """Yield the outputs of the jobs, in lists of those that arrived together, until each job has `Ended`.

        Closing the iterator cancels the jobs at once. Raises the error of the first `Failed`, `EngineFailed` when the
        process dies, and any error with which `inbox` is failed.
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
        if self._death is not None:
            raise _failure(self._death)
        if not self._running and self.facts.gpu_layers < self.facts.layers:
            self._cores.begin(self)
        self._running[job.id] = inbox
        self._send(
            protocol.SubmitGenerate(job=job) if isinstance(job, Generate) else protocol.SubmitEmbed(job=job)
        )  # fmt: skip

    def _cancel(self, jobs: Iterable[Job]) -> None:
        """Cancel those of the jobs that still run."""
        for job in jobs:
            if self._finish(job.id):
                self._send(protocol.CancelJob(id=job.id))

    def _finish(self, id: int) -> Inbox | None:
        """Forget a job and return its inbox; None for a job that has finished before."""
        inbox = self._running.pop(id, None)
        if inbox is not None and not self._running:
            self._cores.end(self)
        return inbox

    # Questions

    async def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        question = protocol.Tokenize(
            number=self.next_id(), text=text, add_special=add_special, parse_special=parse_special
        )
        return await self._ask(question, tuple[int, ...])

    async def detokenize(self, tokens: tuple[int, ...]) -> bytes:
        return await self._ask(protocol.Detokenize(number=self.next_id(), tokens=tokens), bytes)

    async def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        return await self._ask(protocol.GetPieces(number=self.next_id(), tokens=tokens), tuple[bytes, ...])

    async def stats(self) -> EngineStats:
        return await self._ask(protocol.GetStats(number=self.next_id()), EngineStats)

    async def _ask(self, question: protocol.Question, kind: type[T]) -> T:
        """Send a question and return its answer, a value of this type."""
        return protocol.read_value(kind, await self._answer_to(question))

    async def _answer_to(self, question: protocol.Question | protocol.Ping) -> protocol.Value:
        if self._death is not None:
            raise _failure(self._death)
        future: asyncio.Future[protocol.Value] = asyncio.get_running_loop().create_future()
        self._answers[question.number] = future
        self._send(question)
        try:
            return await future
        finally:
            self._answers.pop(question.number, None)

    # End

    async def stop(self, patience: float = 5.0) -> None:
        """Ask the child to exit; kill it after `patience` seconds."""
        self._stopping = True
        self._send(protocol.Exit())
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
        except asyncio.CancelledError:  # a stop in a hurry: the child must not be left behind
            await self.kill()
            raise
        await self._close()

    async def kill(self) -> None:
        """Kill the child now."""
        self._stopping = True
        self._process.kill()
        await self._close()

    async def _close(self) -> None:
        await self._process.wait()
        if self._transport is not None:
            self._transport.close()
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._process.close()

    def report(self) -> str:
        """Return the end of the child's output."""
        return self._process.report()

    async def _wait(self) -> None:
        self._ended(await self._process.wait_death())

    async def _watch(self) -> None:
        """Kill a child that hangs: it answers no ping, or makes no step while it has work."""
        loop = asyncio.get_running_loop()
        moved, last = loop.time(), self._steps
        while True:
            await asyncio.sleep(_PING_EVERY)
            try:
                async with asyncio.timeout(_HANG_SECONDS):
                    await self._answer_to(protocol.Ping(number=self.next_id()))
            except TimeoutError:
                return self._kill_hung("it did not answer")
            except EngineFailed:
                return None
            if self._steps != last or not self._running:
                moved, last = loop.time(), self._steps
            elif loop.time() - moved > _HANG_SECONDS:
                return self._kill_hung("it made no progress")

    def _kill_hung(self, reason: str) -> None:
        self._ended(self._process.death(f"the worker hung: {reason} for {_HANG_SECONDS:g} s"))
        self._process.kill()

    def _ended(self, death: Death) -> None:
        """Fail every question and job with the first cause of the end."""
        if self._death is not None:
            return
        self._death = death
        failure = _failure(death)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(failure)
        for id in tuple(self._running):
            if (inbox := self._finish(id)) is not None:
                inbox.fail(failure)
        if not self._stopping:
            self._died(death)

    # The connection

    def _send(self, message: protocol.WorkerMessage) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(protocol.pack(message))

    def _received(self, data: bytes) -> None:
        try:
            for message in self._unpacker.feed(data):
                if isinstance(message, list):
                    for output in message:
                        self._deliver(output)
                else:
                    self._handle(message)
        except EngineFailed as error:
            self._ended(self._process.death(error.message))
            self._process.kill()

    def _handle(self, reply: protocol.Reply) -> None:
        match reply:
            case protocol.CallResult(number=number, value=value):
                if (future := self._answers.pop(number, None)) and not future.done():
                    future.set_result(value)
            case protocol.CallError(number=number):
                if (future := self._answers.pop(number, None)) and not future.done():
                    future.set_exception(_error(reply.kind, reply.message, reply.hint, {}))
            case protocol.Pong(number=number, steps=steps):
                self._steps = steps
                if (future := self._answers.pop(number, None)) and not future.done():
                    future.set_result(protocol.Value())
            case protocol.LoadReport(share=share):
                self._progress(share)
            case protocol.Hello(protocol=version):
                if version != protocol.PROTOCOL:
                    raise EngineFailed(f"the worker speaks protocol {version}")

    def _deliver(self, output: Output) -> None:
        inbox = self._finish(output.id) if isinstance(output, _LAST) else self._running.get(output.id)
        if inbox is None:  # the job was cancelled
            return
        if isinstance(output, Failed):
            inbox.fail(error_of(output))
        else:
            inbox.put(output)


class _Connection(asyncio.Protocol):
    """Passes on received bytes. The end of the connection needs no handling: the process ends, too."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received

    def data_received(self, data: bytes) -> None:
        self._received(data)


def _failure(death: Death) -> EngineFailed:
    """Return the error for a request to a dead worker, with the last line of its output."""
    last = death.report.strip().splitlines()[-1:] or [""]
    suffix = f": {last[0][:300]}" if last[0] else ""
    return EngineFailed(f"{death.message}{suffix}", report=death.report, retry_after=2.0)


def error_of(failed: Failed) -> MullamaError:
    """Return the error that a failed job stands for."""
    return _error(failed.kind, failed.message, failed.hint, dict(failed.numbers))


def _error(kind: Kind, message: str, hint: str, numbers: dict[str, Any]) -> MullamaError:
    if "context_size" in numbers and "prompt_tokens" in numbers:
        return ContextOverflow(numbers["prompt_tokens"], numbers["context_size"])
    match kind:
        case Kind.INVALID:
            return Invalid(message, hint=hint)
        case Kind.REFUSED:
            return Refused(message, hint=hint)
        case Kind.TOO_LARGE | Kind.NOT_FOUND:
            return Unsupported(message, hint=hint)
        case _:
            return EngineFailed(message, hint=hint)
