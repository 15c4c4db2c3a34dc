"""The only importer of llama_cpp: typed calls, its log as lines, handles that are freed once. It makes no decisions.

llama.cpp's grammar parser is not bound, so that no client's text can reach it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeAlias

from mullama.imports import placeholders, without_package

# The package imports classes of its own, with Jinja, asyncio and servers, which take as long as all other imports of a
# worker. A worker uses `llama_cpp.llama_cpp` alone, the C functions, which need one name of typing_extensions.
without_package("llama_cpp")
with placeholders({"typing_extensions": {"TypeAlias": TypeAlias}}), suppress(ImportError):  # its importer reports it
    import llama_cpp.llama_cpp  # noqa: F401 - for its effect

# The texts of numpy's documentation and its types for checkers are a third of its import. `numpy.linalg` alone uses
# one of the types, in annotations.
with (
    placeholders(
        {
            "numpy._core._add_newdocs": {},
            "numpy._core._add_newdocs_scalars": {},
            "numpy._typing": {"NDArray": list},
        }
    ),
    suppress(ImportError),
):
    import numpy  # noqa: F401 - for its effect
