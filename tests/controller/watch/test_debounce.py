"""When a changed file may be acted on."""

from __future__ import annotations

import pytest

from mullama.controller.watch.debounce import ChangedFiles, WatchDecision, Watched, decide, next_look


@pytest.mark.parametrize(
    ("age", "removes", "loaded", "verdict"),
    [
        (0.0, 0, 3, WatchDecision.WAIT),
        (0.29, 0, 3, WatchDecision.WAIT),
        (0.3, 0, 3, WatchDecision.APPLY),
        (0.3, 1, 3, WatchDecision.WAIT),
        (4.9, 1, 3, WatchDecision.WAIT),
        (5.0, 1, 3, WatchDecision.APPLY),
        (5.0, 2, 3, WatchDecision.HELD),
        (5.0, 3, 3, WatchDecision.HELD),
        (5.0, 1, 2, WatchDecision.APPLY),
        (5.0, 1, 1, WatchDecision.HELD),
        (0.3, 0, 0, WatchDecision.APPLY),
    ],
)
def test_content_is_acted_on_once_it_has_settled(age: float, removes: int, loaded: int, verdict: WatchDecision) -> None:
    watched = Watched(applied="old").saw("new", 0.0)

    assert decide(watched, age, removes=removes, loaded=loaded) is verdict


def test_content_that_is_in_force_already_needs_nothing() -> None:
    assert decide(Watched(applied="a").saw("a", 1.0), 1.0, removes=9, loaded=9) is WatchDecision.SAME


def test_every_other_content_starts_the_clock_again() -> None:
    watched = Watched(applied="a").saw("b", 1.0).saw("b", 2.0)
    assert watched.since == 1.0
    assert watched.saw("c", 3.0).since == 3.0


@pytest.mark.parametrize(("removes", "wanted"), [(0, 0.2), (1, 4.9)])
def test_the_next_look_is_when_the_verdict_can_change(removes: int, wanted: float) -> None:
    watched = Watched(applied="a").saw("b", 100.0)

    assert next_look(watched, 100.1, removes=removes) == pytest.approx(wanted)


LOOKS: list[tuple[list[tuple[float, dict[str, int]]], list[str]]] = [
    ([(0, {}), (9, {})], ["", ""]),
    ([(0, {"a": 1}), (1, {"a": 1}), (2, {"a": 1}), (3, {"a": 1})], ["", "", "a", ""]),
    ([(0, {"a": 1}), (2, {"a": 2}), (3, {"a": 2}), (4, {"a": 2})], ["", "", "", "a"]),
    ([(0, {"a": 1}), (1, {}), (3, {}), (5, {})], ["", "", "a", ""]),
    ([(0, {"a": 1}), (2, {"a": 1}), (3, {"a": 1, "b": 1}), (5, {"a": 1, "b": 1})], ["", "a", "", "b"]),
    ([(0, {"a": 1}), (2, {"a": 1}), (3, {}), (5, {})], ["", "a", "", "a"]),
]


@pytest.mark.parametrize(("looks", "settled"), LOOKS)
def test_changed_files_are_returned_once_when_they_have_settled(
    looks: list[tuple[float, dict[str, int]]], settled: list[str]
) -> None:
    files = ChangedFiles(2.0)
    assert ["".join(sorted(files.saw(states, now))) for now, states in looks] == settled


def test_files_that_are_described_anew_have_not_changed() -> None:
    files = ChangedFiles(2.0)
    assert not files.saw({"a": 1}, 0)
    assert files.saw({"a": 1}, 2) == {"a"}
    files.described()
    assert not files.saw({}, 3)
    assert not files.saw({}, 6)
