"""Memory of a cache that has pages only where cells were written.

llama.cpp allocates a cache for the most tokens of every sequence and fills it with zeros, so that all of it is
resident. On Linux, fresh memory is zero without a page, and pages that are not needed any more can be given back. So
the cache of a context gets a mapping of its own: `alloc_buffer` of ggml's buffer type for main memory is replaced
while llama.cpp makes a context, and `clear` of the buffer gives pages back instead of writing zeros. The structures
are those of ggml-backend-impl.h; `can_page` tries them on a small buffer.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final

from mullama.engines.llamacpp.binding.library import with_signatures
from mullama.struct import Struct

_POINTER = ctypes.c_void_p
_ALLOCATE = ctypes.CFUNCTYPE(_POINTER, _POINTER, ctypes.c_size_t)
_INIT_TENSOR = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER)
_CLEAR = ctypes.CFUNCTYPE(None, _POINTER, ctypes.c_uint8)
_NO_RESERVE: Final = 0x4000  # MAP_NORESERVE of Linux: the mapping may be larger than the memory of the machine
_TRIAL_BYTES: Final = 4096


class _BufferType(ctypes.Structure):
    """`struct ggml_backend_buffer_type`."""

    _fields_ = [(name, _POINTER) for name in (  # type: ignore[mutable-override]
        "get_name", "alloc_buffer", "get_alignment", "get_max_size", "get_alloc_size", "is_host", "device", "context",
    )]  # fmt: skip


class _Buffer(ctypes.Structure):
    """`struct ggml_backend_buffer`."""

    _fields_ = [(name, _POINTER) for name in (  # type: ignore[mutable-override]
        "free_buffer", "get_base", "init_tensor", "memset_tensor", "set_tensor", "get_tensor", "set_tensor_2d",
        "get_tensor_2d", "cpy_tensor", "clear", "reset", "buft", "context",
    )] + [("size", ctypes.c_size_t), ("usage", ctypes.c_int)]  # fmt: skip


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_backend_cpu_buffer_type": (_POINTER, ()),
    "ggml_backend_cpu_buffer_from_ptr": (_POINTER, (_POINTER, ctypes.c_size_t)),
    "ggml_backend_buft_alloc_buffer": (_POINTER, (_POINTER, ctypes.c_size_t)),
    "ggml_backend_buffer_clear": (None, (_POINTER, ctypes.c_uint8)),
    "ggml_backend_buffer_get_size": (ctypes.c_size_t, (_POINTER,)),
    "ggml_backend_buffer_free": (None, (_POINTER,)),
    "ggml_get_name": (ctypes.c_char_p, (_POINTER,)),
    "ggml_get_data": (_POINTER, (_POINTER,)),
    "ggml_nbytes": (ctypes.c_size_t, (_POINTER,)),
}


@cache
def _ggml() -> Any:
    return with_signatures(_SIGNATURES)


class _Tensor(Struct, frozen=True):
    """The keys or the values of one layer: a part for each sequence, of one row for each cell."""

    pages: mmap.mmap
    offset: int
    size: int


class PagedMemory:
    """The memory of the caches of one context. It must live as long as the context."""

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}  # by buffer
        self._tensors: list[_Tensor] = []
        self._sequences = self._cells = 1
        self._thread = threading.get_ident()
        self._type = _BufferType.from_address(_ggml().ggml_backend_cpu_buffer_type())
        self._original = self._type.alloc_buffer
        # llama.cpp keeps the addresses of these functions in the buffer.
        self._functions = (_ALLOCATE(self._allocate), _INIT_TENSOR(self._init_tensor), _CLEAR(self._clear))

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """Take what this thread allocates in main memory, until the first cache is complete."""
        self._type.alloc_buffer = _address_of(self._functions[0])
        try:
            yield
        finally:
            self._type.alloc_buffer = self._original

    @property
    def used(self) -> bool:
        """True if a cache has this memory."""
        return bool(self._tensors)

    def divide(self, sequences: int, cells: int) -> bool:
        """Set the numbers of sequences, and of cells of each; return False if the memory is not so divided."""
        self._sequences, self._cells = sequences, cells
        return self.used and all(tensor.size % (sequences * cells) == 0 for tensor in self._tensors)

    def release(self, sequence: int, start: int) -> None:
        """Give back the pages of the cells of a sequence from `start` on. They are zero when they are read again.

        The cell of a token has the number of its position: a sequence has its cells alone, grows at its end and is cut
        at its end, and llama_kv_cache::find_slot takes the first free cell behind the last one.
        """
        for tensor in self._tensors:
            part = tensor.size // self._sequences
            first = tensor.offset + sequence * part
            begin = -(-(first + start * (part // self._cells)) // mmap.PAGESIZE) * mmap.PAGESIZE
            count = (first + part) // mmap.PAGESIZE * mmap.PAGESIZE - begin
            if count > 0:
                tensor.pages.madvise(mmap.MADV_DONTNEED, begin, count)

    def close(self) -> None:
        """Unmap the memory. The context must be freed."""
        self._tensors.clear()
        for pages in self._maps.values():
            pages.close()
        self._maps.clear()

    def _allocate(self, kind: int, size: int) -> int | None:
        if threading.get_ident() != self._thread:
            return int(_ALLOCATE(self._original)(kind, size) or 0) or None
        try:
            pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
        except (OSError, OverflowError):
            return None
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        handle = int(_ggml().ggml_backend_cpu_buffer_from_ptr(_base(pages), size))
        buffer = _Buffer.from_address(handle)
        buffer.init_tensor, buffer.clear = map(_address_of, self._functions[1:])
        self._maps[handle] = pages
        return handle

    def _init_tensor(self, buffer: int, tensor: int) -> int:
        """Note the place of a tensor of the cache. llama.cpp calls it for the views of each sequence, too.

        Graphs have further views of these tensors, so that `_clear` removes this function from the buffer.
        """
        ggml, pages = _ggml(), self._maps[buffer]
        if b"(view)" not in ggml.ggml_get_name(tensor):
            offset = int(ggml.ggml_get_data(tensor)) - _base(pages)
            self._tensors.append(_Tensor(pages, offset, int(ggml.ggml_nbytes(tensor))))
        return 0

    def _clear(self, buffer: int, value: int) -> None:
        pages = self._maps[buffer]
        if value:
            ctypes.memset(_base(pages), value, len(pages))
        else:
            pages.madvise(mmap.MADV_DONTNEED)
        if self._tensors:  # they are complete; the next buffers and views are those of graphs
            self._type.alloc_buffer = self._original
            _Buffer.from_address(buffer).init_tensor = None


@cache
def can_page() -> bool:
    """Return True if the cache of a context can have such memory in this process."""
    if sys.platform != "linux":
        return False
    try:
        ggml, memory = _ggml(), PagedMemory()
    except (AttributeError, OSError):  # another build
        return False
    kind = ggml.ggml_backend_cpu_buffer_type()
    with memory.allocating():
        handle = ggml.ggml_backend_buft_alloc_buffer(kind, _TRIAL_BYTES)
    pages = memory._maps.get(handle)
    if pages is None or ggml.ggml_backend_buffer_get_size(handle) != _TRIAL_BYTES:
        return False
    pages[0] = 1
    ggml.ggml_backend_buffer_clear(handle, 0)
    cleared = pages[0] == 0 and _Buffer.from_address(handle).size == _TRIAL_BYTES
    ggml.ggml_backend_buffer_free(handle)
    memory.close()
    return cleared


def _base(pages: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))


def _address_of(function: Any) -> int:
    return int(ctypes.cast(function, _POINTER).value or 0)
