"""Which commands the process that holds the weights performs before its next step."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Any

import pytest

from mullama.chat.types import DEFAULT_SAMPLING
from mullama.engines.base import Embed, Generate
from mullama.runtime.worker import protocol
from mullama.runtime.worker.child import Child, arrived

FOREVER = 3600.0


def commands(*some: str) -> queue.SimpleQueue[str]:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for command in some:
        waiting.put(command)
    return waiting


def test_without_patience_only_what_is_there_is_performed() -> None:
    waiting = commands("a", "b")
    assert list(arrived(waiting, lambda: 0.0)) == ["a", "b"]
    assert list(arrived(waiting, lambda: -1.0)) == []


def test_a_burst_is_awaited_until_patience_ends() -> None:
    waiting, performed = commands("a"), list[str]()

    def patience() -> float:
        if performed == ["a"]:
            threading.Thread(target=waiting.put, args=("b",)).start()
        return 0.0 if len(performed) == 2 else FOREVER

    for command in arrived(waiting, patience):
        performed.append(command)
    assert performed == ["a", "b"]


def test_patience_that_nobody_rewards_ends() -> None:
    assert list(arrived(commands(), lambda: 0.001)) == []


class Hurried:
    """An engine that remembers who hurried it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def expect(self, context: str) -> None:
        self.calls.append(f"expect {context}")


PROMPT = Generate(id=1, context="main", prompt="x", sampling=DEFAULT_SAMPLING)


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        ({"t": "submit", "job": protocol.dump(PROMPT)}, ["expect main"]),
        ({"t": "submit", "job": protocol.dump(Embed(id=1, context="main", inputs=("x",)))}, []),
        ({"t": "cancel", "id": 1}, ["interrupt"]),
        ({"t": "close", "n": 1, "name": "main"}, ["interrupt"]),
        ({"t": "tokenize", "n": 1}, []),
    ],
)
def test_a_command_hurries_a_decode_that_it_makes_pointless(message: dict[str, Any], calls: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child, engine = Child(theirs), Hurried()
        child._engine = engine  # type: ignore[assignment]
        child._control(message)
        assert engine.calls == calls
        assert child._commands.get_nowait() == message, "and is performed in its turn"
