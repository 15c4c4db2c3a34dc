"""The undo of the last apply of a fleet (pure): each of its steps backwards, from the histories of the hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mullama.errors import NotFound
from mullama.runtime.fleet import StepMark
from mullama.struct import Struct, field


class FleetUndo(Struct, frozen=True, kw_only=True):
    """The way back."""

    fence: int
    """The number of the apply that is undone."""
    stages: Sequence[Mapping[str, int]]
    """By host, the number of the revision to go back to; the last step of the apply first."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """The hosts that changed in the apply and stay as they are, with the reason."""


def plan_undo(fleet: str, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> FleetUndo:
    """Return the undo of the last apply of a fleet.

    histories: by host, its kept revisions, newest first, as `GET /api/v1/history` returns them. Raises `NotFound` if
    no host has a revision of the fleet.
    """
    heads = [_mark(kept[0]) for kept in histories.values() if kept]
    fence = max((mark.fence for mark in heads if mark is not None and mark.fleet == fleet), default=0)
    if not fence:
        raise NotFound(f"no host serves a revision of the fleet {fleet}, so there is nothing to undo")
    stages: dict[int, dict[str, int]] = {}
    left: dict[str, str] = {}
    for host, kept in histories.items():
        marks = [_mark(revision) for revision in kept]
        ours = [mark is not None and (mark.fleet, mark.fence) == (fleet, fence) for mark in marks]
        if True in ours and not ours[0]:
            newest = kept[0]
            left[host] = f"revision {newest['generation']} is newer, by {newest.get('by') or 'another change'}"
            continue
        for index, mark in enumerate(marks):
            if not ours[index] or mark is None:
                break
            if index + 1 == len(kept):
                left[host] = "it has no revision before the apply"
                break
            stages.setdefault(mark.step, {})[host] = int(kept[index + 1]["generation"])
    return FleetUndo(fence=fence, stages=[stages[step] for step in sorted(stages, reverse=True)], kept=left)


def _mark(revision: Mapping[str, Any]) -> StepMark | None:
    return StepMark.parse((revision.get("origin") or {}).get("fleet"))
