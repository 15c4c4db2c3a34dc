"""The fleet as one of its hosts sees it (pure): its hosts, its models by host, and its rollout.

The record of the last rollout names the hosts. Their state is what they answer now; one that does not answer keeps the
part that the record knows, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mullama.codec import to_tree
from mullama.runtime.fleet import RolloutHost, RolloutRecord, StepMark
from mullama.struct import Struct, field

FORMAT = "mullama.fleet-view/1"

NO_ANSWER, NOT_ASKED, AWAY = "no answer", "not asked", "away"
"""The states of a host without a status."""

_FAULTY = ("failed", "degraded")


class FleetMembership(Struct, frozen=True, kw_only=True):
    """`fleet` of a status: the part of a server in a fleet."""

    name: str
    """Of the fleet."""
    host: str | None
    """Its own there; unknown without a record."""
    fence: int
    """The number of the last change that reached it."""
    number: int
    """Of the record of that change; 0 without one."""


class _Reason(Struct, frozen=True, kw_only=True):
    reason: str
    message: str


class _Model(Struct, frozen=True, kw_only=True):
    name: str
    state: str
    active: int = 0
    waiting: int = 0
    memory: int = 0
    progress: float | None = None
    conditions: tuple[_Reason, ...] = ()

    @property
    def fault(self) -> str:
        """Why it does not serve as declared; "" for one that does."""
        stated = (one for one in self.conditions if one.message and self.state in _FAULTY)
        return next((f"{one.reason}: {one.message}" for one in stated), "")


class _Budget(Struct, frozen=True, kw_only=True):
    name: str
    used: int
    budget: int


class _Memory(Struct, frozen=True, kw_only=True):
    used: int
    places: tuple[_Budget, ...] = ()


class _Device(Struct, frozen=True, kw_only=True):
    name: str
    description: str
    total: int
    free: int
    fault: str | None = None


class _Machine(Struct, frozen=True, kw_only=True):
    ram_total: int
    ram_available: int
    gpus: tuple[_Device, ...] = ()


class _Origin(Struct, frozen=True, kw_only=True):
    fleet: str | None = None


class HostStatus(Struct, frozen=True, kw_only=True):
    """The part of a status that a view has. A host of another version may lack the later fields."""

    state: str
    version: str
    generation: int
    revision: str
    models: tuple[_Model, ...]
    uptime: float | None = None
    origin: _Origin = _Origin()
    memory: _Memory | None = None
    machine: _Machine | None = None
    fleet: FleetMembership | None = None


class HostLook(Struct, frozen=True, kw_only=True):
    """The answer of another host, or the reason why there is none."""

    status: HostStatus | None = None
    asked: bool = True
    reason: str = ""
    hint: str = ""


class FleetFacts(Struct, frozen=True, kw_only=True):
    """The facts of a view."""

    when: float
    """Unix seconds of the looks at the other hosts."""
    status: HostStatus
    """That of this server."""
    lease: Mapping[str, Any] | None
    """The lease in force on this server, in its published form."""
    record: RolloutRecord | None = None
    """The newest one of all hosts that answer."""
    others: Mapping[str, HostLook] = field(default_factory=dict)
    """By name."""

    @property
    def host(self) -> str | None:
        """The name of this server in its fleet."""
        return self.status.fleet.host if self.status.fleet is not None else None


class _Seen(NamedTuple):
    """One host in a view."""

    name: str
    left: RolloutHost | None
    """As the rollout left it; None without a record."""
    look: HostLook
    this: bool = False


def part_in_fleet(mark: str | None, revision: str, record: RolloutRecord | None) -> FleetMembership | None:
    """Return the part of a server in a fleet; None for a server that is in none.

    mark: `fleet` of the origin of its applied manifest. revision: the digest of that one. A host without a mark is in
    the fleet of its record as long as it serves what it served then: a manifest of its own ends that.
    """
    step = StepMark.parse(mark)
    if record is not None and (step is None or step.fleet == record.fleet):
        own = record.hosts.get(record.host)
        if step is not None or (own is not None and own.revision == revision):
            fence = max(record.fence, step.fence if step is not None else 0)
            number = record.number if fence == record.fence else 0
            return FleetMembership(name=record.fleet, host=record.host, fence=fence, number=number)
    return FleetMembership(name=step.fleet, host=None, fence=step.fence, number=0) if step is not None else None


def fleet_view(facts: FleetFacts) -> dict[str, Any]:
    """Return the published form. A server that is in no fleet has no `name` and no hosts."""
    part, record = facts.status.fleet, facts.record
    hosts = list(_hosts(facts)) if part is not None else []
    return {
        "format": FORMAT,
        "name": part.name if part is not None else None,
        "host": facts.host if record is None or facts.host in record.hosts else None,
        "when": facts.when,
        "lease": facts.lease,
        "rollout": _rollout(record, facts.lease) if record is not None and part is not None else None,
        "hosts": [_row(seen, record) for seen in hosts],
        "models": _models(record, hosts),
    }


def _rollout(record: RolloutRecord, lease: Mapping[str, Any] | None) -> dict[str, Any]:
    held = lease is not None and lease["holder"] == record.holder
    parts = {name: value for name, value in to_tree(record).items() if name not in ("host", "hosts", "models")}
    return {**parts, "state": record.ended or ("running" if held else "lost")}


def _hosts(facts: FleetFacts) -> Iterator[_Seen]:
    """Yield the hosts in the order of the fleet."""
    own = HostLook(status=facts.status)
    if facts.record is None:
        yield _Seen("", None, own, this=True)
        return
    for name, left in facts.record.hosts.items():
        this = name == facts.host
        yield _Seen(name, left, own if this else facts.others.get(name) or HostLook(asked=False), this)


def _row(seen: _Seen, record: RolloutRecord | None) -> dict[str, Any]:
    left, status = seen.left, seen.look.status
    models = status.models if status is not None else ()
    return {
        "name": seen.name,
        "url": left.url if left is not None else "",
        "this": seen.this,
        "state": status.state if status is not None else _silent(seen),
        "reason": seen.look.reason,
        "hint": seen.look.hint,
        "version": status.version if status is not None else None,
        "uptime": status.uptime if status is not None else None,
        "generation": status.generation if status is not None else None,
        "step": status.origin.fleet if status is not None else None,
        "changed_since": _changed_since(status, left, record),
        "result": _result(left) if left is not None else None,
        "models": len(models),
        "ready": sum(model.state == "ready" for model in models),
        "active": sum(model.active for model in models),
        "waiting": sum(model.waiting for model in models),
        "memory": _memory(status),
        "faults": [f"{model.name}: {model.fault}" for model in models if model.fault],
    }


def _silent(seen: _Seen) -> str:
    """Return the state of a host without a status."""
    if seen.left is not None and seen.left.state == "away":
        return AWAY
    return NO_ANSWER if seen.look.asked else NOT_ASKED


def _changed_since(status: HostStatus | None, left: RolloutHost | None, record: RolloutRecord | None) -> bool:
    """Return True for a host that serves another revision than its controller left."""
    if status is None or left is None or left.revision is None or record is None or record.ended is None:
        return False
    return left.state not in ("running", "failed") and status.revision != left.revision


def _result(left: RolloutHost) -> dict[str, Any]:
    return {name: getattr(left, name) for name in ("state", "steps_done", "steps", "outcome", "message", "hint")}


def _memory(status: HostStatus | None) -> dict[str, Any] | None:
    """Return the memory of each place with that of the machine: main memory first, under the empty name."""
    if status is None or status.machine is None or status.memory is None:
        return None
    machine, budgets = status.machine, {place.name: place for place in status.memory.places}
    main = _Device(name="", description="", total=machine.ram_total, free=machine.ram_available)
    places = []
    for device in (main, *machine.gpus):
        budget = budgets.get(device.name)
        places.append({
            "name": device.name, "description": device.description, "total": device.total, "free": device.free,
            "fault": device.fault or "", "used": budget.used if budget is not None else None,
            "budget": budget.budget if budget is not None else None,
        })  # fmt: skip
    return {"used": status.memory.used, "places": places}


def _models(record: RolloutRecord | None, hosts: Sequence[_Seen]) -> list[dict[str, Any]]:
    """Return each model with its places: those of the record, and further hosts that have it."""
    wanted = record.models if record is not None else {}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted} if hosts else {}
    for seen in hosts:
        status = seen.look.status
        here = {model.name: model for model in (status.models if status is not None else ())}
        for name, model in here.items():
            belongs = (name in wanted and seen.name in wanted[name].hosts) if wanted else None
            found.setdefault(name, []).append(_place(seen.name, model, belongs, model.fault))
        for name, places in wanted.items():
            if seen.name in places.hosts and name not in here:
                none = _Model(name=name, state="absent" if status is not None else "unknown")
                found[name].append(_place(seen.name, none, True, ""))
    return [
        {
            "name": name,
            "replicas": wanted[name].replicas if name in wanted else None,
            "ready": sum(place["state"] == "ready" for place in places),
            "places": places,
        }
        for name, places in sorted(found.items())
    ]


def _place(host: str, model: _Model, wanted: bool | None, reason: str) -> dict[str, Any]:
    """Return one place of a model. wanted: True if it belongs there; None where that is not known, as after an undo."""
    return {
        "host": host, "state": model.state, "wanted": wanted, "active": model.active, "waiting": model.waiting,
        "memory": model.memory, "progress": model.progress, "reason": reason,
    }  # fmt: skip
