"""Every recorded conversation is decoded and encoded as it was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dialects.golden import FILES, replay


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recorded_conversation(path: Path) -> None:
    said = json.loads(path.read_text(encoding="utf-8"))
    recorded = {k: v for k, v in said.items() if k not in ("about", "request", "stored", "events", "result")}

    assert json.loads(json.dumps(replay(said))) == recorded


def test_every_dialect_has_recorded_conversations() -> None:
    assert {path.parent.name for path in FILES} == {"ollama", "openai", "anthropic"}
