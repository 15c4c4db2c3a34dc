"""Writes what is generated from the manifest's types: the JSON Schema and the reference page of the manifest."""

from __future__ import annotations

import json
from pathlib import Path

from mullama.manifest.reference import reference_page
from mullama.manifest.schema import json_schema
from mullama.plan.changes import COSTS

ROOT = Path(__file__).parents[2]


def generated() -> dict[Path, str]:
    """The text of every generated file."""
    costs = {path: cost.value for path, cost in COSTS.items()}
    schema = json.dumps(json_schema(costs), ensure_ascii=False, indent=2) + "\n"
    return {
        ROOT / "schemas" / "mullama.v1.schema.json": schema,
        ROOT / "docs" / "reference" / "manifest.md": reference_page(costs),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
