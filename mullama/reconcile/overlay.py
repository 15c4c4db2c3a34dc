"""The overlay: models and routes that imperative verbs added beside the manifest. Desired = manifest + overlay.

One namespace: a name that the manifest owns wins, and the overlay cannot change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.manifest.spec import Manifest
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.names import ModelName

Overlay = Mapping[str, Mapping[str, Any]]
"""A model's name → its tree in the resolved manifest's form; a route's name → {"route": the model's name}."""


def combine(desired: Manifest, overlay: Overlay) -> Manifest:
    """The wish with the overlay's models after its own. Raises `ManifestError` for an entry that is no model."""
    added = beside(desired, overlay)
    if not added:
        return desired
    tree = block_to_tree(desired)
    routes = {name: entry["route"] for name, entry in added.items() if "route" in entry}
    models = {name: entry for name, entry in added.items() if "route" not in entry}
    return parse_resolved(
        {**tree, "models": {**tree["models"], **models}, "routes": {**tree.get("routes", {}), **routes}}
    )


def beside(desired: Manifest, overlay: Overlay) -> dict[str, Mapping[str, Any]]:
    """The overlay's entries whose names the manifest does not own, without routes to models that are gone."""
    owned = {ModelName.parse(name).key for name in (*desired.models, *desired.routes)}
    free = {name: tree for name, tree in overlay.items() if ModelName.parse(name).key not in owned}
    models = {*desired.models, *(name for name, tree in free.items() if "route" not in tree)}
    return {name: tree for name, tree in free.items() if "route" not in tree or tree["route"] in models}


def split(combined: Manifest, names: tuple[str, ...]) -> tuple[Manifest, Overlay]:
    """The inverse of `combine`, given which names were the overlay's."""
    tree = block_to_tree(combined)
    overlay = {name: tree["models"].pop(name) for name in names if name in tree["models"]}
    routes = tree.get("routes", {})
    overlay |= {name: {"route": routes.pop(name)} for name in names if name in routes}
    return parse_resolved(tree), overlay
