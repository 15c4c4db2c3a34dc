"""A plan is a value: an ordered tuple of steps that can be printed, stored, sent and compared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mullama.errors import Location
from mullama.names import JSONValue


class Cost(StrEnum):
    """What a change costs, cheapest first."""

    NONE = "none"
    LIVE = "live"
    CONTEXT = "context"
    WEIGHTS = "weights"
    FILES = "files"
    PROCESS = "process"

    @property
    def rank(self) -> int:
        return list(Cost).index(self)


class Cause(StrEnum):
    """Why a step is needed: the desired state changed, or the observed state drifted from the applied one."""

    DESIRED = "desired"
    DRIFT = "drift"

    @classmethod
    def _missing_(cls, value: object) -> Cause | None:
        return cls.DESIRED if value == "wish" else None  # the name before 0.2; accepted until 1.0


class Action(StrEnum):
    """What a step does to its subject, with the sign it is printed by."""

    ADD = "add"
    UPDATE = "update"
    REPLACE = "replace"
    REMOVE = "remove"
    RENAME = "rename"
    REPAIR = "repair"

    @property
    def sign(self) -> str:
        return {
            "add": "+",
            "update": "~",
            "replace": "±",
            "remove": "-",
            "rename": "→",
            "repair": "!",
        }[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field by its dotted path. A sensitive one shows neither side."""

    path: str
    before: JSONValue
    after: JSONValue
    cost: Cost
    sensitive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that will happen to one subject: a model's name, or `server`, `routes`, `auth`.

    bytes_download: None when unknown. memory_before/after: bytes of RAM and GPU together, None when unknown.
    pause: requests to this model wait while the step runs. detail: the sentence a person reads.
    """

    subject: str
    kind: str
    action: Action
    cause: Cause
    cost: Cost
    changes: tuple[FieldChange, ...] = ()
    detail: str = ""
    bytes_download: int | None = 0
    memory_before: int | None = None
    memory_after: int | None = None
    pause: bool = False
    destructive: bool = False
    place: Location | None = None
    renamed_from: str | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in the order they are shown; execution has its own fixed phases (see `reconcile.execute`).

    base: revision that was applied, "" for nothing. wish: revision that will be. complete: False when sizes or
    memory of some step are not known.
    """

    base: str
    desired: str
    generation: int
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    complete: bool = True

    @property
    def empty(self) -> bool:
        return not self.steps

    @property
    def pauses(self) -> bool:
        return any(step.pause for step in self.steps)

    @property
    def removes(self) -> tuple[str, ...]:
        return tuple(s.subject for s in self.steps if s.kind == "model" and s.action is Action.REMOVE)


FORMAT = "mullama.plan/1"


def to_tree(plan: Plan) -> dict[str, Any]:
    """The plan in its published JSON form: new keys may appear, the major number stands for the rest."""
    steps = [_step_tree(step) for step in plan.steps]
    return {
        "format": FORMAT,
        "complete": plan.complete,
        "base": plan.base,
        "desired": plan.desired,
        "wish": plan.desired,  # the name before 0.2; written until 1.0
        "generation": plan.generation,
        "summary": summary(plan),
        "steps": [s for s in steps if s["cause"] == Cause.DESIRED],
        "drift": [s for s in steps if s["cause"] == Cause.DRIFT],
        "warnings": list(plan.warnings),
    }


def summary(plan: Plan) -> dict[str, int]:
    """How many steps of each action, how many pause, and the bytes to download as far as they are known."""
    counts = {action.value: sum(s.action is action for s in plan.steps) for action in Action}
    counts["pauses"] = sum(s.pause for s in plan.steps)
    counts["bytes_download"] = sum(s.bytes_download or 0 for s in plan.steps)
    return counts


def _step_tree(step: Step) -> dict[str, Any]:
    return {
        "id": step.id,
        "kind": step.kind,
        "model": step.subject if step.kind == "model" else None,
        "subject": step.subject,
        "action": step.action.value,
        "cause": step.cause.value,
        "cost": step.cost.value,
        "changes": [_change_tree(change) for change in step.changes],
        "detail": step.detail,
        "bytes_download": step.bytes_download,
        "memory_before": step.memory_before,
        "memory_after": step.memory_after,
        "pause": step.pause,
        "destructive": step.destructive,
        "renamed_from": step.renamed_from,
        "file": step.place.file if step.place else None,
        "line": step.place.line if step.place else None,
        "column": step.place.column if step.place else None,
    }


def _change_tree(change: FieldChange) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "path": change.path,
        "cost": change.cost.value,
        "sensitive": change.sensitive,
    }
    if not change.sensitive:
        tree |= {"before": change.before, "after": change.after}
    return tree


def from_tree(tree: dict[str, Any]) -> Plan:
    """The inverse of `to_tree`, for a plan that a server computed; unknown keys are passed over."""
    steps = [*tree["steps"], *tree["drift"]]
    return Plan(
        base=tree["base"],
        desired=tree.get("desired") or tree["wish"],
        generation=tree["generation"],
        steps=tuple(_tree_step(s) for s in steps),
        warnings=tuple(tree["warnings"]),
        complete=tree["complete"],
    )


def _tree_step(tree: dict[str, Any]) -> Step:
    place = Location(tree["file"], tree["line"], tree["column"]) if tree["file"] else None
    return Step(
        subject=tree["subject"],
        kind=tree["kind"],
        action=Action(tree["action"]),
        cause=Cause(tree["cause"]),
        cost=Cost(tree["cost"]),
        changes=tuple(_tree_change(c) for c in tree["changes"]),
        detail=tree["detail"],
        bytes_download=tree["bytes_download"],
        memory_before=tree["memory_before"],
        memory_after=tree["memory_after"],
        pause=tree["pause"],
        destructive=tree["destructive"],
        place=place,
        renamed_from=tree["renamed_from"],
    )


def _tree_change(tree: dict[str, Any]) -> FieldChange:
    return FieldChange(
        path=tree["path"],
        before=tree.get("before"),
        after=tree.get("after"),
        cost=Cost(tree["cost"]),
        sensitive=tree["sensitive"],
    )
