"""A projector: files of media as vectors (libmtmd).

Only what opens a projector imports this module: the library of libmtmd takes memory and time to load.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c
import llama_cpp.mtmd_cpp as m
import numpy as np

from mullama.engines.llamacpp.binding.context import Floats, Ids
from mullama.engines.llamacpp.binding.library import first_reason, log, start
from mullama.engines.llamacpp.binding.model import DeviceMemoryShort, NativeModel, short_of_memory
from mullama.engines.llamacpp.binding.vectors import MediaChunk
from mullama.errors import BadWeights, EngineFailed

_TEXT, _IMAGE = 0, 1  # types of chunks; 2 is audio
_FULL, _OTHER_SHAPE = 2, 3  # results of mtmd_batch_add_chunk
_SHORTEST_SOUND = 0.1  # seconds; some encoders abort the process for a few samples
_SECTIONS = 4  # positions of a vector with M-RoPE: time, row, column and one that is reserved

# libmtmd would start ffmpeg, from the PATH, for bytes that are neither an image nor a sound to it. No program may
# read what a client sent, so it gets a folder that cannot exist.
_NO_PROGRAMS = os.path.join(os.devnull, "none").encode()


@cache
def _start() -> None:
    start()
    m.mtmd_helper_log_set(log.callback, ctypes.c_void_p(0))


class Pieces:
    """The parts that a medium contributes to a prompt, in order: lists of token ids, and chunks."""

    def __init__(self, chunks: Any, items: Sequence[list[int] | MediaChunk]) -> None:
        self._chunks = chunks
        self.items = tuple(items)

    def close(self) -> None:
        if self._chunks is not None:
            m.mtmd_input_chunks_free(self._chunks)
            self._chunks = None


class NativeProjector:
    """One projector over loaded weights. Not thread-safe, and closed before the weights.

    Raises `BadWeights` for a file that is no projector or belongs to other weights, `DeviceMemoryShort` for lack of
    memory on a device.
    """

    def __init__(self, path: str, model: NativeModel, *, gpu: bool, threads: int) -> None:
        _start()
        params = m.mtmd_context_params_default()
        params.use_gpu = gpu
        params.n_threads = threads
        params.print_timings = False
        params.warmup = gpu  # on a CPU it would encode an empty image for some seconds
        with log.recording() as lines:
            handle = m.mtmd_init_from_file(path.encode(), model.handle, params)
        if not handle:
            raise _refusal(path, lines, gpu=gpu)
        self._handle: Any = handle
        found = (re.search(r"projector: +(\S+)", line) for line in lines)
        self.kinds = frozenset(match[1] for match in found if match)
        """Names of its encoders, as in the key clip.projector_type."""
        self._width = int(c.llama_model_n_embd_inp(model.handle))
        self.vision = bool(m.mtmd_support_vision(handle))
        self.audio = bool(m.mtmd_support_audio(handle))
        self._audio_rate = max(0, int(m.mtmd_get_audio_sample_rate(handle)))
        self._mrope = bool(m.mtmd_decode_use_mrope(handle))

    @property
    def handle(self) -> Any:
        if self._handle is None:
            raise EngineFailed("the projector is closed")
        return self._handle

    def pieces(self, data: bytes, *, count_only: bool) -> Pieces | None:
        """Return the pieces of a file of an image or a sound; None for one that libmtmd cannot decode.

        count_only: the chunks cannot be encoded, which saves most of the work.
        """
        with self._bitmap(data, count_only=count_only) as bitmap:
            return None if bitmap is None else self._tokenized(bitmap)

    @contextmanager
    def _bitmap(self, data: bytes, *, count_only: bool) -> Iterator[Any]:
        options = m.mtmd_helper_init_opt_default()
        options.video_params.ffmpeg_bin_dir = _NO_PROGRAMS
        buffer = np.frombuffer(data, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = m.mtmd_helper_bitmap_init_from_buf_wrapper(
            self.handle, buffer, len(data), count_only, options
        ).bitmap  # fmt: skip
        bitmap = self._padded(bitmap) if bitmap and m.mtmd_bitmap_is_audio(bitmap) else bitmap
        try:
            yield bitmap or None
        finally:
            if bitmap:
                m.mtmd_bitmap_free(bitmap)

    def _padded(self, bitmap: Any) -> Any:
        """Return a sound of the shortest duration in place of a shorter one: silence follows it."""
        least = int(self._audio_rate * _SHORTEST_SOUND)
        samples = int(m.mtmd_bitmap_get_nx(bitmap))
        if samples >= least:
            return bitmap
        sound = np.zeros(least, np.float32)
        if size := int(m.mtmd_bitmap_get_n_bytes(bitmap)):
            sound[: size // 4] = np.ctypeslib.as_array(m.mtmd_bitmap_get_data(bitmap), shape=(size,)).view(np.float32)
        m.mtmd_bitmap_free(bitmap)
        return m.mtmd_bitmap_init_from_audio(
            least, sound.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) if size else None
        )  # fmt: skip

    def _tokenized(self, bitmap: Any) -> Pieces | None:
        part = m.mtmd_input_part(bitmap=bitmap)
        parts = (ctypes.POINTER(m.mtmd_input_part) * 1)(ctypes.pointer(part))
        chunks = m.mtmd_input_chunks_init()
        if m.mtmd_tokenize_from_parts(self.handle, chunks, parts, 1, False):
            m.mtmd_input_chunks_free(chunks)
            return None
        count = int(m.mtmd_input_chunks_size(chunks))
        return Pieces(chunks, [self._item(m.mtmd_input_chunks_get(chunks, index)) for index in range(count)])

    def _item(self, chunk: Any) -> list[int] | MediaChunk:
        kind = int(m.mtmd_input_chunk_get_type(chunk))
        if kind == _TEXT:
            size = ctypes.c_size_t()
            tokens = m.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
            return [int(tokens[index]) for index in range(size.value)]
        count = int(m.mtmd_input_chunk_get_n_tokens(chunk))
        return MediaChunk(
            handle=chunk,
            tokens=count,
            positions=int(m.mtmd_input_chunk_get_n_pos(chunk)),
            whole=bool(m.mtmd_decode_use_non_causal(self.handle, chunk)),
            place=self._place(chunk, count, image=kind == _IMAGE),
        )

    def _place(self, chunk: Any, count: int, *, image: bool) -> tuple[Ids, Ids] | None:
        """Return how positions depend on the first one: libmtmd gives them for one first position only.

        Most are offsets from it. Some (rows and columns of HunyuanVL) count from 0 wherever the image stands.
        """
        if not self._mrope:
            return None
        if not image:
            return np.ones((_SECTIONS, count), np.int32), np.tile(np.arange(count, dtype=np.int32), (_SECTIONS, 1))
        tokens = m.mtmd_input_chunk_get_tokens_image(chunk)
        found = []
        for first in (0, 1):
            buffer = (m.mtmd_decoder_pos * count)()
            m.mtmd_helper_image_get_decoder_pos(tokens, first, buffer)
            values = np.ctypeslib.as_array(ctypes.cast(buffer, ctypes.POINTER(ctypes.c_int32)), shape=(count, 4))
            found.append(values[:, (0, 2, 1, 3)].T.copy())  # t, x, y, z as llama.cpp wants them: t, y, x, z
        return found[1] - found[0], found[0]

    def encode(self, chunks: Sequence[MediaChunk]) -> list[Floats]:
        """Return the vectors of each chunk, (tokens, width), as few encodes as the projector can batch.

        Raises `EngineFailed` when libmtmd fails.
        """
        vectors: list[Floats] = []
        while len(vectors) < len(chunks):
            vectors += self._encode_some(chunks[len(vectors) :])
        return vectors

    def _encode_some(self, chunks: Sequence[MediaChunk]) -> list[Floats]:
        """Encode the first chunks that fit into one batch, at least one."""
        batch = m.mtmd_batch_init(self.handle)
        try:
            count = 0
            for chunk in chunks:
                status = m.mtmd_batch_add_chunk(batch, chunk.handle)
                if status in (_FULL, _OTHER_SHAPE):
                    break
                if status:
                    raise EngineFailed("libmtmd refused a medium", report=log.report())
                count += 1
            if m.mtmd_batch_encode(batch):
                raise EngineFailed("libmtmd could not encode a medium", report=log.report())
            return [self._output(batch, chunk) for chunk in chunks[:count]]
        finally:
            m.mtmd_batch_free(batch)

    def _output(self, batch: Any, chunk: MediaChunk) -> Floats:
        pointer = m.mtmd_batch_get_output_embd(batch, chunk.handle)
        if not pointer:
            raise EngineFailed("libmtmd has no vectors of a medium", report=log.report())
        return np.ctypeslib.as_array(pointer, shape=(chunk.tokens, self._width)).copy()

    def close(self) -> None:
        if self._handle is not None:
            m.mtmd_free(self._handle)
            self._handle = None


def _refusal(path: str, lines: Sequence[str], *, gpu: bool) -> Exception:
    name = Path(path).name
    if gpu and short_of_memory(lines):
        return DeviceMemoryShort(
            f"the projector {name} does not fit into the memory of the devices", hint=first_reason(lines)
        )
    if any("mismatch between text model" in line for line in lines):
        return BadWeights(
            f"the projector {name} belongs to other weights",
            hint=f"{first_reason(lines)}; use the one of these weights",
        )
    return BadWeights(
        f"libmtmd cannot load the projector {name}",
        hint=f"{first_reason(lines)}; mmproj: none serves the model for text",
    )
