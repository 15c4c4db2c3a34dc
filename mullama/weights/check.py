"""Checks the keys and tensors of a model, and refuses files that would end native code.

Each check is for a file that aborted or crashed llama.cpp at loading or at the first decode.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mullama.errors import BadWeights
from mullama.names import suggest
from mullama.weights import architectures as known
from mullama.weights.keys import Keys
from mullama.weights.kv_cache import Geometry
from mullama.weights.tensors import BY_NAME, Tensor

MAX_LAYERS: Final = 512
MAX_EXPERTS: Final = 1024
MAX_WIDTH: Final = 2**20
MIN_CONTEXT: Final = 8
MAX_TEMPLATE: Final = 256 * 1024
_VISION: Final = ("v.", "mm.")
TENSOR_ALIGNMENT: Final = 32
POOLING: Final = ("none", "mean", "cls", "last", "rank")
_EPSILONS: Final = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")
_SCALINGS: Final = ("none", "linear", "yarn", "longrope")
_WHOLE_HEAD_ROTATES: Final = ("llama", "deci", "falcon", "llama-embed")


def check_architecture(architecture: str) -> None:
    if architecture not in known.KNOWN:
        close = suggest(architecture, known.KNOWN)
        like = f"did you mean {' or '.join(close)}? " if close else ""
        raise BadWeights(
            f"key general.architecture is {architecture[:60]!r}, which this version of llama.cpp cannot load",
            hint=f"{like}a newer mullama may know it",
        )


def check_geometry(keys: Keys) -> Geometry:
    """Return the dimensions of the model; raise `BadWeights` for a number out of range or at odds with another."""
    layers = keys.integer("{}.block_count", low=1, high=MAX_LAYERS)
    drafting = keys.integer("{}.nextn_predict_layers", 0, high=layers)
    width = keys.integer("{}.embedding_length", low=1, high=MAX_WIDTH)
    keys.integer("{}.context_length", low=MIN_CONTEXT)
    heads = keys.per_layer("{}.attention.head_count", layers, 0, high=MAX_WIDTH)
    kv_heads = _kv_heads(keys, layers, heads)
    head = _head_length(keys, width, heads)
    shape = Geometry(
        layers=layers, trunk=layers - drafting, width=width, heads=heads, kv_heads=kv_heads,
        feed_forward=keys.per_layer("{}.feed_forward_length", layers, 0),
        key_length=keys.integer("{}.attention.key_length", head, high=MAX_WIDTH),
        value_length=keys.integer("{}.attention.value_length", head, high=MAX_WIDTH),
    )  # fmt: skip
    check_numbers(keys, shape)
    return shape


def _kv_heads(keys: Keys, layers: int, heads: tuple[int, ...]) -> tuple[int, ...]:
    if not keys.has("{}.attention.head_count_kv"):
        return heads
    kv_heads = keys.per_layer("{}.attention.head_count_kv", layers, 0, high=MAX_WIDTH)
    for layer, (all_heads, kv) in enumerate(zip(heads, kv_heads, strict=True)):
        if kv and all_heads % kv:
            raise BadWeights(f"layer {layer} has {all_heads} attention heads for {kv} key/value heads, not a multiple")
    return kv_heads


def _head_length(keys: Keys, width: int, heads: tuple[int, ...]) -> int:
    attends = keys.architecture not in known.RECURRENT
    if attends and not any(heads):
        raise BadWeights(f"key {keys.name('{}.attention.head_count')} is missing or 0")
    if not heads[0]:
        return 0
    if width % heads[0] and attends and not keys.has("{}.attention.key_length"):
        raise BadWeights(f"{heads[0]} attention heads do not divide the width {width}")
    return width // heads[0]


def check_numbers(keys: Keys, shape: Geometry) -> None:
    """Check epsilons, rotary positions, experts and pooling; llama.cpp has an assertion for each."""
    for name in _EPSILONS:
        value = keys.real("{}.attention." + name, 1e-5)
        if value <= 0:
            raise BadWeights(f"key {keys.name('{}.attention.' + name)} is {value}, not greater than 0")
    _check_rope(keys, shape)
    _check_experts(keys, shape.layers)
    if keys.has("{}.pooling_type"):
        keys.integer("{}.pooling_type", high=len(POOLING) - 1)
    for name in ("conv_kernel", "inner_size", "state_size", "time_step_rank", "group_count"):
        keys.integer("{}.ssm." + name, 0, high=MAX_WIDTH)


def _check_rope(keys: Keys, shape: Geometry) -> None:
    dimensions = keys.integer("{}.rope.dimension_count", shape.key_length, high=MAX_WIDTH)
    if shape.key_length and (dimensions > shape.key_length or dimensions % 2):
        raise BadWeights(
            f"key {keys.name('{}.rope.dimension_count')} is {dimensions}: "
            f"it must be even and at most the head length {shape.key_length}"
        )
    if keys.architecture in _WHOLE_HEAD_ROTATES and dimensions != shape.key_length:
        raise BadWeights(
            f"key {keys.name('{}.rope.dimension_count')} is {dimensions}, "
            f"the head length is {shape.key_length}: they must be equal"
        )
    for name in ("freq_base", "scaling.factor", "scale_linear"):
        if keys.real("{}.rope." + name, 1.0) < 0:
            raise BadWeights(f"key {keys.name('{}.rope.' + name)} is negative")
    scaling = keys.text("{}.rope.scaling.type", "none")
    if scaling not in _SCALINGS:
        raise BadWeights(
            f"key {keys.name('{}.rope.scaling.type')} is {scaling!r}", hint=f"one of {', '.join(_SCALINGS)}"
        )


def _check_experts(keys: Keys, layers: int) -> None:
    count = keys.integer("{}.expert_count", 0, high=MAX_EXPERTS)
    used = max(keys.per_layer("{}.expert_used_count", layers, 0))
    groups = keys.integer("{}.expert_group_count", 0)
    if keys.architecture in ("hunyuan-dense", "hunyuan_vl") and count <= 1:
        return
    if used > count or (count > 0 and used == 0):
        raise BadWeights(f"{used} of {count} experts are used: {keys.name('{}.expert_used_count')} does not fit")
    if groups and groups >= max(count, 1):
        raise BadWeights(f"{groups} expert groups for {count} experts")
    if groups > 1:
        group_used = keys.integer("{}.expert_group_used_count", 0)
        if count % groups or not 0 < group_used < groups:
            raise BadWeights(f"{group_used} of {groups} expert groups are used, of {count} experts")


def check_templates(keys: Keys, named: Iterable[tuple[str, str]]) -> None:
    for name, text in (("tokenizer.chat_template", keys.text("tokenizer.chat_template")), *named):
        if len(text.encode()) > MAX_TEMPLATE:
            raise BadWeights(f"key {name} has {len(text.encode())} bytes, more than {MAX_TEMPLATE}")


def check_tensors(tensors: tuple[Tensor, ...], *, layers: int, vocabulary: int) -> None:
    """Check that types have kernels, layers exist, and every token has an embedding row."""
    if not tensors:
        raise BadWeights("the file holds no tensors: a vocabulary only", hint="take the file with the weights")
    for tensor in tensors:
        check_type(tensor)
        if tensor.name.startswith(_VISION):
            raise BadWeights(
                f"tensor {tensor.name} is part of a projector inside the model's own file",
                hint="llama.cpp reads projectors from files of their own: use a GGUF with a separate mmproj file",
            )
        if tensor.layer is not None and tensor.layer >= layers:
            raise BadWeights(f"tensor {tensor.name} belongs to layer {tensor.layer}, the model has {layers}")
        if tensor.offset % TENSOR_ALIGNMENT:
            raise BadWeights(
                f"tensor {tensor.name} begins at byte {tensor.offset}, not a multiple of {TENSOR_ALIGNMENT}, "
                "as a mapped file needs"
            )
        rows = tensor.elements // tensor.shape[0]
        if tensor.name == "token_embd.weight" and rows != vocabulary:
            raise BadWeights(f"tensor {tensor.name} has {rows} rows for a vocabulary of {vocabulary} tokens")


def check_type(tensor: Tensor) -> None:
    """Check that a weight or bias has a type with kernels, and that a vector is float32."""
    if not tensor.name.endswith((".weight", ".bias")):
        return
    if not BY_NAME[tensor.type].computes:
        raise BadWeights(f"tensor {tensor.name} is stored as {tensor.type}, which is not a type for weights")
    if len(tensor.shape) == 1 and tensor.type != "F32":
        raise BadWeights(f"tensor {tensor.name} is a vector stored as {tensor.type}; llama.cpp needs F32")
