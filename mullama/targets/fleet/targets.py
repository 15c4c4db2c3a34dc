"""A part of a fleet's manifest: what the hosts have, with some models and routes of the manifest (`--target`). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mullama.manifest.spec import Manifest, Model, Route
from mullama.manifest.spec.readers import moves_of
from mullama.plan.targets import names_of, targeted
from mullama.struct import Struct


class FleetPart(Struct, frozen=True, kw_only=True):
    """A manifest of the fleet in which all models but the targets stay where they are."""

    fleet: Manifest
    """Of other models, the hosts that have them are the only ones that may."""
    targets: tuple[str, ...]
    """The targets, with the models and routes that routes among them lead to, and their former names."""


def fleet_part(fleet: Manifest, applied: Mapping[str, Manifest], names: Sequence[str]) -> FleetPart:
    """Return the part of a fleet's manifest. applied: by host. Raises `NotFound` for an unknown name."""
    have: dict[str, Model] = {}
    places: dict[str, list[str]] = {}
    routes: dict[str, str | Route] = {}
    for host, manifest in applied.items():
        routes |= manifest.routes
        for name, model in manifest.models.items():
            have.setdefault(name, model)
            places.setdefault(name, []).append(host)
    elsewhere = {name: route for name, route in routes.items() if name not in have}
    before = fleet.model_copy(update={"models": have, "routes": elsewhere, "moved": ()})
    targets = names_of(names, fleet, before)
    moves = moves_of(fleet.moved, "model")
    # On hosts without a renamed model, a route has its former name.
    targets = (*targets, *(name for name in have if moves.get(name) in targets and name not in targets))
    kept = {
        name: model.model_copy(update={"hosts": tuple(places[name]), "replicas": len(places[name])})
        for name, model in have.items()
        if name not in targets
    }
    models = {**kept, **{name: model for name, model in fleet.models.items() if name in targets}}
    return FleetPart(fleet=fleet.model_copy(update={"models": models}), targets=targets)


def limited(wanted: Manifest, applied: Manifest, targets: Sequence[str]) -> Manifest:
    """Return the applied manifest of a host with the targets of the wanted one.

    Raises `Refused` if the targets need another part of the wanted manifest.
    """
    names = here(targets, applied, wanted)
    return targeted(wanted, applied, names).manifest if names else applied


def here(targets: Sequence[str], *manifests: Manifest) -> tuple[str, ...]:
    """Return the targets that manifests of one host have."""
    known = {name for manifest in manifests for name in (*manifest.models, *manifest.routes)}
    return tuple(name for name in targets if name in known)
