"""Text waits for more text for a moment, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.engines.base import COALESCE_SECONDS, Begun, Ended, Output, Piece
from mullama.runtime.worker.outbox import Outbox


class Told:
    """An outbox with a manual clock that records what it sent."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[list[Output]] = []
        self.outbox = Outbox(self._keep, lambda: self.now)

    def _keep(self, said: Sequence[Output]) -> None:
        self.sent.append(list(said))

    def step(self, seconds: float, *outputs: Output, fast: bool = True) -> int:
        """How many messages the step of so many seconds sent."""
        self.now += seconds
        before = len(self.sent)
        self.outbox.add(outputs, fast=fast)
        return len(self.sent) - before


def piece(text: str, id: int = 1) -> Piece:
    return Piece(id=id, text=text, count=1)


def test_text_of_fast_steps_leaves_once_in_a_moment_and_in_order() -> None:
    told = Told()
    step = COALESCE_SECONDS * 0.4
    counts = [told.step(step, piece(text)) for text in "abcdefg"]
    assert counts == [1, 0, 0, 1, 0, 0, 1]
    assert [[p.text for p in some if isinstance(p, Piece)] for some in told.sent] == [["a"], [*"bcd"], [*"efg"]]


def test_text_of_slow_steps_leaves_at_once() -> None:
    told = Told()
    assert [told.step(COALESCE_SECONDS * 1.1, piece(text)) for text in "abc"] == [1, 1, 1]


def test_nothing_waits_for_a_step_that_may_be_long() -> None:
    told = Told()
    told.step(1.0, piece("a"))
    assert told.step(0.001, piece("b"), fast=False) == 1


def test_other_outputs_flush_the_text_before_them() -> None:
    told = Told()
    told.step(1.0, piece("a"))
    assert told.step(0.001, piece("b")) == 0
    end = Ended(id=1, reason="stop", prompt_tokens=1)
    assert told.step(0.001, piece("c"), end) == 1
    assert told.sent[-1] == [piece("b"), piece("c"), end]
    assert told.step(0.001, Begun(id=2, prompt_tokens=1, cached_tokens=0)) == 1


def test_a_flush_sends_waiting_outputs_and_an_empty_one_nothing() -> None:
    told = Told()
    told.step(1.0, piece("a"))
    told.step(0.001, piece("b"))
    told.outbox.flush()
    told.outbox.flush()
    assert told.sent == [[piece("a")], [piece("b")]]
    assert told.step(0.001) == 0
