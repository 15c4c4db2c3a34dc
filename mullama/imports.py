"""Imports modules of a library without the rest of its package, which a start would wait for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def without_package(name: str) -> None:
    """Let modules of a package be imported without the code of the package itself.

    That code runs at the first use of one of the package's own names. A package that is missing, or was imported
    before, stays as it is.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def execute(attribute: str) -> Any:
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, attribute)

    vars(package)["__getattr__"] = execute
    sys.modules[name] = package


@contextmanager
def placeholders(modules: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Let modules with these contents take the place of those of a library inside the block, where none is imported.

    For modules that a library imports and mullama does not use. Another importer gets the library's own afterwards.
    """
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        module = sys.modules[name] = ModuleType(name)
        vars(module).update(modules[name])
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
