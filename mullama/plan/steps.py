"""Plans and steps: values that can be printed, stored, sent and compared."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from mullama import codec
from mullama.manifest.nodes import nearest
from mullama.problems import Location
from mullama.struct import Struct, replace


class Cost(StrEnum):
    """The cost of a change, lowest first."""

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
    """The cause of a step: the desired state changed, or the observed state drifted from the applied one."""

    DESIRED = "desired"
    DRIFT = "drift"

    @classmethod
    def _missing_(cls, value: object) -> Cause | None:
        return cls.DESIRED if value == "wish" else None  # the name before 0.2; accepted until 1.0


class Action(StrEnum):
    """The action of a step; `sign` marks it in output."""

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


class FieldChange(Struct, frozen=True, kw_only=True):
    """A change of one field."""

    path: str
    """Dotted path, of a model's field without `models.NAME`."""
    cost: Cost
    sensitive: bool = False
    """True for a field of a secret; before and after are None."""
    before: Any = None
    after: Any = None
    renamed_from: str | None = None
    """The old name of a route or API key that is renamed; the path has the new one."""


class UnusableFile(Struct, frozen=True, kw_only=True):
    """A file of the machine that a model names and that cannot be loaded."""

    path: str = ""
    """Dotted path of the model's field, without `models.NAME`; "" before a plan names it."""
    reason: str
    """A clause with the name of the file."""
    hint: str = ""
    missing: bool = False
    """True if the file does not exist."""


class Step(Struct, frozen=True, kw_only=True):
    """One step of a plan."""

    subject: str
    """The model's name, or a block such as `server`, `routes`, `auth`."""
    kind: str
    """model, block, tools, files or server."""
    action: Action
    cause: Cause
    cost: Cost
    changes: tuple[FieldChange, ...] = ()
    detail: str = ""
    """Description for people."""
    bytes_download: int | None = 0
    """None if unknown."""
    memory_before: int | None = None
    """Bytes on all devices together; None if unknown. Parts that models share count in the first step that needs or
    frees them, so the differences add up."""
    memory_after: int | None = None
    """See `memory_before`."""
    memory_worst_case: int | None = None
    """Bytes with room for all that the requests may need at once; None where the context has that room."""
    pause: bool = False
    """True if requests to the model wait while the step runs."""
    destructive: bool = False
    refusal: str = ""
    """The reason why an apply refuses the plan; "" for a step that it carries out."""
    unusable: tuple[UnusableFile, ...] = ()
    """Files of the machine that cannot be loaded, so that an apply fails."""
    place: Location | None = None
    renamed_from: str | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.subject}"


class Plan(Struct, frozen=True, kw_only=True):
    """Steps in display order. Execution has its own phases (see `reconcile.execute`)."""

    base: str
    """Digest of the applied manifest, "" for none."""
    desired: str
    """Digest of the desired manifest."""
    generation: int
    """Number of the revision that an apply commits; the applied one if the manifest is unchanged."""
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    complete: bool = True
    """False if the download size of a step is not known."""
    beside: tuple[str, ...] = ()
    """Models that commands added beside the manifest; they are served and need no step."""
    targets: tuple[str, ...] = ()
    """The models and routes that the plan is limited to (see `plan.targets`); empty for the whole manifest."""

    @property
    def empty(self) -> bool:
        return not self.steps

    @property
    def pauses(self) -> bool:
        return any(step.pause for step in self.steps)

    @property
    def removes(self) -> tuple[str, ...]:
        return tuple(s.subject for s in self.steps if s.kind == "model" and s.action is Action.REMOVE)


def located(plan: Plan, places: Mapping[str, Location]) -> Plan:
    """Return the plan with places: a step without one gets that of its first unusable file or changed field.

    places: the place of each dotted path of the manifest.
    """
    steps = tuple(step if step.place else replace(step, place=_place(step, places)) for step in plan.steps)
    return replace(plan, steps=steps)


def _place(step: Step, places: Mapping[str, Location]) -> Location | None:
    root = f"models.{step.subject}" if step.kind == "model" else ""
    fields = (*(file.path for file in step.unusable), *(change.path for change in step.changes))
    paths = [f"{root}.{path}".strip(".") for path in fields] or [root or step.subject]
    found = (nearest(path, lambda part: None if part == "models" else places.get(part)) for path in paths)
    return next(filter(None, found), None)


FORMAT = "mullama.plan/1"


def to_tree(plan: Plan) -> dict[str, Any]:
    """Return the plan in its published JSON form. New keys may appear within one number of the format."""
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
        "beside": list(plan.beside),
        "targets": list(plan.targets),
    }


def summary(plan: Plan) -> dict[str, int]:
    """Return the number of steps of each action and of steps that pause, and the known bytes to download."""
    counts = {action.value: sum(s.action is action for s in plan.steps) for action in Action}
    counts["pauses"] = sum(s.pause for s in plan.steps)
    counts["bytes_download"] = sum(s.bytes_download or 0 for s in plan.steps)
    return counts


def subjects(plan: Plan) -> dict[str, list[str]]:
    """Return the subjects of the steps of each action that occurs."""
    found = {action.value: [step.subject for step in plan.steps if step.action is action] for action in Action}
    return {action: names for action, names in found.items() if names}


def _step_tree(step: Step) -> dict[str, Any]:
    """Return the JSON form of a step; its place has the keys file, line and column."""
    tree = codec.to_tree(step)
    place = tree.pop("place") or dict.fromkeys(("file", "line", "column"))
    tree["changes"] = [_change_tree(change) for change in tree["changes"]]
    model = step.subject if step.kind == "model" else None
    return {"id": step.id, "kind": step.kind, "model": model, **tree, **place}


def _change_tree(tree: dict[str, Any]) -> dict[str, Any]:
    left_out = {"before", "after"} if tree["sensitive"] else set()
    if tree["renamed_from"] is None:
        left_out.add("renamed_from")
    return {key: value for key, value in tree.items() if key not in left_out}


class _PlanTree(Struct, frozen=True, kw_only=True):
    base: str
    generation: int
    steps: tuple[dict[str, Any], ...]
    drift: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]
    complete: bool
    beside: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    desired: str = ""
    wish: str = ""  # the name of `desired` before 0.2


def from_tree(tree: object) -> Plan:
    """Return the plan of a tree that `to_tree` made; unknown keys are ignored. Raise `Invalid` for another tree."""
    read = codec.from_tree(_PlanTree, tree, "plan")
    return Plan(
        base=read.base,
        desired=read.desired or read.wish,
        generation=read.generation,
        steps=tuple(map(_tree_step, (*read.steps, *read.drift))),
        warnings=read.warnings,
        complete=read.complete,
        beside=read.beside,
        targets=read.targets,
    )


def _tree_step(tree: dict[str, Any]) -> Step:
    place = {key: tree.get(key) for key in ("file", "line", "column")} if tree.get("file") else None
    return codec.from_tree(Step, {**tree, "place": place}, "plan.steps")
