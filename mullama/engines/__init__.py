"""What runs a model: the seam, the table of engines, and one module or package per engine."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from mullama.engines.base import LoadEngine
from mullama.errors import NotFound

# Only a worker calls `find_engine`: importing an engine loads its native library.
ENGINES = {
    "llamacpp": "mullama.engines.llamacpp.engine:load",
    "scripted": "mullama.engines.scripted.engine:load",
}


def find_engine(name: str) -> LoadEngine:
    """The load function of an engine, imported now; `NotFound` for a name that is not in the table."""
    place = ENGINES.get(name)
    if place is None:
        raise NotFound(f"there is no engine {name!r}", name=name, near=tuple(ENGINES))
    module, function = place.split(":")
    return cast(LoadEngine, getattr(import_module(module), function))
