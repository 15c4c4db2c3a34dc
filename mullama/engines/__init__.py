"""Engines run models: the seam (`base`), the table of engines, and one package for each engine."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from mullama.errors import NotFound, Unsupported

if TYPE_CHECKING:
    from mullama.engines.base import LoadEngine  # a plan reads a module of this package, and has no engine

# Only a worker calls `find_engine`: importing an engine loads its native library.
ENGINES = {
    "llamacpp": "mullama.engines.llamacpp.engine:load",
    "scripted": "mullama.engines.scripted.engine:load",
}

# The extra that installs an engine, and the packages that it needs.
EXTRAS = {"llamacpp": ("engine", ("llama_cpp", "numpy", "llguidance"))}


def require_installed(name: str) -> None:
    """Raise `Unsupported` for an engine of the table whose packages are not installed; imports none of them."""
    extra, packages = EXTRAS.get(name, ("", ()))
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise Unsupported(
            f"the engine {name} is not installed: no package {', '.join(missing)}",
            hint=f"pip install 'mullama[{extra}]', which compiles llama.cpp where no wheel fits",
        )


def find_engine(name: str) -> LoadEngine:
    """Import an engine and return its load function.

    Raise `NotFound` for a name that is not in the table, `Unsupported` for an engine that is not installed.
    """
    target = ENGINES.get(name)
    if target is None:
        raise NotFound(f"there is no engine {name!r}", name=name, near=tuple(ENGINES))
    require_installed(name)
    module, function = target.split(":")
    return cast("LoadEngine", getattr(import_module(module), function))
