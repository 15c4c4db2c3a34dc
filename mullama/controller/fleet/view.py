"""The fleet as one of its hosts sees it (pure): its hosts, its models by host, and its rollout.

The record of the last rollout names the hosts. Their state is what they answer now; one that does not answer keeps the
part that the record knows, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mullama.codec import to_tree
from mullama.runtime.fleet import RolloutRecord, StepMark
from mullama.struct import Struct, field

FORMAT = "mullama.fleet-view/1"

NO_ANSWER, NOT_ASKED, AWAY = "no answer", "not asked", "away"
"""The states of a host without a status."""

_PLACE = ("state", "active", "waiting", "memory", "progress")
_FAULTY = ("failed", "degraded")


class HostLook(Struct, frozen=True, kw_only=True):
    """The answer of another host, or the reason why there is none."""

    status: Mapping[str, Any] | None = None
    """Its status; None for a host without an answer."""
    asked: bool = True
    reason: str = ""
    """Why there is no status."""
    hint: str = ""


class FleetFacts(Struct, frozen=True, kw_only=True):
    """The facts of a view."""

    when: float
    """Unix seconds of the looks at the other hosts."""
    status: Mapping[str, Any]
    """That of this server."""
    lease: Mapping[str, Any]
    """The lease of this server in its published form."""
    host: str | None = None
    """The name of this server in its fleet."""
    record: RolloutRecord | None = None
    """The newest one of all hosts that answer."""
    others: Mapping[str, HostLook] = field(default_factory=dict)
    """By name."""


def part_in_fleet(mark: str | None, revision: str, record: RolloutRecord | None) -> dict[str, Any] | None:
    """Return the part of a server in a fleet in its published form; None for a server that is in none.

    `name` is that of the fleet, `host` its own, which is unknown without a record; `fence` is the number of the last
    change that reached it, and `number` that of its record, 0 without one.

    mark: `fleet` of the origin of its applied manifest. revision: the digest of that one. A host without a mark is in
    the fleet of its record as long as it serves what it served then: a manifest of its own ends that.
    """
    step = StepMark.parse(mark)
    if record is not None and (step is None or step.fleet == record.fleet):
        own = record.hosts.get(record.host)
        if step is not None or (own is not None and own.revision == revision):
            fence = max(record.fence, step.fence if step is not None else 0)
            number = record.number if fence == record.fence else 0
            return {"name": record.fleet, "host": record.host, "fence": fence, "number": number}
    return {"name": step.fleet, "host": None, "fence": step.fence, "number": 0} if step is not None else None


def fleet_view(name: str | None, facts: FleetFacts) -> dict[str, Any]:
    """Return the published form. name: of the fleet; None for a server that is in none."""
    record = facts.record
    hosts = list(_hosts(facts)) if name is not None else []
    return {
        "format": FORMAT,
        "name": name,
        "host": facts.host if record is None or facts.host in record.hosts else None,
        "when": facts.when,
        "lease": facts.lease["lease"],
        "rollout": _rollout(record, facts.lease["lease"]) if record is not None and name is not None else None,
        "hosts": [row for row, _ in hosts],
        "models": _models(record, hosts),
    }


def _rollout(record: RolloutRecord, lease: Mapping[str, Any] | None) -> dict[str, Any]:
    held = lease is not None and lease["holder"] == record.holder
    parts = {name: value for name, value in to_tree(record).items() if name not in ("host", "hosts", "models")}
    return {**parts, "state": record.ended or ("running" if held else "lost")}


def _hosts(facts: FleetFacts) -> Iterable[tuple[dict[str, Any], Mapping[str, Any] | None]]:
    """Yield each host in the order of the fleet, with its status."""
    record = facts.record
    if record is None:
        yield _row("", "", facts.status, record, this=True), facts.status
        return
    for name, left in record.hosts.items():
        if name == facts.host:
            yield _row(name, left.url, facts.status, record, this=True), facts.status
            continue
        look = facts.others.get(name) or HostLook(asked=False)
        row = _row(name, left.url, look.status, record)
        if look.status is None:
            row["state"] = NO_ANSWER if look.asked else NOT_ASKED
            row["reason"], row["hint"] = look.reason, look.hint
        if left.state == "away" and look.status is None:
            row["state"] = AWAY
        yield row, look.status


def _row(
    name: str, url: str, status: Mapping[str, Any] | None, record: RolloutRecord | None, *, this: bool = False
) -> dict[str, Any]:
    left = record.hosts.get(name) if record is not None else None
    known, models = status or {}, (status or {}).get("models") or ()
    return {
        "name": name,
        "url": url,
        "this": this,
        "state": str(known.get("state", "")),
        "reason": "",
        "hint": "",
        "version": known.get("version"),
        "uptime": known.get("uptime"),
        "generation": known.get("generation"),
        "step": (known.get("origin") or {}).get("fleet"),
        "changed_since": _changed_since(known, record, name),
        "result": _result(left),
        "models": len(models),
        "ready": sum(model.get("state") == "ready" for model in models),
        "active": sum(int(model.get("active") or 0) for model in models),
        "waiting": sum(int(model.get("waiting") or 0) for model in models),
        "memory": _memory(known),
        "faults": [
            f"{model['name']}: {_fault(model)}" for model in models if model.get("state") in _FAULTY and _fault(model)
        ],
    }


def _changed_since(status: Mapping[str, Any], record: RolloutRecord | None, name: str) -> bool:
    """Return True for a host that serves another revision than its controller left."""
    left = record.hosts.get(name) if record is not None else None
    if record is None or left is None or left.revision is None or not status.get("revision"):
        return False
    under_way = left.state == "running" or record.ended is None
    return not under_way and left.state != "failed" and status["revision"] != left.revision


def _result(left: Any) -> dict[str, Any] | None:
    if left is None:
        return None
    return {name: getattr(left, name) for name in ("state", "steps_done", "steps", "outcome", "message", "hint")}


def _memory(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the memory of each place with that of the machine: main memory first, under the empty name."""
    machine, memory = status.get("machine"), status.get("memory")
    if not machine or not memory:
        return None
    budgets = {place["name"]: place for place in memory.get("places") or ()}
    totals = [("", "", machine["ram_total"], machine["ram_available"], "")]
    totals += [
        (gpu["name"], gpu["description"], gpu["total"], gpu["free"], gpu.get("fault") or "") for gpu in machine["gpus"]
    ]
    places = []
    for name, description, total, free, fault in totals:
        place = budgets.get(name)
        places.append({
            "name": name, "description": description, "total": total, "free": free, "fault": fault,
            "used": place["used"] if place else None, "budget": place["budget"] if place else None,
        })  # fmt: skip
    return {"used": memory.get("used") or 0, "places": places}


def _models(
    record: RolloutRecord | None, hosts: Iterable[tuple[dict[str, Any], Mapping[str, Any] | None]]
) -> list[dict[str, Any]]:
    """Return each model with its places: those of the record, and further hosts that have it."""
    wanted = record.models if record is not None else {}
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in wanted}
    for row, status in hosts:
        host = row["name"]
        for model in (status or {}).get("models") or ():
            place = {name: model.get(name) for name in _PLACE}
            stated = {"wanted": _wants(record, model["name"], host), "reason": _fault(model)}
            found.setdefault(model["name"], {})[host] = {"host": host, **place, **stated}
        for name, places in wanted.items():
            if host in places.hosts and host not in found[name]:
                state = "absent" if status is not None else "unknown"
                empty = {"active": 0, "waiting": 0, "memory": 0, "progress": None}
                found[name][host] = {"host": host, "state": state, **empty, "wanted": True, "reason": ""}
    return [
        {
            "name": name,
            "replicas": wanted[name].replicas if name in wanted else None,
            "ready": sum(place["state"] == "ready" for place in places.values()),
            "places": list(places.values()),
        }
        for name, places in sorted(found.items())
    ]


def _wants(record: RolloutRecord | None, model: str, host: str) -> bool | None:
    """Return True if a model belongs on a host; None where the places are not known, as after an undo."""
    if record is None or not record.models:
        return None
    return model in record.models and host in record.models[model].hosts


def _fault(model: Mapping[str, Any]) -> str:
    """Return why a model does not serve as declared; "" for one that does."""
    if model.get("state") not in _FAULTY:
        return ""
    conditions = [one for one in model.get("conditions") or () if one.get("message")]
    return f"{conditions[0]['reason']}: {conditions[0]['message']}" if conditions else ""
