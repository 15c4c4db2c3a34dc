"""Values that a fleet's controller leaves on its hosts: the mark of a step, and the record of a rollout. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from mullama.codec import Bounds
from mullama.struct import Struct, field

MOST_HOSTS = 100
"""The largest fleet whose controller leaves records: each host gets one with all hosts."""

_MARK = re.compile(r"(.+)/(\d+)\.(\d+)", re.DOTALL)

HostState = Literal["changed", "unchanged", "failed", "running", "not reached"]
"""`running` is a host that changes, or that still changed when its controller left."""

RolloutEnd = Literal["applied", "paused", "failed", "interrupted"]

_Name = Annotated[str, Bounds(min_length=1, max_length=200)]
_Text = Annotated[str, Bounds(max_length=4000)]
_Count = Annotated[int, Bounds(ge=0, lt=2**53)]
_Seconds = Annotated[float, Bounds(ge=0, lt=2**53)]


class StepMark(NamedTuple):
    """The step of a fleet's apply that made a revision."""

    fleet: str
    fence: int
    """The number of the apply."""
    step: int

    def __str__(self) -> str:
        return f"{self.fleet}/{self.fence}.{self.step}"

    @classmethod
    def parse(cls, text: object) -> StepMark | None:
        """Return the mark in the origin of a revision; None for a revision that no fleet made."""
        found = _MARK.fullmatch(text) if isinstance(text, str) else None
        return cls(found[1], int(found[2]), int(found[3])) if found else None


class RolloutHost(Struct, frozen=True, kw_only=True):
    """One host in the record of a rollout."""

    url: _Text
    """Its address."""
    state: HostState | Literal["away"]
    steps_done: _Count = 0
    steps: _Count = 0
    revision: _Text | None = None
    """The digest of the revision that it serves as the controller left it; None for one that was not asked."""
    outcome: _Text = ""
    """Of a failure: `partly_applied`, or the kind of the error."""
    message: _Text = ""
    hint: _Text = ""


class RolloutModel(Struct, frozen=True, kw_only=True):
    """The places of one model after a rollout."""

    hosts: tuple[_Name, ...]
    replicas: _Count
    """The declared number, which is more than `hosts` while hosts are away."""


class RolloutRecord(Struct, frozen=True, kw_only=True):
    """A rollout as its controller last reported it. Times are of the controller's clock."""

    fleet: _Name
    host: _Name
    """The host that got this copy."""
    kind: Literal["apply", "undo"]
    holder: _Name
    """The run of the controller, as its lease has it."""
    fence: Annotated[int, Bounds(ge=1, lt=2**53)]
    number: Annotated[int, Bounds(ge=1, lt=2**53)]
    """Of the record in its rollout: it grows with each one."""
    began: _Seconds
    """Unix seconds."""
    updated: _Seconds
    """Unix seconds."""
    ended: RolloutEnd | None = None
    """None while it runs."""
    stage: _Count = 0
    """Of the present or last stage, from 1; 0 before the first."""
    stages: _Count = 0
    title: _Text = ""
    """The work of the stage, for people."""
    pause: _Seconds | Literal["manual"] | None = None
    """The pause after the stage, in seconds, while it lasts; `manual` while the controller asks on its terminal."""
    canary: tuple[_Name, ...] = ()
    """The hosts that change first."""
    hosts: Annotated[Mapping[_Name, RolloutHost], Bounds(max_length=MOST_HOSTS)]
    models: Mapping[_Name, RolloutModel] = field(default_factory=dict)
    """The places of all models at the end; empty for an undo, whose models are those of earlier revisions."""

    @property
    def order(self) -> tuple[int, int]:
        """The place among all records of a fleet: a later one is larger."""
        return self.fence, self.number
