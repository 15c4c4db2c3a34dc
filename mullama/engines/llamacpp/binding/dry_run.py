"""A load that allocates nothing: the exact bytes of weights, cache and compute buffers on each device.

llama.cpp has the numbers in `llama_get_memory_breakdown` (`src/llama-ext.h`), which returns a `std::map`. Its nodes are
read as libstdc++ lays them out; another C++ library has no dry run, and the arithmetic of `weights.memory` decides.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import llama_cpp.llama_cpp as c

from mullama.engines.base import ContextOptions, WeightsOptions
from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.errors import MullamaError
from mullama.weights.memory import ContextShape

_SYMBOL: Final = "_Z26llama_get_memory_breakdownPK13llama_context"
_MOST_NODES: Final = 256


class _Node(ctypes.Structure):
    """`_Rb_tree_node<pair<const ggml_backend_buffer_type_t, llama_memory_breakdown_data>>`."""

    _fields_ = (  # type: ignore[mutable-override]
        ("color", ctypes.c_size_t),
        ("parent", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("buffer_type", ctypes.c_void_p),
        ("model", ctypes.c_size_t),
        ("context", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    )


class _Map(ctypes.Structure):
    """`std::map` of libstdc++: the comparison, the header of the tree, the number of nodes."""

    _fields_ = (  # type: ignore[mutable-override]
        ("compare", ctypes.c_size_t),
        ("color", ctypes.c_size_t),
        ("root", ctypes.c_void_p),
        ("leftmost", ctypes.c_void_p),
        ("rightmost", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


def measure(files: Sequence[str], options: WeightsOptions, shape: ContextShape) -> tuple[int, ...] | None:
    """Return the bytes that weights with one context take on each device of `options`; None where it is not known."""
    breakdown = getattr(c._lib, _SYMBOL, None) if _built_with_libstdcxx() else None
    if breakdown is None:
        return None
    breakdown.restype, breakdown.argtypes = _Map, [ctypes.c_void_p]
    model = context = None
    try:
        model = NativeModel(files, options, lambda share: True, dry=True)
        size = shape.size or model.train_context
        context = NativeContext(
            model,
            ContextOptions.of(shape),
            cells=size * shape.parallel,
            sequences=shape.states,
            outputs=shape.outputs or shape.ubatch,
            threads=(1, 1),
        )
        found = {node.buffer_type: node for node in _nodes(breakdown(context.handle))}
        types = [device.buffer_type for device in model.devices]
        return tuple(
            node.model + node.context + node.compute if (node := found.get(kind)) is not None else 0 for kind in types
        )
    except MullamaError:  # the load reports the reason
        return None
    finally:
        for opened in (context, model):
            if opened is not None:
                opened.close()


def _built_with_libstdcxx() -> bool:
    if sys.platform != "linux":
        return False
    libraries = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    return "/libstdc++." in libraries and "/libc++." not in libraries


def _nodes(found: Any) -> Iterator[_Node]:
    """Yield the nodes of the map. Its memory is not freed: some hundred bytes for each load."""
    waiting = [found.root]
    for _ in range(min(found.count, _MOST_NODES)):
        while waiting and not waiting[-1]:
            waiting.pop()
        if not waiting:
            return
        node = _Node.from_address(waiting.pop())
        waiting += [node.left, node.right]
        yield node
