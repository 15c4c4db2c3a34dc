"""What can be applied before every file is here: a change that needs a download does not hold back the rest of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from mullama.errors import ManifestError
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.names import ModelName
from mullama.plan.observed import KnownFiles
from mullama.plan.steps import Action, Plan


def lacking(plan: Plan, desired: Manifest, files: Mapping[str, KnownFiles]) -> frozenset[str]:
    """The models that this plan touches and whose files are not here, or were never hashed."""
    touched = {s.subject for s in plan.steps if s.kind == "model" and s.action is not Action.REMOVE}
    return frozenset(
        name for name in touched & desired.models.keys() if not _whole(files.get(desired.models[name].from_))
    )


def _whole(files: KnownFiles | None) -> bool:
    return files is not None and files.stored and files.digest is not None


def without(plan: Plan, models: Collection[str]) -> Plan:
    """The plan with no step for these models."""
    return replace(plan, steps=tuple(s for s in plan.steps if s.kind != "model" or s.subject not in models))


def meanwhile(desired: Manifest, applied: Manifest, lacks: Collection[str]) -> Manifest | None:
    """The wish as far as it can be served without the files of the models in `lacks`; None where that is no manifest.

    Such a model stays as it is applied, or out. Nothing that is applied goes yet, since what is to take its place may
    be what is missing, and a route to a model that is not here leads where it did.
    """
    models = {name: model for name, model in desired.models.items() if name not in lacks}
    taken = {_key(name) for name in (*models, *desired.routes)} | {
        _key(m.from_) for m in desired.moved if m.to in models
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
    changed = {
        "models": models,
        "routes": routes,
        "moved": tuple(move for move in desired.moved if move.from_ not in models),
        "auth": desired.auth if scopes <= callable_names else applied.auth,
    }
    try:
        return parse_resolved(block_to_tree(desired.model_copy(update=changed)))
    except ManifestError:
        return None


def _routes(desired: Manifest, applied: Manifest, models: Collection[str]) -> Iterator[tuple[str, object]]:
    for name, route in desired.routes.items():
        found = next((to for to in (route, applied.routes.get(name)) if to in models), None)
        if found is not None:
            yield name, found


def _key(name: str) -> str:
    return ModelName.parse(name).key
