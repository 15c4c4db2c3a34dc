"""The policy file: rules that a reviewed change of a manifest must keep."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mullama.manifest.spec.values import Block, Flag, Size, Text


class Policy(Block):
    """Rules of `mullama diff --policy FILE`. A rule that is left out allows everything."""

    policy: Literal["v1"]
    """Version of the format."""
    keep: tuple[Text, ...] = Field(default=(), examples=[["chat", "prod-*"]])
    """Models that a change may not remove or rename, by name or pattern."""
    uninterrupted: tuple[Text, ...] = Field(default=(), examples=[["*"]])
    """Models whose requests may not wait for a change, by name or pattern."""
    sources: tuple[Text, ...] | None = Field(default=None, min_length=1, examples=[["builtin:*", "hf:unsloth/*"]])
    """Allowed sources of weights and adapters, by text or pattern; `./…` is a path from the manifest's folder."""
    pinned: Flag = False
    """Require a digest of each source, in the manifest or in mullama.lock."""
    max_download: Size | None = None
    """Most bytes that the change may download."""
    max_memory: Size | None = None
    """Most memory of the models that stay loaded, where shared weights count once."""
