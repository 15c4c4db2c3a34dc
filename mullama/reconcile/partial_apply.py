"""Applies the part of a change that can be served: a download, or a file that is missing, does not delay the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from mullama.errors import ManifestError
from mullama.manifest.spec import Group, Manifest, Model, Route
from mullama.manifest.spec.readers import PEER_SIGN, targets_of
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.names import ModelName
from mullama.plan.observed import KnownFiles
from mullama.plan.steps import Action, Cause, Plan
from mullama.reconcile.files import is_local
from mullama.struct import replace


def missing_models(plan: Plan, desired: Manifest, files: Mapping[str, KnownFiles]) -> frozenset[str]:
    """Return the changed models whose files are not stored or not hashed."""
    touched = {s.subject for s in plan.steps if s.kind == "model" and s.action is not Action.REMOVE}
    return frozenset(
        name
        for name in touched & desired.models.keys()
        if not all(_is_complete(files.get(source)) for source in downloads_of(desired.models[name]))
    )


def downloads_of(model: Model) -> Iterator[str]:
    """Yield the sources without which a model cannot be served: weights, projector, draft model, adapters from
    elsewhere."""
    yield from model.sources
    if model.projector_source is not None:
        yield model.projector_source
    yield from (source for source in model.adapter_sources if not is_local(source))


def expendable(plan: Plan, desired: Manifest, restarted: Manifest | None) -> frozenset[str]:
    """Return the models that the others are served without when their files are missing or cannot be used.

    These are the models that were applied before and are unchanged. A new or changed model is applied completely or
    not at all, so no revision is committed that names a model that never existed.

    restarted: the last applied manifest, for the first run of a server that starts again; else None.
    """
    if restarted is not None:
        return frozenset(name for name, model in desired.models.items() if restarted.models.get(name) == model)
    drifted = {step.subject for step in plan.steps if step.kind == "model" and step.cause is Cause.DRIFT}
    return frozenset(drifted & desired.models.keys())


def _is_complete(files: KnownFiles | None) -> bool:
    if files is None or not files.stored or files.digest is None:
        return False
    return files.projector is None or not files.projector.path or bool(files.projector.digest)


def without(plan: Plan, models: Collection[str]) -> Plan:
    """Return the plan without the steps of these models."""
    return replace(plan, steps=tuple(s for s in plan.steps if s.kind != "model" or s.subject not in models))


def servable_part(desired: Manifest, applied: Manifest, missing: Collection[str]) -> Manifest | None:
    """Return the desired manifest as far as it can be served without some models; None if that is no valid manifest.

    missing: the models without files. Such a model stays as it is applied, or is left out. No applied model is removed
    yet, because its successor may be missing. A route to a missing model keeps its applied target.
    """
    models = {name: model for name, model in desired.models.items() if name not in missing}
    taken = {_key(name) for name in (*models, *desired.routes)} | {
        _key(m.from_) for m in desired.moved if m.kind == "model" and m.to in models
    }
    models |= {name: model for name, model in applied.models.items() if _key(name) not in taken}
    routes = dict(_routes(desired, applied, models))
    callable_names = {*models, *routes}
    scopes = {
        scope
        for key in desired.auth.keys.values()
        for scope in key.models
        if scope in {*desired.models, *desired.routes}
    }
    auth = desired.auth if scopes <= callable_names else applied.auth
    names: Mapping[str, Collection[str]] = {"model": models, "route": routes, "key": auth.keys}
    changed = {
        "models": models,
        "routes": routes,
        "groups": dict(_groups(desired, models)),
        "moved": tuple(move for move in desired.moved if move.from_ not in names[move.kind]),
        "auth": auth,
    }
    try:
        return parse_resolved(block_to_tree(desired.model_copy(update=changed)))
    except ManifestError:
        return None


def _routes(desired: Manifest, applied: Manifest, models: Collection[str]) -> Iterator[tuple[str, object]]:
    for name, route in desired.routes.items():
        found = next((to for to in (route, applied.routes.get(name)) if to and _served(to, desired, models)), None)
        if found is not None:
            yield name, found


def _served(route: str | Route, desired: Manifest, models: Collection[str]) -> bool:
    """Return True if every model of a route is there, or is one of a peer.

    A route among its fallbacks is checked by itself.
    """
    fallback = route.fallback if isinstance(route, Route) else ()
    return all(name in models or PEER_SIGN in name for name in targets_of(route)) and all(
        name in models or name in desired.routes or PEER_SIGN in name for name in fallback
    )


def _groups(desired: Manifest, models: Collection[str]) -> Iterator[tuple[str, Group]]:
    for name, group in desired.groups.items():
        if members := tuple(member for member in group.models if member in models):
            yield name, group.model_copy(update={"models": members})


def _key(name: str) -> str:
    return ModelName.parse(name).key
