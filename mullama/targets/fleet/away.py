"""Plans around the hosts of a fleet that are away (pure): their models go elsewhere, or wait for their return.

Nothing is assumed of a host that is away, neither its memory nor its models. A replica that only such hosts may have
stays where it is now, if a host that is there has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from mullama.errors import NotFound, Refused
from mullama.manifest.checks.fleet import matching_hosts, present_hosts
from mullama.manifest.spec import Manifest
from mullama.plan.place import FleetPlacement, PlacedModel
from mullama.struct import Struct, field, replace


class WaitingModel(Struct, frozen=True, kw_only=True):
    """A model with fewer replicas than declared, until hosts return."""

    model: str
    replicas: int
    """The declared number."""
    hosts: tuple[str, ...]
    """The hosts that have it until then."""
    away: tuple[str, ...]
    """The hosts that are away and may have it."""
    reason: str = ""
    """The sentence with the numbers, where the other hosts lack room; "" where they may not have it."""


class AroundAway(Struct, frozen=True, kw_only=True):
    """A placement without the hosts that are away."""

    placement: FleetPlacement
    """`unplaced` has no model that waits."""
    waiting: tuple[WaitingModel, ...] = ()
    returning: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each model without any host: the hosts that are away, to which its routes lead."""


def skipping(fleet: Manifest, names: Collection[str]) -> Manifest:
    """Return the manifest with these hosts away.

    Raises `NotFound` for an unknown name, `Refused` if no host is left.
    """
    hosts = fleet.fleet.hosts
    for name in names:
        if name not in hosts:
            raise NotFound(f"the fleet has no host {name[:80]!r}", hint=f"its hosts: {', '.join([*hosts][:8])}")
    chosen = {name: host.model_copy(update={"away": True}) if name in names else host for name, host in hosts.items()}
    skipped = fleet.model_copy(update={"fleet": fleet.fleet.model_copy(update={"hosts": chosen})})
    if not present_hosts(skipped.fleet):
        raise Refused("every host of the fleet would be away", hint="a plan needs a host that answers")
    return skipped


def away_hosts(fleet: Manifest) -> tuple[str, ...]:
    """Return the hosts that are away, in the order of the manifest."""
    return tuple(name for name, host in fleet.fleet.hosts.items() if host.away)


def with_stand_ins(
    models: Iterable[PlacedModel], fleet: Manifest, current: Mapping[str, Sequence[str]]
) -> tuple[PlacedModel, ...]:
    """Return the models with the hosts where a replica stays that only absent hosts may have. current: by model."""
    if not away_hosts(fleet):
        return tuple(models)
    found = []
    for model in models:
        declared = fleet.models.get(model.name)
        missing = 0 if declared is None else declared.replicas - len(model.hosts)
        others = [host for host in current.get(model.name, ()) if host not in model.hosts][: max(0, missing)]
        if others:
            hosts = (*model.hosts, *others)
            model = replace(model, hosts=hosts, replicas=len(hosts))
        found.append(model)
    return tuple(found)


def around_away(fleet: Manifest, placement: FleetPlacement, current: Mapping[str, Sequence[str]]) -> AroundAway:
    """Return the placement with the models that wait for absent hosts.

    A model without room waits if an absent host may have it and it loses no host that it has. current: by model.
    """
    absent = frozenset(away_hosts(fleet))
    if not absent:
        return AroundAway(placement=placement)
    reasons = {each.model: each for each in placement.unplaced}
    waiting = []
    for name, model in fleet.models.items():
        places = placement.hosts.get(name, ())
        away = tuple(host for host in matching_hosts(model, fleet.fleet) if host in absent)
        if len(places) >= model.replicas or not away:
            continue
        unplaced = reasons.get(name)
        if unplaced is not None and len(places) < min(model.replicas, len(current.get(name, ()))):
            continue  # it would lose a place, which is not the fault of the absent host
        reasons.pop(name, None)
        waiting.append(
            WaitingModel(
                model=name, replicas=model.replicas, hosts=places, away=away, reason=unplaced.reason if unplaced else ""
            )
        )
    return AroundAway(
        placement=replace(placement, unplaced=tuple(reasons.values())),
        waiting=tuple(waiting),
        returning={each.model: each.away for each in waiting if not each.hosts},
    )
