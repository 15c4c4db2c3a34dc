"""The file of a plan and its manifest: `diff --out` writes it, `apply --plan` applies it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.errors import Conflict, Invalid, masked_tree
from mullama.plan.steps import FORMAT, Plan, from_tree, to_tree
from mullama.store.disk import write_atomic
from mullama.struct import Struct

if TYPE_CHECKING:
    from mullama.manifest.spec import Manifest

_OF_THE_FILE = ("manifest", "origin", "warnings")
_REVIEW = "run mullama diff --out again and review the changes"


class SavedPlan(Struct, frozen=True, kw_only=True):
    """Content of a plan file. It has references to secrets and no secret."""

    tree: Mapping[str, Any]
    """The plan in its published form, as the file has it."""
    plan: Plan
    manifest: Mapping[str, Any]
    """The resolved manifest as JSON, without the secrets inside addresses."""


def save_plan(path: Path, plan: Plan, manifest: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Write a plan file."""
    tree = to_tree(plan) | {"manifest": masked_tree(manifest), "origin": origin}
    write_atomic(path, json.dumps(tree, ensure_ascii=False, indent=1).encode())


def load_plan(path: Path) -> SavedPlan:
    """Read a plan file; raise `Invalid` for another file."""
    try:
        tree = json.loads(path.read_bytes())
        found = tree["format"]
        saved = SavedPlan(tree=tree, plan=from_tree(tree), manifest=tree["manifest"])
    except (ValueError, KeyError, TypeError, RecursionError, Invalid) as error:
        raise Invalid(f"{path} is not a plan file", hint="mullama diff --out writes one") from error
    if found != FORMAT:
        raise Invalid(f"{path} has the format {found}", hint=f"this version reads {FORMAT}")
    return saved


def require_same_manifest(saved: SavedPlan, manifest: Manifest) -> None:
    """Raise `Conflict` unless the saved manifest is the one on disk. Its secrets are bound by the desired revision."""
    from mullama.manifest.tree import manifest_to_tree

    if saved.manifest != masked_tree(manifest_to_tree(manifest)):
        raise Conflict("the plan is stale: it was saved for another manifest than the one on disk", hint=_REVIEW)


def require_fresh(saved: SavedPlan, current: Plan) -> None:
    """Raise `Conflict` unless the current plan equals the saved one, in everything but places in files and warnings."""
    if saved.plan.base != current.base:
        raise Conflict("the plan is stale: another revision was applied since it was saved", hint=_REVIEW)
    before, after = _compared(saved.tree), _compared(to_tree(current))
    if different := sorted(key for key in after if before.get(key) != after[key]):
        raise Conflict(
            f"the plan is stale: {', '.join(different)} changed since it was saved, on this machine or in the file",
            hint=_REVIEW,
        )


def _compared(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a plan that must be equal, as plain JSON values without places."""
    places = ("file", "line", "column")
    plain = json.loads(json.dumps({key: value for key, value in tree.items() if key not in _OF_THE_FILE}))
    for key in ("steps", "drift"):
        plain[key] = [{name: value for name, value in step.items() if name not in places} for step in plain[key]]
    return dict(plain)
