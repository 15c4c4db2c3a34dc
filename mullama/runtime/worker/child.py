"""The process that holds one set of weights: it reads commands, drives the engine and writes its outputs.

It has one end of a socket pair as its only connection. A control thread reads the socket, because the main thread
cannot answer a ping or notice a cancellation during a decode. The process ends when the parent closes the socket.
"""

from __future__ import annotations

import ctypes
import gc
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from mullama.engines import ENGINES, find_engine
from mullama.engines.base import Embed, Ended, Engine, EngineChoice, Failed, Generate, Job
from mullama.errors import EngineFailed, MullamaError
from mullama.offload import LARGE
from mullama.runtime.worker import protocol
from mullama.runtime.worker.outbox import Outbox
from mullama.struct import Struct

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_KEPT_LINES, _LONGEST_LINE = 2000, 2000  # lines of the engine's log, and characters of one


def main() -> None:
    """Serve the parent until it closes the connection; see `spawn_worker` for the arguments."""
    engine, descriptor = sys.argv[1:]
    connection = socket.socket(fileno=int(descriptor))
    _tie_to_parent()
    Child(connection).run(engine)


def _tie_to_parent() -> None:
    """Die with the parent, gain no rights, leave no core file, and be killed first when memory is short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write("500")
        except OSError as error:
            sys.stderr.write(f"oom_score_adj: {error}\n")


def arrived(commands: queue.SimpleQueue[T], delay: Callable[[], float]) -> Iterator[T]:
    """Yield every command that waits, or arrives within the seconds that `delay` returns before each."""
    while True:
        seconds = max(delay(), 0.0)
        try:
            command = commands.get(block=seconds > 0, timeout=seconds)
        except queue.Empty:
            return
        yield command


class PreparedJob(Struct, frozen=True):
    """A job that was prepared apart; the error in place of the command if that failed."""

    id: int
    command: protocol.Task | Exception


class Child:
    """The loop around one engine."""

    def __init__(self, connection: socket.socket, engine: Engine | None = None) -> None:
        self._connection = connection
        self.commands: queue.SimpleQueue[protocol.Task | PreparedJob] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._engine = engine
        self._steps = 0
        self._idle = True
        self._apart = 0  # tasks of the text and media threads
        self._counting = threading.Lock()  # for `_apart`; `_steps` need only change, and may miss a count
        self._preparing: set[int] = set()  # jobs that are prepared in them
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._outbox = Outbox(lambda outputs: self._write(protocol.pack_outputs(outputs)), time.monotonic)

    def run(self, engine: str = "") -> None:
        """Serve the parent. engine: one to import at once."""
        threading.Thread(target=self._listen, name="control", daemon=True).start()
        self._send(protocol.Hello(protocol=protocol.PROTOCOL, pid=os.getpid()))
        if engine:
            gc.disable()  # imports make many objects and no garbage
            with suppress(MullamaError):  # the load that follows reports it
                find_engine(engine)
            gc.freeze()
            gc.enable()
        while True:
            self._perform_arrived(wait=self._engine is None or not self._engine.busy)
            if self._engine is not None and self._engine.busy:
                if not self._engine.next_step_is_fast:
                    self._outbox.flush()
                outputs = self._engine.step()
                self._steps += 1
                self._outbox.add(outputs, fast=self._engine.next_step_is_fast)

    def _listen(self) -> None:
        """Read commands until the parent is gone. Runs in the control thread."""
        unpacker = protocol.Unpacker(protocol.command_reader())
        try:
            while data := self._receive():
                for command in unpacker.feed(data):
                    if isinstance(command, list):
                        raise EngineFailed("outputs of an engine are not a command")
                    self.receive(command)
        except EngineFailed as error:
            # The parent may be of another version. It reports the last line of this process's output.
            sys.stderr.write(f"{error.message}\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(1 << 16)
        except ConnectionError:
            return b""

    def receive(self, command: protocol.Command) -> None:
        """Answer a ping or a question for the log at once. Queue any other command.

        A decode that the command makes pointless ends.
        """
        match command:
            case protocol.Ping(number=number):
                idle = self._idle and self.commands.empty() and not self._apart
                remark = self._engine.remark if self._engine is not None else ""
                self._send(protocol.Pong(number=number, steps=self._steps, idle=idle, remark=remark))
            case protocol.GetLog(number=number):
                self._send(protocol.answer(number, tuple(self._log)))
            case protocol.Exit():
                os._exit(0)
            case _:
                self.commands.put(command)
                if self._engine is not None:
                    _notify(self._engine, command)

    def _perform_arrived(self, *, wait: bool) -> None:
        """Perform every command that arrived, or arrives while the engine delays its step. wait: for the first one."""
        if wait:
            self._idle = True
            command = self.commands.get()
            self._idle = False
            self._take(command)
        for command in arrived(self.commands, lambda: self._engine.batch_delay if self._engine else 0.0):
            self._take(command)

    def _take(self, command: protocol.Task | PreparedJob) -> None:
        if isinstance(command, PreparedJob):
            self.perform_prepared(command)
        else:
            self.perform(command)

    def perform(self, command: protocol.Task) -> None:
        """Perform one command and send its reply. A long text is tokenized beside the steps of the engine."""
        self._steps += 1
        match command:
            case protocol.Tokenize() | protocol.Detokenize() | protocol.GetPieces() if _size(command) >= LARGE:
                self._run_apart(self._text_thread, self._answer, command)
            case protocol.CountTokens(prompt=prompt):
                self._run_apart(self._media_thread if prompt.media else self._text_thread, self._answer, command)
            case protocol.SubmitGenerate(job=job) if job.media:
                self._preparing.add(job.id)
                self._run_apart(self._media_thread, self._prepare, command)
            case protocol.SubmitGenerate(job=job) | protocol.SubmitEmbed(job=job) if _text_size(job) >= LARGE:
                self._preparing.add(job.id)
                self._run_apart(self._text_thread, self._prepare, command)
            case protocol.CancelJob(id=id) if id in self._preparing:
                self._preparing.discard(id)
                self._outbox.add([Ended(id=id, reason="cancelled")], fast=False)
            case _:
                self._answer(command)

    def perform_prepared(self, prepared: PreparedJob) -> None:
        """Submit a job that was prepared apart, unless it was cancelled before."""
        if prepared.id not in self._preparing:
            return
        self._preparing.discard(prepared.id)
        if isinstance(prepared.command, Exception):
            self._outbox.add([Failed.of(prepared.id, prepared.command)], fast=False)
        else:
            self._answer(prepared.command)

    @cached_property
    def _text_thread(self) -> ThreadPoolExecutor:
        """One thread for long texts: other requests continue, because the vocabulary never changes."""
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(1, "texts")

    @cached_property
    def _media_thread(self) -> ThreadPoolExecutor:
        """One thread for media: to encode a picture takes as long as many decodes, and text need not wait for it."""
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(1, "media")

    def _run_apart(self, thread: ThreadPoolExecutor, work: Callable[[Any], None], command: protocol.Task) -> None:
        with self._counting:
            self._apart += 1
        thread.submit(self._perform_apart, work, command)

    def _prepare(self, command: protocol.SubmitGenerate | protocol.SubmitEmbed) -> None:
        """Tokenize the texts of a job and encode its media, and return it to the main thread."""
        result: protocol.Task | Exception
        try:
            if self._engine is None:
                raise EngineFailed("no weights are loaded")
            if command.job.id not in self._preparing:
                raise EngineFailed("the job was cancelled while it waited for this thread")
            job = self._engine.prepare(command.job)
            submit = protocol.SubmitGenerate if isinstance(job, Generate) else protocol.SubmitEmbed
            result = submit(job=job)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - a failure ends its job alone
            result = error
        self.commands.put(PreparedJob(command.job.id, result))

    def _perform_apart(self, work: Callable[[Any], None], command: protocol.Task) -> None:
        try:
            work(command)
            self._steps += 1
            with self._counting:
                self._apart -= 1
        except BaseException:  # noqa: BLE001 - a fault ends the process, as one of the main thread does
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def _answer(self, command: protocol.Task) -> None:
        number = getattr(command, "number", None)
        try:
            value = self._result(command)
            reply = b"" if number is None else protocol.pack(protocol.answer(number, value))
        except Exception as error:  # noqa: BLE001 - a failure ends its command alone
            self._report(command, error)
        else:
            if reply:
                self._write(reply)

    def _report(self, command: protocol.Task, error: Exception) -> None:
        """Answer a question or a job with its failure; other commands have no answer."""
        match command:
            case protocol.SubmitGenerate(job=job) | protocol.SubmitEmbed(job=job):
                self._outbox.add([Failed.of(job.id, error)], fast=False)
            case protocol.CancelJob() | protocol.ShareCores():
                traceback.print_exception(error)
            case _:
                failed = Failed.of(command.number, error)
                self._send(
                    protocol.CallError(
                        number=command.number, kind=failed.kind, message=failed.message, hint=failed.hint
                    )
                )

    def _result(self, command: protocol.Task) -> object:
        if isinstance(command, protocol.LoadWeights):
            return self._load(command.choice, logs=command.logs)
        engine = self._engine
        if engine is None:
            raise EngineFailed("no weights are loaded")
        match command:
            case protocol.SubmitGenerate(job=job) | protocol.SubmitEmbed(job=job):
                engine.submit(job)
            case protocol.CancelJob(id=id):
                engine.cancel(id)
            case protocol.OpenContext(name=name, options=options):
                return engine.open_context(name, options)
            case protocol.CloseContext(name=name):
                engine.close_context(name)
            case protocol.RetuneContext(name=name, threads=threads, scales=scales):
                engine.retune_context(name, threads=threads, scales=scales)
            case protocol.ShareCores(rank=rank, of=of):
                engine.share_cores(rank, of)
            case protocol.DeclarePrefixes(name=name, prefixes=prefixes):
                return engine.declare_prefixes(name, prefixes)
            case protocol.Tokenize(text=text, add_special=add, parse_special=parse, joint=joint):
                return engine.tokenize(text, add_special=add, parse_special=parse, joint=joint)
            case protocol.CountTokens(prompt=prompt):
                return engine.count_tokens(prompt)
            case protocol.Detokenize(tokens=tokens):
                return engine.detokenize(tokens)
            case protocol.GetPieces(tokens=tokens):
                return engine.pieces(tokens)
            case protocol.GetStats():
                return engine.stats()
        return None

    def _load(self, choice: EngineChoice, *, logs: bool) -> object:
        percent = -1

        def progress(share: float) -> bool:
            nonlocal percent
            if int(share * 100) > percent:
                percent = int(share * 100)
                self._send(protocol.LoadReport(share=share))
            return True

        def log(line: str) -> None:
            self._log.append(line[:_LONGEST_LINE])
            if logs:
                self._send(protocol.LogLine(text=line))

        self._engine = find_engine(choice.name)(choice.files, choice.options, progress, log=log)
        return self._engine.facts

    def _send(self, message: protocol.WorkerMessage) -> None:
        self._write(protocol.pack(message))

    def _write(self, frames: bytes) -> None:
        try:
            with self._writing:
                self._connection.sendall(frames)
        except OSError:
            os._exit(0)


def _size(question: protocol.TextQuestion) -> int:
    return len(question.text if isinstance(question, protocol.Tokenize) else question.tokens)


def _text_size(job: Job) -> int:
    """Return the characters that a job has tokenized."""
    if isinstance(job, Embed) and job.pairs:
        return sum(len(query) + len(document) for query, document in job.pairs)
    texts = (job.prompt,) if isinstance(job, Generate) else job.inputs
    return sum(
        len(text) if isinstance(text, str) else sum(len(part) for part in text if isinstance(part, str))
        for text in texts
    )


def _notify(engine: Engine, command: protocol.Task) -> None:
    """Let a running decode return early when a command makes it pointless, or include the prompt that arrives."""
    match command:
        case protocol.CancelJob() | protocol.CloseContext():
            engine.interrupt()
        case protocol.SubmitGenerate(job=job):
            engine.announce_prompt(job.context)
        case _:
            pass


if __name__ == "__main__":
    assert ENGINES
    main()
