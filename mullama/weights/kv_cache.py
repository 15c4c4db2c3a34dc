"""The memory of each layer between tokens: cache, window and recurrent state, by the rules of llama.cpp.

Source of the rules: llama.cpp's `llama_hparams` (n_embd_k_gqa, n_embd_v_gqa, n_embd_r, n_embd_s), the patterns
that each of its models sets, and the layer filters of `create_memory`.
"""

from __future__ import annotations

from mullama.struct import Struct
from mullama.weights import architectures as known
from mullama.weights.gguf import Array
from mullama.weights.keys import Keys


class Geometry(Struct, frozen=True, kw_only=True):
    """The dimensions of a model. A tuple has one number for each layer."""

    layers: int
    trunk: int
    """Layers without those for drafting."""
    width: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    feed_forward: tuple[int, ...]
    key_length: int
    value_length: int


class LayerCache(Struct, frozen=True, kw_only=True):
    """The cache and state of one layer, in elements."""

    key: int = 0
    """Per token."""
    value: int = 0
    """Per token."""
    index: int = 0
    """Of a sparse-attention index, per token."""
    slides: bool = False
    """True if the window bounds the cache."""
    state: int = 0
    """Of recurrent state, per sequence."""


def layer_caches(keys: Keys, shape: Geometry) -> tuple[LayerCache, ...]:
    """Return the cache of each layer, in order."""
    if keys.architecture in known.NO_CACHE:
        return (LayerCache(),) * shape.layers
    slides, recurrent = _sliding(keys, shape), _recurrent(keys, shape)
    own = _layers_with_cache(keys, shape)
    state = _state(keys, shape)
    return tuple(
        _layer(keys, shape, layer, slides[layer], recurrent[layer], state if recurrent[layer] else 0)
        if layer < own
        else LayerCache()
        for layer in range(shape.layers)
    )


def window(keys: Keys) -> int:
    """Return the sliding window in tokens, 0 for none."""
    architecture = keys.architecture
    if architecture not in known.SLIDING and architecture not in known.SLIDING_BY_FILE:
        return 0
    return keys.integer("{}.attention.sliding_window", known.SLIDING_ASSUMED.get(architecture, 0))


def _layer(keys: Keys, shape: Geometry, layer: int, slides: bool, recurrent: bool, state: int) -> LayerCache:
    attends = not recurrent or keys.architecture in known.BOTH_IN_EVERY_LAYER
    heads = shape.kv_heads[layer]
    if not attends or heads == 0:
        return LayerCache(state=state)
    kind = "_swa" if slides else ""
    key = keys.integer("{}.attention.key_length" + kind, shape.key_length)
    value = keys.integer("{}.attention.value_length" + kind, shape.value_length)
    latent = keys.has("{}.attention.key_length_mla") and keys.has("{}.attention.value_length_mla")
    return LayerCache(
        key=key * heads,
        value=0 if latent else value * heads,
        index=keys.integer("{}.attention.indexer.key_length", 0),
        slides=slides,
        state=state,
    )


def _layers_with_cache(keys: Keys, shape: Geometry) -> int:
    shared = keys.integer("{}.attention.shared_kv_layers", 0, high=shape.layers)
    first_shared = known.SHARED_FROM.get(keys.architecture, shape.layers - shared)
    return min(shape.trunk, first_shared)


def _sliding(keys: Keys, shape: Geometry) -> tuple[bool, ...]:
    if window(keys) == 0 or (keys.architecture == "exaone4" and shape.layers != 64):
        return (False,) * shape.layers
    pattern = keys.get("{}.attention.sliding_window_pattern")
    if isinstance(pattern, Array):
        flags = keys.per_layer("{}.attention.sliding_window_pattern", shape.layers, 0)
        return tuple(bool(flag) for flag in flags)
    usual = known.SLIDING.get(keys.architecture, 0)
    group = keys.integer("{}.attention.sliding_window_pattern", abs(usual))
    return tuple(_slides(layer, group, usual < 0) for layer in range(shape.layers))


def _slides(layer: int, group: int, first_is_global: bool) -> bool:
    if group == 0:
        return True
    return layer % group != 0 if first_is_global else layer % group < group - 1


def _recurrent(keys: Keys, shape: Geometry) -> tuple[bool, ...]:
    architecture, layers = keys.architecture, range(shape.layers)
    if architecture in known.RECURRENT or architecture in known.BOTH_IN_EVERY_LAYER:
        return (True,) * shape.layers
    if architecture not in known.HYBRID:
        return (False,) * shape.layers
    if architecture in known.EVERY_NTH_ATTENDS:
        if keys.has("{}.attention.recurrent_layers"):
            flags = keys.per_layer("{}.attention.recurrent_layers", shape.layers, 0)
            return tuple(bool(flag) for flag in flags)
        every = keys.integer("{}.full_attention_interval", 4, low=1)
        return tuple((layer + 1) % every != 0 for layer in layers)
    only_without_ff = architecture.startswith("nemotron")
    return tuple(shape.kv_heads[layer] == 0 and not (only_without_ff and shape.feed_forward[layer]) for layer in layers)


def _state(keys: Keys, shape: Geometry) -> int:
    """Return the elements of recurrent state per layer and sequence; they are stored as float32."""
    if head := keys.integer("{}.wkv.head_size", 0):
        return shape.width * (keys.integer("{}.token_shift_count", 2) + head)
    if cache := keys.integer("{}.shortconv.l_cache", 0):
        return shape.width * (cache - 1)
    kernel = keys.integer("{}.ssm.conv_kernel", 0)
    if head := keys.integer("{}.kda.head_dim", 0):
        inner = shape.heads[0] * head
        return 3 * (kernel - 1 if kernel else 3) * inner + head * inner
    if keys.architecture == "minimax-01":
        return shape.key_length * shape.key_length * shape.heads[0]
    inner, size = keys.integer("{}.ssm.inner_size", 0), keys.integer("{}.ssm.state_size", 0)
    groups = keys.integer("{}.ssm.group_count", 0)
    return max(0, kernel - 1) * (inner + 2 * groups * size) + size * inner
