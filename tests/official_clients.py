"""The official client libraries, imported when a test first uses them: together they take seconds."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class _Library:
    """A library that is imported when one of its public names is first read; pytest reads private ones."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(import_module(self._name), name)


anthropic, ollama, openai = map(_Library, ("anthropic", "ollama", "openai"))
