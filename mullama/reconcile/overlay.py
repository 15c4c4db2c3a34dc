"""The overlay: models and routes that imperative commands add to the manifest. Desired = manifest + overlay.

Names are shared: a name of the manifest has precedence, and the overlay cannot change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.manifest.spec import Manifest
from mullama.manifest.tree import block_to_tree, extend
from mullama.names import ModelName

Overlay = Mapping[str, Mapping[str, Any]]
"""The tree of each model by its name, in the form of a resolved manifest; for a route, {"route": name of a model}."""


def combine(desired: Manifest, overlay: Overlay) -> Manifest:
    """Return the manifest with the models of the overlay after its own. Raises `ManifestError` for an invalid entry."""
    added = effective_entries(desired, overlay)
    if not added:
        return desired
    routes = {name: entry["route"] for name, entry in added.items() if "route" in entry}
    models = {name: entry for name, entry in added.items() if "route" not in entry}
    return extend(desired, models, routes)


def effective_entries(desired: Manifest, overlay: Overlay) -> dict[str, Mapping[str, Any]]:
    """Return the entries of the overlay that take effect.

    Entries with a name of the manifest, and routes to models that do not exist, are left out.
    """
    owned = {ModelName.parse(name).key for name in (*desired.models, *desired.routes)}
    free = {name: tree for name, tree in overlay.items() if ModelName.parse(name).key not in owned}
    models = {*desired.models, *(name for name, tree in free.items() if "route" not in tree)}
    return {name: tree for name, tree in free.items() if "route" not in tree or tree["route"] in models}


def models_beside(desired: Manifest, overlay: Overlay) -> tuple[str, ...]:
    """Return the models of the overlay that take effect, sorted."""
    return tuple(sorted(name for name, tree in effective_entries(desired, overlay).items() if "route" not in tree))


def split(combined: Manifest, names: tuple[str, ...]) -> tuple[Manifest, Overlay]:
    """Return manifest and overlay of a combined manifest. names: the names of the overlay."""
    overlay: dict[str, Mapping[str, Any]] = {
        name: block_to_tree(model) for name, model in combined.models.items() if name in names
    }
    overlay |= {name: {"route": route} for name, route in combined.routes.items() if name in names}
    models = {name: model for name, model in combined.models.items() if name not in names}
    routes = {name: route for name, route in combined.routes.items() if name not in names}
    return combined.model_copy(update={"models": models, "routes": routes}), overlay
