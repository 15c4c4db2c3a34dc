"""The overlay: models that imperative verbs added beside the manifest. Desired = manifest + overlay.

One namespace: a name that the manifest owns wins, and the overlay cannot change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.manifest.spec import Manifest
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.names import ModelName

Overlay = Mapping[str, Mapping[str, Any]]
"""A model's name → its tree in the resolved manifest's form."""


def combine(wish: Manifest, overlay: Overlay) -> Manifest:
    """The wish with the overlay's models after its own. Raises `ManifestError` for an entry that is no model."""
    added = beside(wish, overlay)
    if not added:
        return wish
    tree = block_to_tree(wish)
    return parse_resolved({**tree, "models": {**tree["models"], **added}})


def beside(wish: Manifest, overlay: Overlay) -> dict[str, Mapping[str, Any]]:
    """The overlay's entries whose names the manifest does not own."""
    owned = {ModelName.parse(name).key for name in (*wish.models, *wish.routes)}
    return {name: tree for name, tree in overlay.items() if ModelName.parse(name).key not in owned}


def split(combined: Manifest, names: tuple[str, ...]) -> tuple[Manifest, Overlay]:
    """The inverse of `combine`, given which names were the overlay's."""
    tree = block_to_tree(combined)
    overlay = {name: tree["models"].pop(name) for name in names if name in tree["models"]}
    return parse_resolved(tree), overlay
