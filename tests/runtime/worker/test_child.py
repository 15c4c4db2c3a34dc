"""The commands that a worker performs before its next step."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from mullama.chat.media import Medium
from mullama.chat.types import DEFAULT_SAMPLING
from mullama.engines.base import Embed, Ended, EngineChoice, EngineStats, Failed, Generate, Output
from mullama.errors import Invalid, Kind
from mullama.offload import LARGE
from mullama.runtime.worker import protocol
from mullama.runtime.worker.child import Child, PreparedJob, arrived
from mullama.struct import replace

FOREVER = 3600.0


def commands(*some: str) -> queue.SimpleQueue[str]:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for command in some:
        waiting.put(command)
    return waiting


def test_without_delay_only_waiting_commands_are_performed() -> None:
    waiting = commands("a", "b")
    assert list(arrived(waiting, lambda: 0.0)) == ["a", "b"]
    assert list(arrived(waiting, lambda: -1.0)) == []


def test_a_burst_is_awaited_until_the_delay_ends() -> None:
    waiting, performed = commands("a"), list[str]()

    def delay() -> float:
        if performed == ["a"]:
            threading.Thread(target=waiting.put, args=("b",)).start()
        return 0.0 if len(performed) == 2 else FOREVER

    for command in arrived(waiting, delay):
        performed.append(command)
    assert performed == ["a", "b"]


def test_a_delay_without_a_command_ends() -> None:
    assert list(arrived(commands(), lambda: 0.001)) == []


class NotifiedEngine:
    """Records the notifications that an engine gets during a decode."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def announce_prompt(self, context: str) -> None:
        self.calls.append(f"announce_prompt {context}")


PROMPT = Generate(id=1, context="main", prompt="x", sampling=DEFAULT_SAMPLING)


@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (protocol.SubmitGenerate(job=PROMPT), ["announce_prompt main"]),
        (protocol.SubmitEmbed(job=Embed(id=1, context="main", inputs=("x",))), []),
        (protocol.CancelJob(id=1), ["interrupt"]),
        (protocol.CloseContext(number=1, name="main"), ["interrupt"]),
        (protocol.GetStats(number=1), []),
    ],
)
def test_a_command_that_makes_a_decode_pointless_notifies_the_engine(
    command: protocol.Command, calls: list[str]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine = NotifiedEngine()
        child = Child(theirs, engine)  # type: ignore[arg-type]
        child.receive(command)

        assert engine.calls == calls
        assert child.commands.get_nowait() is command, "and it is performed in its turn"


class SlowVocabulary:
    """Answers a question about a text when the test allows it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.submitted: list[object] = []

    def tokenize(self, text: str, **_: object) -> tuple[int, ...]:
        self.go.wait(60)
        return (len(text),)

    def detokenize(self, tokens: tuple[int, ...]) -> bytes:
        self.go.wait(60)
        raise Invalid("no such token", hint="look")

    def pieces(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        self.go.wait(60)
        return (b"x",)

    def stats(self) -> EngineStats:
        return EngineStats(steps=5)

    def prepare(self, job: Generate) -> Generate:
        self.go.wait(60)
        if job.suffix:
            raise Invalid("no such suffix")
        return replace(job, prompt=(1, 2))

    def submit(self, job: Generate) -> None:
        self.submitted.append(job.prompt)


LONG = (1,) * LARGE


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        (protocol.Tokenize(number=1, text="x" * LARGE, add_special=True, parse_special=False),
         protocol.answer(1, (LARGE,))),
        (protocol.GetPieces(number=1, tokens=LONG), protocol.answer(1, (b"x",))),
        (protocol.Detokenize(number=1, tokens=LONG),
         protocol.CallError(number=1, kind=Kind.INVALID, message="no such token", hint="look")),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_long_text_does_not_delay_other_commands(question: protocol.Task, reply: protocol.Reply) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine = SlowVocabulary()
        child = Child(theirs, engine)  # type: ignore[arg-type]
        unpacker = protocol.Unpacker(protocol.reply_reader())

        child.perform(question)
        child.perform(protocol.GetStats(number=2))
        assert list(unpacker.feed(ours.recv(1 << 16))) == [protocol.answer(2, engine.stats())]
        engine.go.set()
        assert list(unpacker.feed(ours.recv(1 << 16))) == [reply]


LONG_JOB = replace(PROMPT, prompt="x" * LARGE)
ENDED = Ended(id=1, reason="cancelled")
NO_SUFFIX = Failed(id=1, kind=Kind.INVALID, message="no such suffix")


@pytest.mark.parametrize(
    ("job", "cancel", "submitted", "outputs"),
    [
        (LONG_JOB, False, [(1, 2)], []),
        (replace(LONG_JOB, prompt=(3, "x" * LARGE)), False, [(1, 2)], []),
        (replace(PROMPT, media=(Medium.of("image", b"x"),)), False, [(1, 2)], []),
        (replace(PROMPT, media=(Medium.of("image", b"x"),)), True, [], [ENDED]),
        (LONG_JOB, True, [], [ENDED]),
        (replace(LONG_JOB, suffix="s"), False, [], [NO_SUFFIX]),
        (replace(LONG_JOB, suffix="s"), True, [], [ENDED]),
    ],
)
def test_a_long_prompt_does_not_delay_other_commands(
    job: Generate, cancel: bool, submitted: list[object], outputs: list[Output]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine = SlowVocabulary()
        child = Child(theirs, engine)  # type: ignore[arg-type]
        child.perform(protocol.SubmitGenerate(job=job))
        child.perform(protocol.GetStats(number=2))
        (answered,) = protocol.Unpacker(protocol.reply_reader()).feed(ours.recv(1 << 16))
        assert answered == protocol.answer(2, engine.stats())
        if cancel:
            child.perform(protocol.CancelJob(id=1))
        engine.go.set()
        prepared = child.commands.get(timeout=60)
        assert isinstance(prepared, PreparedJob)
        child.perform_prepared(prepared)

        assert engine.submitted == submitted
        if outputs:
            assert list(protocol.Unpacker(protocol.reply_reader()).feed(ours.recv(1 << 16))) == [outputs]


def test_a_short_text_is_answered_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        engine = SlowVocabulary()
        engine.go.set()
        Child(theirs, engine).perform(  # type: ignore[arg-type]
            protocol.Tokenize(number=1, text="x" * (LARGE - 1), add_special=True, parse_special=False)
        )
        ours.setblocking(False)
        assert ours.recv(1 << 16) == protocol.pack(protocol.answer(1, (LARGE - 1,)))


def test_a_command_that_does_not_decode_ends_the_process_with_the_reason() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-m", "mullama.runtime.worker.child", "", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.PIPE,
        )
        ours.sendall(b"\x02\x00\x00\x00[]")
        _, errors = child.communicate(timeout=200)

    assert child.returncode == 1
    assert b"cannot be decoded" in errors


def test_the_end_of_the_engines_log_is_sent_at_once_and_long_lines_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded(NotifiedEngine):
        facts = None

    def load(files: object, options: object, progress: object, *, log: Callable[[str], None]) -> Loaded:
        for number in range(2100):
            log(f"line {number}")
        log("x" * 10_000)
        return Loaded()

    monkeypatch.setattr("mullama.runtime.worker.child.find_engine", lambda name: load)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = Child(theirs)
        child.perform(protocol.LoadWeights(number=1, choice=EngineChoice(name="scripted", files=("f",))))
        child.receive(protocol.GetLog(number=2))
        theirs.shutdown(socket.SHUT_WR)
        data = b"".join(iter(lambda: ours.recv(1 << 16), b""))

    replies = [r for r in protocol.Unpacker(protocol.reply_reader()).feed(data) if isinstance(r, protocol.CallResult)]
    lines = protocol.read_value(tuple[str, ...], replies[-1].value)
    assert (replies[-1].number, len(lines), lines[0], lines[-1]) == (2, 2000, "line 101", "x" * 2000)


@pytest.mark.parametrize(
    ("command", "replies"),
    [
        (protocol.SubmitGenerate(job=PROMPT), [Failed(id=1, kind=Kind.UNAVAILABLE, message="no weights are loaded")]),
        (protocol.CancelJob(id=1), []),
        (protocol.GetStats(number=7), ["no weights are loaded"]),
    ],
)
def test_a_command_that_fails_ends_alone(command: protocol.Task, replies: list[object]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = Child(theirs)
        child.perform(command)
        theirs.shutdown(socket.SHUT_WR)
        data = b"".join(iter(lambda: ours.recv(1 << 16), b""))
    found: list[object] = []
    for reply in protocol.Unpacker(protocol.reply_reader()).feed(data):
        found += (
            reply if isinstance(reply, list) else [reply.message if isinstance(reply, protocol.CallError) else reply]
        )
    assert found == replies
