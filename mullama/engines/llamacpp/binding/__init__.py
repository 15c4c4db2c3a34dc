"""The only importer of llama_cpp: typed calls, its log as lines, handles that are freed once. It makes no decisions.

llama.cpp's grammar parser is not bound, so that no client's text can reach it.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from typing import Any


def _import_functions_only() -> None:
    """Let `llama_cpp.llama_cpp`, the C functions, be imported without the classes of its package.

    The package imports its own classes, with Jinja, asyncio and servers, which take as long as all other imports of a
    worker. It is executed at the first use of one of its names, which is never in a worker.
    """
    spec = None if "llama_cpp" in sys.modules else find_spec("llama_cpp")
    if spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def execute(name: str) -> Any:
        del vars(package)["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    vars(package)["__getattr__"] = execute
    sys.modules["llama_cpp"] = package


_import_functions_only()
