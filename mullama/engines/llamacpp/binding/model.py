"""Loaded weights: metadata, vocabulary, and LoRA adapters."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import llama_cpp.llama_cpp as c

from mullama.engines.base import WeightsOptions
from mullama.engines.llamacpp.binding.devices import (
    NativeDevice,
    device_list,
    find_device,
    main_memory_overrides,
    placed,
)
from mullama.engines.llamacpp.binding.library import first_reason, log, offloaded_layers, start, sum_sizes
from mullama.errors import BadWeights, EngineFailed, MullamaError, Refused, Unsupported

_SPLITS = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
_SHORT_OF_MEMORY = re.compile(r"unable to allocate|failed to allocate|out of memory", re.IGNORECASE)
_NO_ROWS = re.compile(r"device (\S+) does not support split buffers")
_NO_TENSORS = re.compile(r"LLAMA_SPLIT_MODE_TENSOR not implemented for (.+)")
_NO_DEVICE = "LLAMA_SPLIT_MODE_TENSOR needs"


class DeviceMemoryShort(Refused):
    """The weights, or their context, do not fit into a device."""


def short_of_memory(lines: Iterable[str]) -> bool:
    """Return True if llama.cpp's log says that memory could not be allocated."""
    return any(_SHORT_OF_MEMORY.search(line) for line in lines)


class NativeModel:
    """Loaded weights with their vocabulary.

    Raises `BadWeights` for files that cannot be loaded, `DeviceMemoryShort` for lack of memory on a device,
    `Unsupported` for a split that the devices or llama.cpp lack, and as `find_device`.
    dry: read the header alone and allocate nothing, see `measure`.
    """

    def __init__(
        self, files: Sequence[str], options: WeightsOptions, progress: Callable[[float], bool], *, dry: bool = False
    ) -> None:
        start()
        self._files = {path: _state(path) for path in files}
        self.devices = tuple(find_device(name) for name in options.devices)
        handle, lines = _open(files, options, self.devices, progress, dry=dry)
        if not handle:
            raise _refusal(files[0], options, lines)
        self._handle: Any = handle
        self.remarks: tuple[str, ...] = ()
        """Sentences about what differs from the options."""
        self.weights_bytes = sum_sizes(lines, "model buffer size")
        self.gpu_layers = offloaded_layers(lines)
        self.placed = placed(lines, self.devices, "model buffer size")
        self.vocab: Any = c.llama_model_get_vocab(handle)
        self.vocabulary = int(c.llama_vocab_n_tokens(self.vocab))
        self.train_context = int(c.llama_model_n_ctx_train(handle))
        self.embedding_length = int(c.llama_model_n_embd(handle))
        self.layers = int(c.llama_model_n_layer(handle))
        self.parameters = int(c.llama_model_n_params(handle))
        self.window = int(c.llama_model_n_swa(handle))
        self.cellless = bool(c.llama_model_is_recurrent(handle))  # memory is one state per sequence
        self.recurrent = bool(self.cellless or c.llama_model_is_hybrid(handle))
        self.diffusion = bool(c.llama_model_is_diffusion(handle))
        self.has_encoder = bool(c.llama_model_has_encoder(handle))
        self.has_decoder = bool(c.llama_model_has_decoder(handle))
        self.architecture = self.metadata("general.architecture")
        looks_ahead = self.metadata(f"{self.architecture}.attention.causal") == "false"
        self.causal = self.has_decoder and not looks_ahead
        self.pooling = int(self.metadata(f"{self.architecture}.pooling_type") or 0)
        self.strips_accents = self._strips_accents()
        """The tokenizer is WordPiece and removes accents from the text."""
        self.add_bos = bool(c.llama_vocab_get_add_bos(self.vocab))
        self.add_eos = bool(c.llama_vocab_get_add_eos(self.vocab))
        self.add_sep = bool(c.llama_vocab_get_add_sep(self.vocab))
        self.template = self.template_named(None)

    @property
    def handle(self) -> Any:
        if self._handle is None:
            raise EngineFailed("the weights are closed")
        return self._handle

    def has_files_as_loaded(self) -> bool:
        """Return False if a file has changed since the load: mapped memory may then hold parts of other weights."""
        return all(_state(path) == state for path, state in self._files.items())

    def _strips_accents(self) -> bool:
        lowercase = self.metadata("tokenizer.ggml.normalizer.lowercase") != "false"
        strips = self.metadata("tokenizer.ggml.normalizer.strip_accents") or ("true" if lowercase else "false")
        return bool(c.llama_vocab_type(self.vocab) == c.LLAMA_VOCAB_TYPE_WPM and strips == "true")

    def template_named(self, name: str | None) -> str:
        """Return a chat template of the file by its name, None for the main one; "" when absent."""
        template = c.llama_model_chat_template(self.handle, name.encode() if name else None)
        return template.decode("utf-8", "replace") if template else ""

    def metadata(self, key: str) -> str:
        """Return one value of the file's metadata as text, "" when absent."""
        buffer = ctypes.create_string_buffer(4096)
        size = c.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if size >= 0 else ""

    def special(self, which: str) -> int:
        """Return a special token by llama.cpp's name (bos, eos, eot, sep, nl, fim_pre, ...), -1 when absent."""
        return int(getattr(c, f"llama_vocab_{which}")(self.vocab))

    def ends_generation(self, token: int) -> bool:
        return bool(c.llama_vocab_is_eog(self.vocab, token))

    def attributes(self, token: int) -> int:
        return int(c.llama_vocab_get_attr(self.vocab, token))

    def text(self, token: int) -> str:
        """Return the text of one token as the vocabulary holds it, "" for text that is not UTF-8."""
        text: bytes = c.llama_vocab_get_text(self.vocab, token)
        return text.decode("utf-8", "ignore")

    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        room = len(text) + 8
        while True:
            array = (ctypes.c_int32 * room)()
            count = c.llama_tokenize(self.vocab, text, len(text), array, room, add_special, parse_special)
            if count >= 0:
                return array[:count]
            if -count <= room:
                raise EngineFailed("llama.cpp could not tokenize the text")
            room = -count

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, for control tokens their text."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            size = c.llama_token_to_piece(self.vocab, token, buffer, room, 0, True)
            if size >= 0:
                return buffer.raw[:size]
            room = -size

    def tokenize_address(self) -> int:
        """Return the address of llama_tokenize, which llguidance calls."""
        address = ctypes.cast(c._lib.llama_tokenize, ctypes.c_void_p).value
        assert address is not None
        return address

    def close(self) -> None:
        if self._handle is not None:
            c.llama_model_free(self._handle)
            self._handle = None


def _state(path: str) -> tuple[int, ...]:
    """Return what a write or a replacement of the file changes, nothing for a missing file."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


def _open(
    files: Sequence[str],
    options: WeightsOptions,
    devices: Sequence[NativeDevice],
    progress: Callable[[float], bool],
    *,
    dry: bool,
) -> tuple[Any, list[str]]:
    """Return the handle of the loaded weights, NULL for a failure, and the log of the load."""
    params = c.llama_model_default_params()
    params.n_gpu_layers = options.gpu_layers
    params.split_mode = _SPLITS[options.split]
    params.main_gpu = options.main_gpu
    params.load_mode = 0 if dry else (1 if options.mmap else 0) + (2 if options.mlock else 0)
    params.no_alloc = dry
    params.load_mtp = options.drafting
    params.use_extra_bufts = options.extra_buffers
    if options.tensor_split:
        shares = (*options.tensor_split, *([0.0] * c.LLAMA_MAX_DEVICES))[: c.LLAMA_MAX_DEVICES]
        params.tensor_split = (ctypes.c_float * c.LLAMA_MAX_DEVICES)(*shares)
    listed, overrides = device_list(devices), main_memory_overrides(options.in_main_memory)
    if devices:
        params.devices = ctypes.addressof(listed)
    if options.in_main_memory:
        params.tensor_buft_overrides = ctypes.addressof(overrides)
    params.progress_callback = c.llama_progress_callback(lambda share, _: bool(progress(share)))
    paths = [os.fsencode(f) for f in files]
    log.errors.clear()
    with log.recording() as lines:
        if len(paths) == 1:
            return c.llama_model_load_from_file(paths[0], params), lines
        array = (ctypes.c_char_p * len(paths))(*paths)
        return c.llama_model_load_from_splits(array, len(paths), params), lines


def _refusal(file: str, options: WeightsOptions, lines: Sequence[str]) -> MullamaError:
    """Return the error for weights that llama.cpp did not load, from its log."""
    reason = first_reason(lines)
    if options.gpu_layers and short_of_memory(lines):
        names = ", ".join(options.devices) or "the devices"
        hint = f"{reason}; use fewer gpu.layers, gpu.experts: all or a smaller context.size"
        return DeviceMemoryShort(f"the weights do not fit into the memory of {names}", hint=hint)
    if match := _NO_ROWS.search(reason):
        return Unsupported(f"gpu.split is row, and {match[1]} cannot split rows", hint="gpu.split: layer")
    if match := _NO_TENSORS.search(reason):
        return Unsupported(f"gpu.split is tensor, which llama.cpp lacks for {match[1]}", hint="gpu.split: layer")
    if any(_NO_DEVICE in line for line in lines):
        return Unsupported("gpu.split is tensor, and the model has no device", hint="gpu.split: layer")
    return BadWeights(f"llama.cpp cannot load {file}", hint=reason)


class NativeAdapter:
    """A LoRA adapter, loaded for one model and freed with it."""

    def __init__(self, model: NativeModel, path: str) -> None:
        log.errors.clear()
        handle = c.llama_adapter_lora_init(model.handle, os.fsencode(path))
        if not handle:
            raise BadWeights(f"llama.cpp cannot load the adapter {path}", hint=log.report()[-300:])
        self.handle: Any = handle
