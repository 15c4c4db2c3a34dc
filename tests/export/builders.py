"""Manifests as inputs of an export."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from mullama.export import ExportInput, ExportOptions, MemoryUse
from tests.manifest.builders import read

KEYED = "auth: {keys: {team: {secret: {from_env: TEAM_KEY}}}}\n"


def given(
    text: str,
    *,
    lock: str | None = None,
    memory: MemoryUse | None = None,
    weights: Mapping[str, str] | None = None,
    **options: Any,
) -> ExportInput:
    """The manifest at /srv/app/m.yaml with an API key."""
    text = textwrap.dedent(text)
    manifest = read(text if "auth:" in text else KEYED + text).manifest
    return ExportInput(
        manifest=manifest, version="1.2.3", path="/srv/app/m.yaml", lock=lock, memory=memory,
        weights=dict(weights or {}), options=ExportOptions(**options),
    )  # fmt: skip
