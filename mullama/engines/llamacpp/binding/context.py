"""One llama.cpp context: batches in, logits and vectors out, cells shared, cut, saved and restored."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import llama_cpp.llama_cpp as c
import numpy as np

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.binding.devices import placed
from mullama.engines.llamacpp.binding.library import first_reason, log, sum_sizes
from mullama.engines.llamacpp.binding.model import DeviceMemoryShort, NativeAdapter, NativeModel, short_of_memory
from mullama.engines.llamacpp.binding.paged_memory import PagedMemory
from mullama.errors import EngineFailed, Refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

Floats = np.ndarray[tuple[Any, ...], np.dtype[np.float32]]
Ids = np.ndarray[tuple[Any, ...], np.dtype[np.int32]]

MAX_SEQUENCES = 256  # llama.cpp's LLAMA_MAX_SEQ
DECODED, NO_CELLS, ABORTED = 0, 1, 2  # results of `NativeContext.decode`

_CACHE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30,
}  # fmt: skip
_FLASH = {"auto": -1, "off": 0, "on": 1}
_POOLINGS = {"": -1, "none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
_POOLING_NAMES = {number: name for name, number in _POOLINGS.items() if name}
_PARTIAL = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
_ROPE_SCALINGS = {"": -1, "none": 0, "linear": 1, "yarn": 2}


class NativeBatch:
    """Up to `room` tokens for one decode, as arrays that numpy writes and llama.cpp reads."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tokens: Ids = np.zeros(room, np.int32)
        self.positions: Ids = np.zeros(room, np.int32)
        self.outputs = np.zeros(room, np.int8)
        self.sequences: Ids = np.zeros(room, np.int32)
        self._counts: Ids = np.ones(room, np.int32)
        base = self.sequences.ctypes.data
        self._pointers = np.arange(base, base + 4 * room, 4, dtype=np.uint64)
        self.count = 0
        self._struct = c.llama_batch()
        for name, array in (
            ("token", self.tokens),
            ("pos", self.positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self.outputs),
        ):
            kind = dict(c.llama_batch._fields_)[name]
            setattr(self._struct, name, ctypes.cast(array.ctypes.data, kind))

    def clear(self) -> None:
        self.count = 0

    def add(self, sequence: int, position: int, tokens: Sequence[int], outputs: int) -> None:
        """Append tokens of one sequence; the last `outputs` of them get logits. Raise `EngineFailed` when full."""
        start, end = self.count, self.count + len(tokens)
        if end > self.room:
            raise EngineFailed(f"a batch of {end} tokens; at most {self.room} fit")
        self.count = end
        self.tokens[start:end] = tokens
        self.positions[start:end] = range(position, position + len(tokens))
        self.sequences[start:end] = sequence
        self.outputs[start:end] = 0
        self.outputs[end - outputs : end] = 1

    def add_each(self, tokens: Sequence[tuple[int, int, int]]) -> None:
        """Append one token each of several sequences, as (sequence, position, token), all with logits."""
        start, end = self.count, self.count + len(tokens)
        if end > self.room:
            raise EngineFailed(f"a batch of {end} tokens; at most {self.room} fit")
        self.count = end
        self.sequences[start:end], self.positions[start:end], self.tokens[start:end] = zip(*tokens, strict=True)
        self.outputs[start:end] = 1

    def struct(self) -> Any:
        self._struct.n_tokens = self.count
        return self._struct


class Batch(Protocol):
    """The content of one decode."""

    def struct(self) -> Any:
        """Return the llama_batch."""
        ...


class NativeContext:
    """One llama.cpp context: its cells, its logits, and the byte that stops a decode.

    With `pool` all sequences share the cells, else each has an equal part of them.
    """

    def __init__(
        self,
        model: NativeModel,
        options: ContextOptions,
        *,
        cells: int,
        sequences: int,
        outputs: int,
        threads: tuple[int, int],
        pool: bool = True,
        paged: int = 0,
        nextn_of: NativeContext | None = None,
    ) -> None:
        """paged: the most cells in use at once, for a cache without `pool` whose other cells take no memory.

        nextn_of: the main context, for the context of the layers that predict further tokens.
        """
        params = c.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = options.batch
        params.n_ubatch = options.ubatch
        params.n_seq_max = sequences
        params.n_outputs_max = 0 if options.embedding else outputs
        params.n_outputs_max_per_seq = 0 if options.embedding else outputs
        params.n_threads, params.n_threads_batch = threads
        params.rope_scaling_type = _ROPE_SCALINGS[options.rope_scaling]
        params.rope_freq_base = options.rope_freq_base
        params.rope_freq_scale = options.rope_freq_scale
        params.pooling_type = _POOLINGS[options.pooling]
        params.flash_attn_type = _FLASH[options.flash]
        params.type_k, params.type_v = _CACHE_TYPES[options.kv_k], _CACHE_TYPES[options.kv_v]
        params.embeddings = options.embedding
        params.swa_full = False
        params.kv_unified = pool
        params.no_perf = True
        if nextn_of is not None:
            params.ctx_type, params.ctx_other = c.LLAMA_CONTEXT_TYPE_MTP, nextn_of.handle
        log.errors.clear()
        self._paged = PagedMemory() if paged else None
        with log.recording() as lines, self._paged.allocating() if self._paged else nullcontext():
            handle = c.llama_init_from_model(model.handle, params)
        if not handle:
            if self._paged:
                self._paged.close()
            raise _refusal(model, cells, lines)
        self._handle: Any = handle
        self._pool = pool
        self.model = model
        self.cells = int(c.llama_n_ctx(handle))
        self.batch_size = int(c.llama_n_batch(handle))
        self.ubatch_size = int(c.llama_n_ubatch(handle))
        self.pooling = _POOLING_NAMES[int(c.llama_pooling_type(handle))]
        self.kv_bytes = sum_sizes(lines, "KV buffer size") + sum_sizes(lines, "RS buffer size")
        self.compute_bytes = sum_sizes(lines, "compute buffer size")
        self.output_bytes = sum_sizes(lines, "output buffer size")
        self.placed = placed(lines, model.devices, "KV buffer size", "RS buffer size", "compute buffer size")
        self._memory: Any = c.llama_get_memory(handle)
        self.can_shift = bool(self._memory and c.llama_memory_can_shift(self._memory))
        self._stop = ctypes.create_string_buffer(2)
        c.llama_set_abort_callback(handle, _stop_reader(), ctypes.addressof(self._stop))
        self._views: dict[tuple[int, int], Floats] = {}
        if self._paged:
            if not self._paged.divide(sequences, self.cells // sequences):
                self.close()
                raise Refused("llama.cpp divides this cache in another way")
            self.kv_bytes = self.kv_bytes * paged // self.cells

    @property
    def handle(self) -> Any:
        if self._handle is None:
            raise EngineFailed("the context is closed")
        return self._handle

    def decode(self, batch: Batch) -> int:
        """Return DECODED, NO_CELLS (nothing was changed) or ABORTED (tokens of the batch may have cells).

        Raise `EngineFailed` for every other status.
        """
        status = int(c.llama_decode(self.handle, batch.struct()))
        if status in (DECODED, NO_CELLS, ABORTED):
            return status
        raise EngineFailed(f"llama_decode failed with {status}", report=log.report())

    def set_causal(self, causal: bool) -> None:
        """Let tokens see only those before them, as usual, or all tokens of their decode."""
        c.llama_set_causal_attn(self.handle, causal)

    def synchronize(self) -> None:
        """Wait until the last decode is computed. A GPU computes it after `decode` has returned."""
        c.llama_synchronize(self.handle)

    def stop_decode(self) -> None:
        """Let the running decode, or the next one, return ABORTED. Thread-safe."""
        self._stop[0] = b"\x01"

    def allow_decode(self) -> None:
        self._stop[0] = b"\x00"

    @property
    def stopping(self) -> bool:
        return bool(self._stop[0] != b"\x00")

    def logits(self, rows: int) -> Floats:
        """Return the logits of the last decode: (rows, vocabulary), in batch order; valid until the next decode."""
        return self._view(c.llama_get_logits(self.handle), rows, self.model.vocabulary)

    def token_embeddings(self, rows: int) -> Floats:
        """Return the vectors of the last decode: (rows, embedding length), in batch order, without pooling."""
        return self._view(c.llama_get_embeddings(self.handle), rows, self.model.embedding_length)

    def _view(self, pointer: Any, rows: int, columns: int) -> Floats:
        if not pointer:
            raise EngineFailed("llama.cpp has no output to give", report=log.report())
        address = ctypes.addressof(pointer.contents)
        view = self._views.get((address, rows))
        if view is None:
            if len(self._views) > 256:
                self._views.clear()
            view = np.ctypeslib.as_array(pointer, shape=(rows, columns))
            self._views[address, rows] = view
        return view

    def sequence_embedding(self, sequence: int, length: int) -> Floats:
        """Return a copy of the pooled vector, or the rank scores, of one sequence."""
        pointer = c.llama_get_embeddings_seq(self.handle, sequence)
        if not pointer:
            raise EngineFailed("llama.cpp has no vector for the sequence", report=log.report())
        return np.ctypeslib.as_array(pointer, shape=(length,)).copy()

    def copy(self, source: int, target: int, end: int) -> None:
        """Copy the tokens of `source` at positions below `end` to `target`, which is empty.

        In a pool both share the same cells, else llama_memory_seq_cp copies the memory of the complete sequence, also
        that of cells without tokens.
        """
        if self._pool:
            c.llama_memory_seq_cp(self._memory, source, target, -1, end)
        elif self._paged:
            if not self.restore(target, self.save(source)):
                raise EngineFailed("llama.cpp refuses the state of another sequence", report=log.report())
            self.cut(target, end)
            self._paged.release(target, end)
        else:
            c.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self.cut(target, end)

    def cut(self, sequence: int, start: int) -> bool:
        """Remove a sequence from a position on; return False for memory that cannot be cut there."""
        return bool(c.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def trim(self, sequence: int, start: int) -> None:
        """Remove a sequence from a position on, and give the memory of these cells back, where cells have their own."""
        self.cut(sequence, start)
        if self._paged:
            self._paged.release(sequence, start)

    def clear(self) -> None:
        if self._memory:
            c.llama_memory_clear(self._memory, True)

    def last_position(self, sequence: int) -> int:
        """Return the highest position with a cell, -1 when the sequence is empty."""
        return int(c.llama_memory_seq_pos_max(self._memory, sequence))

    def first_position(self, sequence: int) -> int:
        """Return the lowest position with a cell in every layer, -1 when the sequence is empty."""
        return int(c.llama_memory_seq_pos_min(self._memory, sequence))

    def complete(self, sequence: int, length: int) -> bool:
        """Return True if a sequence of this length, or one cut to it, has all that its next token needs.

        A token sees its own position and the window - 1 before it (llama_hparams::is_masked_swa).
        """
        last = self.last_position(sequence)
        if self.model.recurrent or length == 0:
            return last == length - 1
        oldest = length - self.model.window + 1 if self.model.window else 0
        return last >= length - 1 and self.first_position(sequence) <= max(0, oldest)

    def state_size(self, sequence: int, *, partial: bool = False) -> int:
        """Return the bytes of the state of one sequence."""
        return int(c.llama_state_seq_get_size_ext(self.handle, sequence, _PARTIAL if partial else 0))

    def save(self, sequence: int, *, partial: bool = False) -> memoryview:
        """Return the state of one sequence; with `partial`, only its recurrent states and sliding windows."""
        size = self.state_size(sequence, partial=partial)
        state = np.empty(size, np.uint8)
        flags = _PARTIAL if partial else 0
        written = c.llama_state_seq_get_data_ext(self.handle, _address(state), size, sequence, flags)
        return state.data[:written]

    def restore(self, sequence: int, state: bytes | memoryview, *, partial: bool = False) -> bool:
        """Restore a saved sequence; return False, with an empty sequence, if llama.cpp refuses the state.

        partial: as for `save`; the cells of the other layers stay as they are.
        """
        flags = _PARTIAL if partial else 0
        data = np.frombuffer(state, np.uint8)
        taken = c.llama_state_seq_set_data_ext(self.handle, _address(data), len(data), sequence, flags)
        if not taken:
            self.cut(sequence, 0)
        return bool(taken)

    @property
    def threads(self) -> tuple[int, int]:
        """Threads for decodes of one token, and for decodes of several."""
        return int(c.llama_n_threads(self.handle)), int(c.llama_n_threads_batch(self.handle))

    def set_threads(self, threads: tuple[int, int]) -> None:
        c.llama_set_n_threads(self.handle, *threads)

    def set_adapters(self, adapters: Sequence[tuple[NativeAdapter, float]]) -> None:
        handles = (c.llama_adapter_lora_p_ctypes * len(adapters))(*(a.handle for a, _ in adapters))
        scales = (ctypes.c_float * len(adapters))(*(s for _, s in adapters))
        if c.llama_set_adapters_lora(self.handle, handles, len(adapters), scales):
            raise EngineFailed("llama.cpp refused the adapters", report=log.report())

    def close(self) -> None:
        if self._handle is not None:
            c.llama_free(self._handle)
            self._handle = None
            self._views.clear()
        if self._paged:
            self._paged.close()


def _refusal(model: NativeModel, cells: int, lines: Sequence[str]) -> Refused:
    """Return the error for a context that llama.cpp does not make. lines: its log."""
    if model.gpu_layers and short_of_memory(lines):
        return DeviceMemoryShort(
            f"a context of {cells} cells does not fit into the memory of the devices",
            hint=f"{first_reason(lines)}; use fewer gpu.layers or a smaller context.size",
        )
    return Refused(f"llama.cpp cannot make a context of {cells} cells", hint=first_reason(lines))


def _address(data: NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


@cache
def _stop_reader() -> Any:
    """Return a native function that is true while a byte is set: the C library's `strlen`.

    llama.cpp calls it after every node of its graph; a Python callback would wait for the interpreter lock there.
    """
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    return ctypes.cast(library.strlen, c.ggml_abort_callback)
