"""The only importer of llama_cpp: typed calls, its log as lines, handles that are freed once. It makes no decisions.

llama.cpp's grammar parser is not bound, so that no client's text can reach it.
"""

from __future__ import annotations

from typing import TypeAlias

from mullama.imports import import_without, without_package

# The package imports classes of its own, with Jinja, asyncio and servers, which take as long as all other imports of a
# worker. A worker uses `llama_cpp.llama_cpp` alone, the C functions, which need one name of typing_extensions.
without_package("llama_cpp")
import_without({"typing_extensions": {"TypeAlias": TypeAlias}}, "llama_cpp.llama_cpp")

# The texts of numpy's documentation and its types for checkers are a third of its import. `numpy.linalg` alone uses
# one of the types, in annotations.
import_without(
    {"numpy._core._add_newdocs": {}, "numpy._core._add_newdocs_scalars": {}, "numpy._typing": {"NDArray": list}},
    "numpy",
)
