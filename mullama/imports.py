"""Imports modules of a library without the rest of its package, which a start would wait for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
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


def import_without(modules: Mapping[str, Mapping[str, Any]], *names: str) -> None:
    """Import modules of a library while others, which mullama does not use, have these contents and no more.

    Another importer gets the library's own afterwards, and a module that is imported already stays. An import that
    needs more of them, as in another version of the library, fails here without an error: the ordinary import that
    follows this call succeeds, or has the error of the library itself.
    """
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        module = sys.modules[name] = ModuleType(name)
        vars(module).update(modules[name])
    try:
        for name in names:
            import_module(name)
    except Exception:  # noqa: BLE001 - see above
        pass
    finally:
        for name in absent:
            del sys.modules[name]
