"""The parent's side of a worker: sends commands, passes outputs to their requests, and notices a hang or an end.

The only bridge between async code and the process that runs a model. A client is used from one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
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
    Prompt,
)
from mullama.errors import (
    ContextOverflow,
    EngineFailed,
    Invalid,
    Kind,
    MullamaError,
    Refused,
    TimedOut,
    TooLarge,
    Unsupported,
    masked,
)
from mullama.runtime.worker import protocol
from mullama.runtime.worker.cores import CoreAllocator
from mullama.runtime.worker.hosts import departed, explained, hosts_of, lost, unreachable
from mullama.runtime.worker.hosts import failure as lost_host_failure
from mullama.runtime.worker.inbox import Inbox
from mullama.runtime.worker.process import Death, DeathCause, HostLost, WorkerProcess, start_failure
from mullama.runtime.worker.spawn import SpawnedWorker, spawn_worker
from mullama.runtime.worker.watchdog import Hang, StallLimits, Watchdog
from mullama.struct import Struct, replace

T = TypeVar("T")
_log = logging.getLogger("mullama.workers")

_LAST = (Ended, Embedded, Failed)  # the last output of a job
USUAL_LIMITS = StallLimits()


class _Work(Struct, frozen=True):
    """A job that the worker has not finished. inbox: None once the job is cancelled; request: see `Death.work`."""

    inbox: Inbox | None
    request: object


class WorkerClient:
    """The connection to one worker, made by `start`. died: called once when the worker ends without a stop."""

    def __init__(
        self,
        process: WorkerProcess,
        died: Callable[[Death], None],
        cores: CoreAllocator,
        limits: StallLimits = USUAL_LIMITS,
    ) -> None:
        self._process = process
        self._died = died
        self._cores = cores
        self._rank = (0, 1)  # among the workers that compute, and their number
        self._unpacker = protocol.Unpacker(protocol.reply_reader())
        self._answers: dict[int, asyncio.Future[protocol.Value]] = {}
        self._jobs: dict[int, _Work] = {}  # by the job's id
        self._running = 0  # jobs that are not cancelled
        self._overdue: set[int] = set()  # jobs that ended at their time limit and are not confirmed as cancelled
        self._responsive = asyncio.Event()
        self._responsive.set()
        self._number = 0
        self._death: Death | None = None
        self._stopping = False
        self._watchdog = Watchdog(asyncio.get_running_loop().time(), limits)
        self._watch_now = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._progress: Callable[[float], None] = lambda share: None
        self._hosts: tuple[str, ...] = ()
        self.remark = ""
        """The reason why the worker is slow now, while it computes; see `Engine.remark`."""
        self.seen = EngineStats()
        """The numbers of the engine, some seconds ago at most while it computes."""
        self._looked = 0  # steps at the last look at them
        self._look_number = 0  # of that question
        self.facts: EngineFacts

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(
        cls, choice: EngineChoice, died: Callable[[Death], None], spawn: Callable[[], SpawnedWorker] = spawn_worker
    ) -> WorkerClient:
        """Start a worker and load the weights; errors as for `load`."""
        client = await cls.spawn(died, spawn=spawn)
        await client.load(choice)
        return client

    @classmethod
    async def spawn(
        cls,
        died: Callable[[Death], None],
        cores: CoreAllocator | None = None,
        limits: StallLimits = USUAL_LIMITS,
        spawn: Callable[[], SpawnedWorker] = spawn_worker,
    ) -> WorkerClient:
        """Start a worker without weights; workers with the same `cores` share them. Raises `EngineFailed`.

        spawn: starts its process, or returns one that has been started before.
        """
        try:
            process, ours = spawn()
        except OSError as error:
            raise start_failure(error) from error
        client = cls(WorkerProcess(process), died, cores or CoreAllocator(), limits)
        try:
            await client._connect(ours)
        except BaseException:
            await client.kill()
            raise
        return client

    def take_over(self, died: Callable[[Death], None]) -> bool:
        """Report the end to another callback from now on; return False for a worker that has ended."""
        self._died = died
        return self._death is None

    async def load(self, choice: EngineChoice, progress: Callable[[float], None] = lambda share: None) -> None:
        """Load weights into a new worker; kill it when that fails or is cancelled.

        Raises `EngineFailed`, also for a load without progress, or the engine's own error.
        """
        self._progress = progress
        self._hosts = hosts_of(choice.options.devices)
        try:
            logs = _log.isEnabledFor(logging.DEBUG)
            question = protocol.LoadWeights(number=self.next_id(), choice=choice, logs=logs)
            self.facts = await self._ask(question, EngineFacts)
        except BaseException:
            await self.kill()
            raise

    async def _connect(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: _Connection(self._received), sock=ours)
        self._tasks = [asyncio.create_task(self._wait()), asyncio.create_task(self._watch())]

    # Contexts

    async def open_context(self, name: str, options: ContextOptions) -> ContextFacts:
        question = protocol.OpenContext(number=self.next_id(), name=name, options=options)
        facts = await self._ask(question, ContextFacts)
        self.facts = facts.engine or self.facts
        return facts

    async def close_context(self, name: str) -> None:
        await self._ask(protocol.CloseContext(number=self.next_id(), name=name), type(None))

    async def retune_context(self, name: str, *, threads: int, scales: tuple[float, ...]) -> None:
        question = protocol.RetuneContext(number=self.next_id(), name=name, threads=threads, scales=scales)
        await self._ask(question, type(None))

    async def declare_prefixes(self, name: str, prefixes: tuple[Prefix, ...]) -> int:
        """Replace the declared prefixes of an open context; return their tokens."""
        question = protocol.DeclarePrefixes(number=self.next_id(), name=name, prefixes=prefixes)
        return await self._ask(question, int)

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

    async def generate(
        self, *jobs: Generate, inbox: Inbox | None = None, request: object = None
    ) -> AsyncGenerator[list[Output], None]:
        """Yield the outputs of the jobs, in lists of those that arrived together, until each job has `Ended`.

        request: names the jobs in `Death.work`. Closing the iterator cancels the jobs at once. Raises the error of the
        first `Failed`, `EngineFailed` when the process dies, and any error with which `inbox` is failed.
        """
        inbox = inbox or Inbox()
        left = len(jobs)
        try:
            for job in jobs:
                self._submit(job, inbox, request)
            while left:
                outputs = await inbox.take()
                left -= sum(isinstance(output, Ended) for output in outputs)
                yield outputs
        except TimedOut:
            self._cancel(jobs, overdue=True)
            raise
        finally:
            self._cancel(jobs)

    async def embed(self, job: Embed, *, inbox: Inbox | None = None, request: object = None) -> Embedded:
        """Return the vectors of a job. inbox, request and errors: as for `generate`."""
        inbox = inbox or Inbox()
        try:
            self._submit(job, inbox, request)
            (output,) = await inbox.take()
        except TimedOut:
            self._cancel((job,), overdue=True)
            raise
        finally:
            self._cancel((job,))
        if not isinstance(output, Embedded):
            raise EngineFailed(f"the worker answered an embedding with {type(output).__name__}")
        return output

    @property
    def overdue(self) -> bool:
        """True while a job that ended at its time limit is not confirmed as cancelled: the worker may hang."""
        return bool(self._overdue)

    async def responsive(self) -> None:
        """Wait while a job is overdue, until the worker shows progress or ends.

        A request that is sent to a worker that hangs would only exceed its own time limit.
        """
        await self._responsive.wait()

    def _submit(self, job: Job, inbox: Inbox, request: object) -> None:
        if self._death is not None:
            raise _failure(self._death)
        if not self._running and self.facts.gpu_layers < self.facts.layers:
            self._cores.begin(self)
        self._running += 1
        self._jobs[job.id] = _Work(inbox, request)
        self._send(
            protocol.SubmitGenerate(job=job) if isinstance(job, Generate) else protocol.SubmitEmbed(job=job)
        )  # fmt: skip

    def _cancel(self, jobs: Iterable[Job], *, overdue: bool = False) -> None:
        """Cancel those of the jobs that still run. They count as work of the worker until it confirms."""
        for job in jobs:
            work = self._jobs.get(job.id)
            if work is None or work.inbox is None:
                continue
            self._jobs[job.id] = replace(work, inbox=None)
            self._stopped_running()
            self._send(protocol.CancelJob(id=job.id))
            if overdue and self._death is None:
                self._overdue.add(job.id)
                self._responsive.clear()
                self._watchdog.overdue(asyncio.get_running_loop().time())
                self._watch_now.set()

    def _finish(self, id: int) -> Inbox | None:
        """Forget a job and return its inbox; None for a job that was cancelled."""
        work = self._jobs.pop(id, None)
        if work is None or work.inbox is None:
            return None
        self._stopped_running()
        return work.inbox

    def _stopped_running(self) -> None:
        self._running -= 1
        if not self._running:
            self._cores.end(self)

    # Questions

    async def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, joint: str | None = None
    ) -> tuple[int, ...]:
        question = protocol.Tokenize(
            number=self.next_id(), text=text, add_special=add_special, parse_special=parse_special, joint=joint
        )
        return await self._ask(question, tuple[int, ...])

    async def count_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt; see `Engine.count_tokens`."""
        return await self._ask(protocol.CountTokens(number=self.next_id(), prompt=prompt), int)

    async def detokenize(self, tokens: tuple[int, ...]) -> bytes:
        return await self._ask(protocol.Detokenize(number=self.next_id(), tokens=tokens), bytes)

    async def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        return await self._ask(protocol.GetPieces(number=self.next_id(), tokens=tokens), tuple[bytes, ...])

    async def log(self) -> tuple[str, ...]:
        """Return the last lines of the engine's log, oldest first. A load or a decode does not delay the answer."""
        return await self._ask(protocol.GetLog(number=self.next_id()), tuple[str, ...])

    @property
    def output(self) -> str:
        """The end of what the process has printed, with control characters replaced."""
        return self._process.report()

    async def stats(self) -> EngineStats:
        return await self._ask(protocol.GetStats(number=self.next_id()), EngineStats)

    def _look(self, steps: int) -> None:
        """Ask for the numbers of the engine if it worked since the last look, which was one step itself."""
        if self._stopping or not steps or (self._looked and steps <= self._looked + 1):
            return
        self._looked = steps
        self._look_number = number = self.next_id()
        self._answers[number] = future = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._looked_at)
        self._send(protocol.GetStats(number=number))

    def _looked_at(self, answer: asyncio.Future[protocol.Value]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self.seen = protocol.read_value(EngineStats, answer.result())

    async def _ask(self, question: protocol.Question | protocol.GetLog, kind: type[T]) -> T:
        """Send a question and return its answer, a value of this type."""
        return protocol.read_value(kind, await self._answer_to(question))

    async def _answer_to(self, question: protocol.Question | protocol.GetLog) -> protocol.Value:
        if self._death is not None:
            raise _failure(self._death)
        future: asyncio.Future[protocol.Value] = asyncio.get_running_loop().create_future()
        self._answers[question.number] = future
        try:
            self._send(question)
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
        await self._process.killed()
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
        self._ended(await explained(await self._process.wait_death(), self._hosts))

    async def _watch(self) -> None:
        """Kill a child that hangs, from its start on."""
        loop = asyncio.get_running_loop()
        while self._death is None:
            self._watchdog.used(loop.time(), self._process.usage())
            if hang := self._watchdog.verdict(loop.time()):
                await self._kill_hung(hang)
                return
            if self._hosts and await self._kill_abandoned():
                return
            self._send(protocol.Ping(number=self.next_id()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._watchdog.interval):
                    await self._watch_now.wait()
            self._watch_now.clear()

    async def _kill_hung(self, hang: Hang) -> None:
        stopped = self._process.suspended
        suffix = "; its process is stopped" if stopped else ""
        death = self._process.death(f"{hang}{suffix}", DeathCause.OUTSIDE if stopped else DeathCause.HANG)
        self._ended(await explained(death, self._hosts))
        self._process.kill()

    async def _kill_abandoned(self) -> bool:
        """Kill a child that lost a host, of which llama.cpp hears with the next request, or never while it waits."""
        if self._watchdog.limits.host <= self.stalled:
            hosts, ended = await unreachable(self._hosts), "does not answer"
            if self.stalled < self._watchdog.limits.host:
                return False
        else:
            hosts, ended = await departed(self._hosts, self.pid), "closed the connection"
        if not hosts or self._death is not None:
            return False
        self._ended(lost(self._process.death("", DeathCause.OUTSIDE), hosts, ended))
        self._process.kill()
        return True

    @property
    def stalled(self) -> float:
        """Seconds since the worker last showed progress; small while it has nothing to do."""
        return self._watchdog.stalled(asyncio.get_running_loop().time())

    def _progressed(self) -> None:
        self._watchdog.progressed(asyncio.get_running_loop().time())
        if self._overdue:
            self._overdue.clear()
            self._responsive.set()

    def _ended(self, death: Death) -> None:
        """Fail every question and job with the first cause of the end."""
        if self._death is not None:
            return
        # Of the questions only those of other callers than the watchdog are work; their request is not known.
        asked = (None,) * bool(self._answers.keys() - {self._look_number})
        self._death = death = replace(death, work=(*(work.request for work in self._jobs.values()), *asked))
        failure = _failure(death)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(failure)
        self._overdue.clear()
        self._responsive.set()
        for id in tuple(self._jobs):
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
                    self._progressed()
                    for output in message:
                        self._deliver(output)
                else:
                    self._handle(message)
        except EngineFailed as error:
            self._ended(self._process.death(error.message, DeathCause.CRASH))
            self._process.kill()

    def _handle(self, reply: protocol.Reply) -> None:
        match reply:
            case protocol.CallResult(number=number, value=value):
                self._progressed()
                if (future := self._answers.pop(number, None)) and not future.done():
                    future.set_result(value)
            case protocol.CallError(number=number):
                self._progressed()
                if (future := self._answers.pop(number, None)) and not future.done():
                    future.set_exception(_error(reply.kind, reply.message, reply.hint, {}))
            case protocol.Pong(steps=steps, idle=idle, remark=remark):
                self.remark = "" if idle else remark
                self._look(steps)
                if self._watchdog.answered(asyncio.get_running_loop().time(), steps=steps, idle=idle):
                    self._progressed()
            case protocol.LoadReport(share=share):
                self._progressed()
                self._progress(share)
            case protocol.LogLine(text=line):
                _log.debug("worker %d: %s", self.pid, masked(line))
            case protocol.Hello(protocol=version):
                if version != protocol.PROTOCOL:
                    raise EngineFailed(f"the worker speaks protocol {version}")

    def _deliver(self, output: Output) -> None:
        if isinstance(output, _LAST):
            inbox = self._finish(output.id)
        else:
            inbox = work.inbox if (work := self._jobs.get(output.id)) else None
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
    if death.lost_host:
        return lost_host_failure(death)
    last = death.report.strip().splitlines()[-1:] or [""]
    suffix = f": {last[0][:300]}" if last[0] else ""
    return EngineFailed(f"{death.message}{suffix}", report=death.report, retry_after=2.0)


def error_of(failed: Failed) -> MullamaError:
    """Return the error that a failed job stands for."""
    if failed.kind is Kind.INVALID and failed.field:
        return Invalid(failed.message, hint=failed.hint, field=failed.field)
    return _error(failed.kind, failed.message, failed.hint, dict(failed.numbers))


def _error(kind: Kind, message: str, hint: str, numbers: dict[str, Any]) -> MullamaError:
    if "context_size" in numbers and "prompt_tokens" in numbers:
        return ContextOverflow(numbers["prompt_tokens"], numbers["context_size"], index=numbers.get("index"))
    match kind:
        case Kind.INVALID:
            return Invalid(message, hint=hint)
        case Kind.REFUSED:
            return Refused(message, hint=hint)
        case Kind.TOO_LARGE:
            return TooLarge(message, hint=hint)
        case Kind.NOT_FOUND:
            return Unsupported(message, hint=hint)
        case Kind.UNAVAILABLE:
            return HostLost(message, hint=hint, retry_after=2.0)
        case _:
            return EngineFailed(message, hint=hint)
