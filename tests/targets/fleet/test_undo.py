"""The way back of a fleet's apply, from the histories of the hosts."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.errors import NotFound
from mullama.runtime.fleet import StepMark
from mullama.targets.fleet.undo import plan_undo


def kept(*marks: str | None) -> list[dict[str, Any]]:
    """Return revisions from the oldest to the newest, turned around."""
    rows = [
        {"generation": number, "by": "ann", "origin": {"fleet": mark} if mark else {"path": None}}
        for number, mark in enumerate(marks, 1)
    ]
    return rows[::-1]


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("prod/7.3", StepMark("prod", 7, 3)),
        ("a/b/7.12", StepMark("a/b", 7, 12)),
        ("prod", None),
        ("prod/7", None),
        (None, None),
        (3, None),
    ],
)
def test_a_mark_is_read(text: object, mark: StepMark | None) -> None:
    assert StepMark.parse(text) == mark
    assert mark is None or str(mark) == text


def test_the_steps_of_the_last_apply_are_undone_in_reverse_order() -> None:
    undo = plan_undo(
        "prod",
        {
            "a": kept(None, "prod/6.1", "prod/7.2", "prod/7.3"),
            "b": kept(None, "prod/7.1", "prod/7.2"),
            "c": kept(None, "prod/6.1"),
            "d": kept(None),
            "e": [],
        },
    )
    assert (undo.fence, list(undo.stages), undo.kept) == (7, [{"a": 3}, {"a": 2, "b": 2}, {"b": 1}], {})


def test_an_undo_is_undone_by_the_next_one() -> None:
    undo = plan_undo("prod", {"a": kept(None, "prod/7.1", "prod/7.2", "prod/8.1", "prod/8.2")})
    assert list(undo.stages) == [{"a": 4}, {"a": 3}]


def test_a_host_that_was_changed_since_keeps_what_it_has() -> None:
    undo = plan_undo("prod", {"a": kept(None, "prod/7.1", None), "b": kept(None, "prod/7.1"), "c": kept("prod/7.1")})
    assert list(undo.stages) == [{"b": 1}]
    assert undo.kept == {"a": "revision 3 is newer, by ann", "c": "it has no revision before the apply"}


def test_without_an_apply_of_the_fleet_nothing_is_undone() -> None:
    with pytest.raises(NotFound, match="no host serves a revision of the fleet prod"):
        plan_undo("prod", {"a": kept(None), "b": kept("other/7.1")})
