"""Two revisions of the history against each other: their texts, and the steps from one to the other."""

from __future__ import annotations

from typing import Any

from mullama.errors import masked
from mullama.manifest.dump import manifest_text
from mullama.manifest.tree import parse_resolved
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, Observed
from mullama.plan.steps import Cause, to_tree
from mullama.store.records import Revision
from mullama.struct import replace


def compare_revisions(before: Revision, after: Revision) -> dict[str, Any]:
    """Return both resolved manifests as texts without defaults, and the plan from one to the other.

    The machine is not looked at, so the plan has no memory and no drift, and files that differ have an unknown size.
    """
    old, new = (parse_resolved(one.manifest) for one in (before, after))
    applied = Applied(generation=before.generation, revision=before.revision, manifest=old)
    plan = make_plan(new, Observed(applied=applied))
    plan = replace(plan, steps=tuple(step for step in plan.steps if step.cause is not Cause.DRIFT))
    return {
        "before": before.generation,
        "after": after.generation,
        "texts": [masked(manifest_text(one, defaults=False)) for one in (old, new)],
        "plan": to_tree(plan),
    }
