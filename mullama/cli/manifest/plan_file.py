"""The file of a plan and its manifest: `diff --out` writes it, `apply --plan` applies it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mullama.errors import Conflict, Invalid
from mullama.plan.steps import FORMAT, Plan, from_tree, to_tree
from mullama.store.disk import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """Content of a plan file. It has references to secrets and no secret."""

    plan: Plan
    manifest: Mapping[str, Any]
    """The resolved manifest as JSON."""
    origin: Mapping[str, Any]
    """File, profiles and digest of the manifest."""


def save_plan(path: Path, plan: Plan, manifest: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Write a plan file."""
    tree = to_tree(plan) | {"manifest": manifest, "origin": origin}
    write_atomic(path, json.dumps(tree, ensure_ascii=False, indent=1).encode())


def load_plan(path: Path) -> SavedPlan:
    """Read a plan file; raise `Invalid` for another file."""
    try:
        tree = json.loads(path.read_bytes())
        found = tree["format"]
        saved = SavedPlan(plan=from_tree(tree), manifest=tree["manifest"], origin=tree["origin"])
    except (ValueError, KeyError, TypeError, Invalid) as error:
        raise Invalid(f"{path} is not a plan file", hint="mullama diff --out writes one") from error
    if found != FORMAT:
        raise Invalid(f"{path} has the format {found}", hint=f"this version reads {FORMAT}")
    return saved


def require_fresh(saved: Plan, current: Plan) -> None:
    """Raise `Conflict` unless the current plan equals the saved one."""
    if saved.base != current.base:
        raise Conflict(
            "the plan is stale: another revision was applied since it was saved",
            hint="run mullama diff --out again and review the changes",
        )
    before, after = to_tree(saved), to_tree(current)
    if any(before[key] != after[key] for key in ("desired", "steps", "drift")):
        raise Conflict(
            "the plan is stale: this machine changed since it was saved",
            hint="run mullama diff --out again and review the changes",
        )
