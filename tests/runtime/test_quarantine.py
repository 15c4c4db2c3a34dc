"""The guilt of requests, with values alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mullama.errors import Invalid
from mullama.runtime.quarantine import SECONDS, STRIKES, Quarantine

OTHER = None
"""Work that is no request, such as a question about tokens."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def standing(quarantine: Quarantine, request: str) -> str:
    try:
        suspected = quarantine.suspects(request)
    except Invalid:
        return "refused"
    return ("blamed" if quarantine.blames(request) else "suspected") if suspected else "free"


@pytest.mark.parametrize(
    ("deaths", "at_fault", "x", "y"),
    [
        ([], True, "free", "free"),
        ([["x"]], True, "blamed", "free"),
        ([["x"]] * STRIKES, True, "refused", "free"),
        ([["x", "x"]], True, "blamed", "free"),
        ([["x", "x", "x"]], True, "blamed", "free"),
        ([["x", "y"]], True, "suspected", "suspected"),
        ([["x", "y"]] * 5, True, "suspected", "suspected"),
        ([["x", "x", "y", "y"]] * 5, True, "suspected", "suspected"),
        ([["x", "y"], ["x"]], True, "blamed", "suspected"),
        ([["x", "y"], ["x"], ["x"]], True, "refused", "suspected"),
        ([["x", OTHER]] * 5, True, "suspected", "free"),
        ([[OTHER]] * 5, True, "free", "free"),
        ([[]] * 5, True, "free", "free"),
        ([["x"]] * 5, False, "free", "free"),
        ([["x", "y"]] * 5, False, "free", "free"),
    ],
)
def test_a_death_counts_once_and_against_a_request_that_was_alone(
    deaths: Sequence[Sequence[str | None]], at_fault: bool, x: str, y: str
) -> None:
    quarantine = Quarantine(Clock())
    for work in deaths:
        counted = quarantine.judge(work, at_fault=at_fault)
        assert counted is (at_fault and set(work) in ({"x"}, {"y"}))
    assert (standing(quarantine, "x"), standing(quarantine, "y")) == (x, y)


def test_a_request_that_ends_well_is_cleared_and_others_are_not() -> None:
    quarantine = Quarantine(Clock())
    quarantine.judge(["x", "y"], at_fault=True)
    quarantine.clear("x")
    assert (standing(quarantine, "x"), standing(quarantine, "y")) == ("free", "suspected")


def test_everything_is_forgotten_after_some_minutes_since_the_last_death() -> None:
    clock = Clock()
    quarantine = Quarantine(clock)
    quarantine.judge(["x"], at_fault=True)
    clock.now = SECONDS - 1
    quarantine.judge(["x"], at_fault=True)
    clock.now = 2 * SECONDS - 1
    assert standing(quarantine, "x") == "refused"
    clock.now = 2 * SECONDS
    assert standing(quarantine, "x") == "free"


def test_the_oldest_records_make_room_for_new_ones() -> None:
    quarantine = Quarantine(Clock())
    for number in range(1001):
        quarantine.judge([f"r{number}"], at_fault=True)
    assert (standing(quarantine, "r0"), standing(quarantine, "r1")) == ("free", "blamed")
