"""A plan saved to a file, with the manifest it is for: written by `diff --out`, carried out by `apply --plan`."""

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
    """The plan that was shown, the resolved manifest as a tree, and where that came from. Holds no secret."""

    plan: Plan
    manifest: Mapping[str, Any]
    origin: Mapping[str, Any]


def save(path: Path, plan: Plan, manifest: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    tree = to_tree(plan) | {"manifest": manifest, "origin": origin}
    write_atomic(path, json.dumps(tree, ensure_ascii=False, indent=1).encode())


def read(path: Path) -> SavedPlan:
    """The saved plan, or `Invalid` for a file that is none."""
    try:
        tree = json.loads(path.read_bytes())
        found = tree["format"]
        saved = SavedPlan(plan=from_tree(tree), manifest=tree["manifest"], origin=tree["origin"])
    except (ValueError, KeyError, TypeError, Invalid) as error:
        raise Invalid(f"{path} is not a saved plan", hint="mullama diff --out writes one") from error
    if found != FORMAT:
        raise Invalid(f"{path} has the format {found}", hint=f"this version reads {FORMAT}")
    return saved


def require_fresh(saved: Plan, now: Plan) -> None:
    """`Conflict` unless the plan made now is the one that was saved."""
    if saved.base != now.base:
        raise Conflict(
            "the plan is stale: another revision was applied since it was saved",
            hint="run mullama diff --out again and look at what changed",
        )
    before, after = to_tree(saved), to_tree(now)
    if any(before[key] != after[key] for key in ("desired", "steps", "drift")):
        raise Conflict(
            "the plan is stale: the machine changed since it was saved",
            hint="run mullama diff --out again and look at what changed",
        )
