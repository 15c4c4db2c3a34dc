"""The file of a fleet's plan: `diff --out` writes it, `apply --plan` applies it if the hosts still answer the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mullama.errors import Conflict, Invalid, masked_tree
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import manifest_to_tree
from mullama.store.disk import write_atomic
from mullama.struct import Struct
from mullama.targets.fleet.plan import FleetPlan
from mullama.targets.fleet.plan_views import FORMAT, fleet_tree

_REVIEW = "run mullama diff --out again and review the changes"
_COMPARED = ("placement", "steps", "away", "waiting", "targets", "pauses")
_PLACES = ("file", "line", "column")


class SavedFleetPlan(Struct, frozen=True, kw_only=True):
    """Content of a plan file of a fleet. It has references to secrets and no secret."""

    tree: Mapping[str, Any]
    """The plan in its published form."""
    manifest: Mapping[str, Any]
    """The resolved manifest as JSON, without the secrets inside addresses, with the hosts that are away."""

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.tree["targets"])

    @property
    def away(self) -> tuple[str, ...]:
        """The hosts that the plan leaves out."""
        return tuple(self.tree["away"])


def save_fleet_plan(path: Path, plan: FleetPlan, manifest: Manifest) -> None:
    """Write a plan file. Raises `Invalid` for a plan that cannot be applied."""
    if not plan.complete:
        raise Invalid(f"{path} is not written: {plan.problems[0]}", hint="only a plan that can be applied is saved")
    tree = fleet_tree(plan) | {"manifest": masked_tree(manifest_to_tree(manifest))}
    write_atomic(path, json.dumps(tree, ensure_ascii=False, indent=1).encode())


def load_fleet_plan(path: Path) -> SavedFleetPlan:
    """Read a plan file; raise `Invalid` for another file."""
    try:
        tree = json.loads(path.read_bytes())
        found, manifest = tree["format"], tree["manifest"]
        saved = SavedFleetPlan(tree=tree, manifest=manifest)
        if not all(isinstance(tree[key], kind) for key, kind in (("targets", list), ("away", list), ("hosts", dict))):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Invalid(f"{path} is not a plan file of a fleet", hint="mullama diff --out writes one") from error
    if found != FORMAT:
        raise Invalid(f"{path} has the format {str(found)[:80]}", hint=f"a fleet's plan has {FORMAT}")
    return saved


def require_same_manifest(saved: SavedFleetPlan, manifest: Manifest) -> None:
    """Raise `Conflict` unless the saved manifest is the one on disk, with the same hosts away."""
    if saved.manifest != masked_tree(manifest_to_tree(manifest)):
        raise Conflict("the plan is stale: it was saved for another manifest than the one on disk", hint=_REVIEW)


def require_fresh(saved: SavedFleetPlan, current: FleetPlan) -> None:
    """Raise `Conflict` unless the current plan equals the saved one, in all but places in files and warnings."""
    now = json.loads(json.dumps(fleet_tree(current)))
    before = saved.tree
    hosts = sorted({*before["hosts"], *now["hosts"]})
    if different := [name for name in hosts if _host(before, name) != _host(now, name)]:
        raise Conflict(f"the plan is stale: {', '.join(different[:8])} changed since it was saved", hint=_REVIEW)
    if parts := [key for key in _COMPARED if before.get(key) != now[key]]:
        raise Conflict(f"the plan is stale: {', '.join(parts)} changed since it was saved", hint=_REVIEW)


def _host(tree: Mapping[str, Any], name: str) -> Any:
    """Return the part of a host: its revision and its steps, without their places in files."""
    host = tree["hosts"].get(name)
    if not isinstance(host, dict) or not isinstance(host.get("plan"), dict):
        return host
    steps = [{key: value for key, value in step.items() if key not in _PLACES} for step in host["plan"]["steps"]]
    return (host["revision"], host["plan"]["base"], host["plan"]["desired"], steps)
