"""Gives schemathesis the name of a model, so that its requests pass the check of the name."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Every second body is about the scripted model; the others keep the names that were made up."""
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) % 2 == 0:
        body["model"] = "script"
    return body
