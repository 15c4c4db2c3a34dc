"""The plan of a fleet for people and programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mullama.plan import report
from mullama.plan.report import Line
from mullama.plan.steps import to_tree
from mullama.struct import replace
from mullama.targets.fleet.away import WaitingModel
from mullama.targets.fleet.plan import FleetPlan, FleetStep, blocked_text
from mullama.units import counted, duration_literal, printable, size

FORMAT = "mullama.fleet-plan/1"
_KINDS = {"change": "models", "route": "routes", "remove": "removals"}
_NAMED = 8  # hosts in one line


def fleet_lines(plan: FleetPlan) -> Iterator[Line]:
    """Yield the plan of each host, the problems, and the order of the changes."""
    for name in plan.names:
        if name in plan.draft.away:
            yield Line(f"{name}: away, and left out")
        elif (fault := plan.faults.get(name)) is not None:
            text = fault.message if fault.message.startswith(name) else f"{name}: {fault.message}"
            yield Line(printable(text + (f" ({fault.hint})" if fault.hint else "")), "remove")
        elif (own := plan.plans.get(name)) is None:
            yield Line(f"{name}: answers, and is not planned")
        elif own.empty:
            yield Line(f"{name}: no changes")
            yield from (Line(f"  warning: {printable(text)}") for text in own.warnings)
        else:
            yield Line(f"{name}:")
            yield from (replace(line, text=f"  {line.text}") for line in report.lines(own))
    for each in plan.draft.placement.unplaced:
        yield Line(printable(each.reason), "remove")
    yield from (Line(printable(blocked_text(name)), "remove") for name in plan.draft.order.blocked)
    yield from (Line(printable(text)) for text in map(waiting_text, plan.draft.waiting))
    yield from (Line(printable(text)) for text in map(lent_text, plan.draft.lent.items()))
    if targets := plan.draft.targets:
        yield Line(f"only {printable(_names(targets))} and what they need are planned: the rest was not looked at")
    yield from (Line(text) for text in _order(plan.draft.steps))
    if pauses := plan.draft.order.pauses:
        yield Line(
            f"warning: requests to {printable(_names(pauses))} may wait: their old and new places have no room together"
        )
    yield Line(_summary(plan))


def waiting_text(waiting: WaitingModel) -> str:
    """Return the sentence for a model that waits for hosts which are away."""
    away = _names(waiting.away, "or")
    because = f", because {waiting.reason}" if waiting.reason else ""
    if not waiting.hosts:
        return f"{waiting.model} waits for {away}{because}"
    return f"{waiting.model} has {len(waiting.hosts)} of {waiting.replicas} replicas without {away}{because}"


def lent_text(entry: tuple[str, Mapping[str, int]]) -> str:
    """Return the sentence for a model over several hosts. entry: the model and the bytes on each lender."""
    model, lenders = entry
    parts = (f"{name} ({size(count, digits=1)})" if count else name for name, count in lenders.items())
    return f"{model} uses devices of {', '.join(parts)}"


def _names(names: Sequence[str], last: str = "and") -> str:
    more = f" {last} {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _order(steps: tuple[FleetStep, ...]) -> Iterator[str]:
    for number, step in enumerate(steps, 1):
        hosts = _names([*step.manifests])
        pause = "" if not step.pause else f", then {_pause(step)}"
        mark = " (canary)" if step.canary else " (surge)" if step.early else ""
        yield f"step {number}: {_KINDS[step.kind]} of {hosts}{mark}{pause}"


def _pause(step: FleetStep) -> str:
    return "stop for a look" if step.pause == "manual" else f"wait for {duration_literal(step.pause)}"


def _summary(plan: FleetPlan) -> str:
    changing = sum(not own.empty for own in plan.plans.values())
    if plan.complete:
        return f"{counted(changing, 'host')} of {len(plan.plans)} to change" if changing else "no changes"
    reasons = []
    if plan.faults:
        reasons.append(f"{counted(len(plan.faults), 'host')} cannot be planned")
    if unplaced := plan.draft.placement.unplaced:
        reasons.append(f"{counted(len(unplaced), 'model')} cannot be placed")
    if blocked := plan.draft.order.blocked:
        reasons.append(f"{counted(len(blocked), 'model')} cannot change")
    skips = " ".join(f"--skip {name}" for name in [*plan.faults][:_NAMED])
    remedy = f"; {skips} plans without {'it' if len(plan.faults) == 1 else 'them'}" if _may_skip(plan) else ""
    return f"{' and '.join(reasons)}: apply would change nothing{remedy}"


def _may_skip(plan: FleetPlan) -> bool:
    """True if hosts that cannot be planned may be left out, because others are left."""
    return 0 < len(plan.faults) <= _NAMED and any(
        name in plan.draft.seen.hosts for name in plan.names if name not in plan.faults
    )


def fleet_tree(plan: FleetPlan) -> dict[str, Any]:
    """Return the published form. New keys may appear within one number of the format."""
    placement = plan.draft.placement
    return {
        "format": FORMAT,
        "complete": plan.complete,
        "placement": {name: list(hosts) for name, hosts in placement.hosts.items()},
        "unplaced": [{"model": each.model, "reason": each.reason} for each in placement.unplaced],
        "hosts": {name: _host_tree(plan, name) for name in plan.names if name not in plan.draft.away},
        "steps": [
            {
                "kind": step.kind, "hosts": list(step.manifests), "canary": step.canary, "pause": step.pause,
                "surge": step.early,
                "models": {name: list(models) for name, models in step.models.items()},
            }
            for step in plan.draft.steps
        ],
        "pauses": list(plan.draft.order.pauses),
        "blocked": list(plan.draft.order.blocked),
        "away": list(plan.draft.away),
        "targets": list(plan.draft.targets),
        "lent": {model: dict(lenders) for model, lenders in plan.draft.lent.items()},
        "waiting": [
            {
                "model": each.model, "replicas": each.replicas, "hosts": list(each.hosts), "away": list(each.away),
                "reason": waiting_text(each),
            }
            for each in plan.draft.waiting
        ],
    }  # fmt: skip


def _host_tree(plan: FleetPlan, name: str) -> dict[str, Any]:
    seen, fault, own = plan.draft.seen.hosts.get(name), plan.faults.get(name), plan.plans.get(name)
    return {
        "version": seen.version if seen else None,
        "revision": seen.revision if seen else None,
        "error": {"kind": fault.kind.value, "message": fault.message, "hint": fault.hint} if fault else None,
        "plan": to_tree(own) if own is not None else None,
    }


def fleet_markdown(plan: FleetPlan, stack: str) -> str:
    """Return a pull request comment: the plan of each host, and what prevents an apply."""
    parts = [report.markdown(own, f"{stack} on {name}") for name, own in plan.plans.items()]
    away = (f"{name}: away, and left out" for name in plan.draft.away)
    if texts := (*plan.problems, *away, *map(waiting_text, plan.draft.waiting)):
        parts.append("\n".join(f"- {report.markdown_text(text)}" for text in texts))
    return "\n\n".join(parts)
