"""Which commands the process that holds the weights performs before its next step."""

from __future__ import annotations

import queue
import threading

from mullama.runtime.child import arrived

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
