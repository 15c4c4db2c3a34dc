"""The resolved manifest as plain JSON values, for requests, stored revisions and comparison.

Defaults are included, so a version of mullama with another default shows a change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mullama.manifest.checks import PartialManifest, check, check_resolved
from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.parse import validate
from mullama.manifest.spec import Block, Manifest, Model
from mullama.problems import Location


def block_to_tree(block: Block) -> dict[str, Any]:
    """Return the block as JSON values under the manifest's keys, without fields that are None."""
    return block.model_dump(mode="json", by_alias=True, exclude_none=True)


def unusual(model: Model) -> dict[str, Any]:
    """Return the model as a tree without the fields that have their default, also those of its blocks."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def manifest_to_tree(manifest: Manifest) -> dict[str, Any]:
    """Return the tree that `parse_resolved` reads as an equal manifest."""
    return block_to_tree(manifest)


def parse_resolved(tree: Mapping[str, Any]) -> Manifest:
    """Return the manifest of a resolved tree; raise `ManifestError`, without places, for another tree."""
    report = Diagnostics()
    if tree.get("mullama") != "v1":
        report.add("mullama", None, "this is not a resolved manifest of version v1")
    unknown = [key for key in tree if key not in Manifest.model_fields]
    for key in unknown:
        report.add(str(key)[:80], None, "no such field in a resolved manifest")
    draft = validate({key: value for key, value in tree.items() if key not in unknown}, _nowhere, report)

    def fail(path: str, message: str, hint: str) -> None:
        report.add(path, None, message, hint)

    check(draft, fail, _ignore)
    check_resolved(draft.manifest, fail)
    report.check()
    return draft.manifest


def extend(manifest: Manifest, models: Mapping[str, Any], routes: Mapping[str, str]) -> Manifest:
    """Return the manifest with further models, given as trees, and routes; raise `ManifestError` for invalid ones.

    Only the new models are validated; the checks across models run on the complete manifest.
    """
    report = Diagnostics()
    draft = validate({"models": models}, _nowhere, report)
    combined = manifest.model_copy(
        update={
            "models": {**manifest.models, **draft.manifest.models},
            "routes": {**manifest.routes, **routes},
        }
    )

    def fail(path: str, message: str, hint: str) -> None:
        report.add(path, None, message, hint)

    names = {**manifest.models, **models}.keys()
    check(PartialManifest(manifest=combined, names=names, broken=draft.broken, suggest=report.suggest), fail, _ignore)
    check_resolved(combined, fail)
    report.check()
    return combined


def _ignore(path: str, message: str, hint: str) -> None:
    """Take a warning, which only the text of a manifest gets."""


def _nowhere(path: str) -> Location | None:
    return None


def revision(block: Block) -> str:
    """Return the SHA-256 of the block in hex. It changes exactly if a value of the block changes."""
    text = json.dumps(block_to_tree(block), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
