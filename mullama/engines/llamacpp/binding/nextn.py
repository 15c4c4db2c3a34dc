"""The layers that predict further tokens (nextn, multi-token prediction): the model's states in, guesses out.

`llama.h` has the context type and the batches with embeddings. The functions that read the states are in llama.cpp's
`llama-ext.h`, which it calls a staging interface: they are exported under their C++ names only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.binding.context import Floats, NativeContext
from mullama.errors import EngineFailed, Unsupported
from mullama.struct import replace
from mullama.weights.memory import ROWS

_DECODE = 1  # LLAMA_PROCESS_TYPE_DECODE
_STAGED = {
    "set_states": "_Z26llama_set_embeddings_nextnP13llama_contextbb",
    "states": "_Z26llama_get_embeddings_nextnP13llama_context",
    "state": "_Z30llama_get_embeddings_nextn_ithP13llama_contexti",
}


class _Embedding(ctypes.Structure):
    """llama_embd."""

    _fields_ = [("data", ctypes.c_void_p), ("n_rows", ctypes.c_size_t), ("n_embd", ctypes.c_size_t)]  # type: ignore[mutable-override]


@cache
def _functions() -> dict[str, Any]:
    """Return the functions with their types; raise `Unsupported` for a library without them."""
    library: Any = c._lib
    try:
        found = {name: getattr(library, symbol) for name, symbol in _STAGED.items()}
        found |= {name: getattr(library, f"llama_batch_ext_{name}") for name in (
            "init", "free", "clear", "add_token", "set_embd_token", "set_output_logits", "set_pos",
        )}  # fmt: skip
        found["process"] = library.llama_process
    except AttributeError as error:
        raise Unsupported(
            f"draft.from is mtp, and this build of llama.cpp does not export {str(error).split()[-1]}",
            hint="draft: ngram",
        ) from None
    pointer, number, truth = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool
    floats = ctypes.POINTER(ctypes.c_float)
    for name, (arguments, result) in {
        "set_states": ([pointer, truth, truth], None),
        "states": ([pointer], floats),
        "state": ([pointer, number], floats),
        "init": ([pointer], pointer),
        "free": ([pointer], None),
        "clear": ([pointer], None),
        "add_token": ([pointer, number, number], number),
        "set_embd_token": ([pointer, number, _Embedding], truth),
        "set_output_logits": ([pointer, number, truth], truth),
        "set_pos": ([pointer, number, ctypes.POINTER(ctypes.c_int32)], truth),
        "process": ([pointer, number, pointer], number),
    }.items():
        found[name].argtypes, found[name].restype = arguments, result
    return found


class NextnContext(NativeContext):
    """A context of the nextn layer of a model, next to its main context.

    It reads tokens with the model's state before each, and gives logits of the next token and a state of its own.
    """

    def __init__(self, main: NativeContext, options: ContextOptions, *, cells: int, sequences: int) -> None:
        """Raise `Unsupported` if the library or the model lacks it. cells: of all sequences together."""
        functions, layers = _functions(), int(c.llama_model_n_layer_nextn(main.model.handle))
        # For most architectures with several layers llama.cpp aborts the process: `GGML_ASSERT(n_layer_nextn == 1)`.
        if layers != 1:
            raise Unsupported(
                f"draft.from is mtp, and the weights have {layers} layers that predict further tokens",
                hint="one is supported; draft: ngram",
            )
        super().__init__(
            main.model,
            replace(options, kv_k="f16", kv_v="f16"),
            cells=cells,
            sequences=sequences,
            outputs=max(ROWS, sequences),
            threads=main.threads,
            pool=False,
            nextn_of=main,
        )
        self._functions = functions
        self._width = main.model.embedding_length
        self._main = main
        self._tokens: Any = functions["init"](self.handle)
        self._added = 0
        functions["set_states"](main.handle, True, False)  # of every token
        functions["set_states"](self.handle, True, True)  # of tokens with logits

    def states_of_main(self, rows: int) -> Floats:
        """Return the states of the last decode of the main context: (rows, width), valid until its next decode."""
        return self._view(self._functions["states"](self._main.handle), rows, self._width)

    def state(self, index: int) -> Floats:
        """Return a copy of the state of a token of the last decode that has logits, by its place in the batch."""
        pointer = self._functions["state"](self.handle, index)
        if not pointer:
            raise EngineFailed("llama.cpp has no state to give")
        return np.ctypeslib.as_array(pointer, shape=(self._width,)).copy()

    def begin(self) -> None:
        """Begin a batch."""
        self._functions["clear"](self._tokens)
        self._added = 0

    @property
    def added(self) -> int:
        """Tokens of the batch."""
        return self._added

    def add(self, sequence: int, position: int, tokens: Sequence[int], states: Floats, *, output: bool) -> None:
        """Append tokens of one sequence, each with the state before it; `output` gives the last one logits."""
        functions, batch = self._functions, self._tokens
        place = ctypes.c_int32()
        rows = np.ascontiguousarray(states, np.float32)
        last = len(tokens) - 1
        for i, token in enumerate(tokens):
            index = functions["add_token"](batch, sequence, token)
            if index < 0:
                raise EngineFailed(f"llama.cpp refused token {token} of a batch with {index}")
            place.value = position + i
            functions["set_pos"](batch, index, ctypes.byref(place))
            functions["set_output_logits"](batch, index, output and i == last)
            embedding = _Embedding(rows[i].ctypes.data, 1, self._width)
            functions["set_embd_token"](batch, index, embedding)  # copies the row
            self._added += 1

    def process(self) -> bool:
        """Decode the batch; return False if it fails."""
        return bool(self._functions["process"](self.handle, _DECODE, self._tokens) == 0)

    def close(self) -> None:
        if self._handle is not None:
            self._functions["set_states"](self._main.handle, False, False)
            self._functions["free"](self._tokens)
        super().close()
