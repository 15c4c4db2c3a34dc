"""How many bytes a set of weights and its contexts need, per device: arithmetic over facts, no measuring.

Sources of the formulas, all in llama.cpp: layers to devices, `load_tensors` (the input stays in main memory,
the output counts as one more layer and leaves first); cache sizes, `llama_kv_cache` (cells x elements of the
layer x bytes of the type), its sliding part, `llama_kv_cache_iswa` (window x sequences + micro-batch cells,
in steps of 256), `llama_memory_recurrent` (float32 state per sequence). The compute buffer has no closed form;
`compute_bytes` says what it counts, and the tests compare it with measured loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from mullama.errors import Invalid
from mullama.struct import Struct, replace
from mullama.weights.experts import in_main_memory
from mullama.weights.facts import WeightFacts
from mullama.weights.tensors import BY_NAME

Split = Literal["none", "layer", "row", "tensor"]
"""The way in which several devices share the weights."""

CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_STEP: Final = 256
_RUNTIME: Final = 40 * 1024**2
"""The memory of a worker process without weights and contexts: interpreter and libraries. Measured: 41 MB."""


class WeightsPlacement(Struct, frozen=True, kw_only=True):
    """The placement of weights on devices."""

    gpu_layers: int = 0
    """The number of the `layers + 1` parts on GPUs, from the output down; -1 for all."""
    devices: int = 1
    """GPUs in use."""
    split: Split = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    """The share of each device; empty for equal ones."""
    experts: int = 0
    """The layers whose routed experts stay in main memory, the first of those that have any; -1 for all."""


ASIDE_SHARE = 4
"""Divides the bytes of a pool: the most bytes of the states of requests that are set aside from it."""
_MOST_CHECKPOINTS, _MOST_CHECKPOINT_BYTES = 16, 256 * 1024**2
ROWS = 32  # rows of logits of one decode; at least one for each sequence
DRAFT_STATES = 2
"""Recurrent states that are saved for a draft; more requests at once seldom gain."""
_MOST_DRAFT_ROWS, _DRAFT_BYTES, _FEWEST_DRAFT_ROWS = 128, 32 * 1024**2, 8


def draft_rows(tokens: int, parallel: int, vocabulary: int) -> int:
    """Return the rows of logits that guesses of all requests together may have: few for a large vocabulary."""
    if tokens == 0:
        return 0
    affordable = max(_FEWEST_DRAFT_ROWS, _DRAFT_BYTES // (4 * max(1, vocabulary)))
    return min(tokens * parallel, _MOST_DRAFT_ROWS, affordable)


class ContextShape(Struct, frozen=True, kw_only=True):
    """The dimensions of one context."""

    size: int = 0
    """Tokens of one request, 0 for the trained context."""
    parallel: int = 1
    """Requests at once."""
    pool: int = 0
    """Tokens that all requests together may have, 0 for `parallel` x `size`."""
    batch: int = 512
    ubatch: int = 512
    kv_k: str = "f16"
    kv_v: str = "f16"
    flash: Literal["auto", "on", "off"] = "auto"
    sequences: int = 0
    """Sequences of running requests and kept prefixes, 0 for `parallel`.

    Each has a window of its own in sliding layers and a state of its own in recurrent ones.
    """
    draft_tokens: int = 0
    """Most guesses of one request and decode."""
    outputs: int = 0
    """Rows of logits of one decode, 0 for one row for each token of a micro-batch."""
    checkpoints: int = 0
    """Most bytes of the checkpoints in main memory, see `checkpoint_bytes`."""

    @property
    def states(self) -> int:
        """The number of sequences of the engine."""
        return max(1, self.sequences or self.parallel)


class DeviceNeed(Struct, frozen=True, kw_only=True):
    """Bytes on one GPU."""

    weights: int = 0
    kv: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute


class MemoryNeed(Struct, frozen=True, kw_only=True):
    """Bytes in main memory and on each GPU."""

    weights_ram: int
    kv_ram: int
    compute_ram: int
    gpus: tuple[DeviceNeed, ...] = ()
    contexts: tuple[int, ...] = ()
    """Bytes of cache and compute buffers of each context on all devices."""

    @property
    def weights(self) -> int:
        return self.weights_ram + self.weights_gpu

    @property
    def weights_gpu(self) -> int:
        return sum(gpu.weights for gpu in self.gpus)

    @property
    def kv(self) -> int:
        return self.kv_ram + sum(gpu.kv for gpu in self.gpus)

    @property
    def compute(self) -> int:
        return self.compute_ram + sum(gpu.compute for gpu in self.gpus)

    @property
    def ram(self) -> int:
        """Main memory, with that of the worker process."""
        return self.weights_ram + self.kv_ram + self.compute_ram + _RUNTIME

    @property
    def gpu(self) -> int:
        return sum(gpu.total for gpu in self.gpus)

    @property
    def total(self) -> int:
        return self.ram + self.gpu


def need(facts: WeightFacts, shape: WeightsPlacement, contexts: Sequence[ContextShape]) -> MemoryNeed:
    """Return the memory of loaded weights with open contexts.

    The cache of a layer is on the device of the layer, checkpoints are in main memory. The compute buffer of a context
    is counted once for each device with a layer, and once in main memory.
    """
    places = layer_devices(facts, shape)
    weights = _weights(facts, shape, places)
    computes_here = None in places or any(places[layer] is not None for layer in in_main_memory(facts, shape.experts))
    ram = [weights[0], 0, 0]
    gpus = [[size, 0, 0] for size in weights[1:]]
    sizes = []
    for context in contexts:
        caches, compute = layer_bytes(facts, context), compute_bytes(facts, context)
        for layer, size in enumerate(caches):
            (ram if places[layer] is None else gpus[places[layer] or 0])[1] += size
        used = {place for place in places if place is not None}
        for device in used:
            gpus[device][2] += compute
        here = compute if not used or computes_here else _host_buffers(facts, context)
        copied = context.checkpoints + (sum(caches) // ASIDE_SHARE if context.pool else 0)
        ram[1] += copied
        ram[2] += here
        sizes.append(sum(caches) + copied + here + compute * len(used))
    return MemoryNeed(
        weights_ram=ram[0],
        kv_ram=ram[1],
        compute_ram=ram[2],
        gpus=tuple(DeviceNeed(weights=w, kv=kv, compute=c) for w, kv, c in gpus),
        contexts=tuple(sizes),
    )


def layer_devices(facts: WeightFacts, shape: WeightsPlacement) -> tuple[int | None, ...]:
    """Return the GPU of each layer and, last, of the output; None is main memory."""
    count = facts.layers + 1
    wanted = count if shape.gpu_layers < 0 else min(shape.gpu_layers, count)
    if wanted == 0 or shape.devices == 0:
        return (None,) * count
    first = count - wanted
    borders = _borders(shape)
    return tuple(None if place < first else _device(shape, borders, (place - first) / wanted) for place in range(count))


def _borders(shape: WeightsPlacement) -> tuple[float, ...]:
    """Return the cumulated shares of the devices; the last one is 1."""
    shares = shape.tensor_split[: shape.devices] or (1.0,) * shape.devices
    total = sum(shares)
    if total <= 0 or min(shares) < 0:
        raise Invalid("gpu.tensor_split must hold shares of 0 and more, one at least greater than 0")
    found, so_far = [], 0.0
    for share in shares:
        so_far += share
        found.append(so_far / total)
    return tuple(found)


def _device(shape: WeightsPlacement, borders: tuple[float, ...], position: float) -> int:
    if shape.split == "none":
        return shape.main_gpu
    return next((device for device, border in enumerate(borders) if position < border), len(borders) - 1)


def _weights(facts: WeightFacts, shape: WeightsPlacement, places: tuple[int | None, ...]) -> list[int]:
    """Return the bytes in main memory, then those of each device. Tied embeddings count twice with a GPU output."""
    sizes = [0] * (1 + max(shape.devices, 1))
    sizes[0] += facts.input_bytes
    output = facts.output_bytes
    if facts.tied and places[-1] is not None:
        output += facts.input_bytes
    for place, size in zip(places, (*(layer.weights for layer in facts.per_layer), output), strict=True):
        sizes[0 if place is None else place + 1] += size
    for layer in in_main_memory(facts, shape.experts):
        place, size = places[layer], facts.per_layer[layer].experts
        if place is not None:
            sizes[place + 1] -= size
            sizes[0] += size
    return sizes


def context_cells(context: ContextShape, train_context: int) -> int:
    """Return the cells of a unified cache: one for each token of the pool or of all requests, in steps of 256."""
    return _padded(context.pool or (context.size or train_context) * max(1, context.parallel))


def sliding_cells(facts: WeightFacts, context: ContextShape) -> int:
    """Return the cells of layers with a window: one window for each sequence, and a micro-batch."""
    cells = context_cells(context, facts.train_context)
    return _padded(min(cells, facts.window * context.states + context.ubatch))


def layer_bytes(facts: WeightFacts, context: ContextShape) -> tuple[int, ...]:
    """Return the bytes of cache and state of each layer."""
    cells, sliding = context_cells(context, facts.train_context), sliding_cells(facts, context)
    return tuple(
        _cache(layer.key + layer.index, context.kv_k, sliding if layer.slides else cells)
        + _cache(layer.value, context.kv_v, sliding if layer.slides else cells)
        + layer.state * 4 * context.states
        for layer in facts.per_layer
    )


def checkpoint_bytes(facts: WeightFacts, context: ContextShape) -> int:
    """Return the most bytes of the checkpoints of a context, 0 where the cache can be cut at any token.

    A checkpoint has the windows and the recurrent states of one sequence. Sixteen are enough for the turns of a few
    conversations. A large model gets fewer, but one for each request at once and one more.
    """
    window = min(facts.window, context.size or facts.train_context)
    one = sum(
        layer.state * 4
        + (_cache(layer.key + layer.index, context.kv_k, window) if layer.slides else 0)
        + (_cache(layer.value, context.kv_v, window) if layer.slides else 0)
        for layer in facts.per_layer
    )
    return max((max(1, context.parallel) + 1) * one, min(_MOST_CHECKPOINTS * one, _MOST_CHECKPOINT_BYTES))


def _cache(elements: int, kind: str, cells: int) -> int:
    stored = BY_NAME.get(kind.upper())
    if stored is None or kind not in CACHE_TYPES:
        raise Invalid(f"{kind!r} is not a cache type", hint=f"one of {', '.join(CACHE_TYPES)}")
    rows = -(-elements // stored.block) * stored.block
    return stored.size(rows) * cells


def compute_bytes(facts: WeightFacts, context: ContextShape) -> int:
    """Return an estimate of one compute buffer: the largest set of live tensors in the graph of one micro-batch.

    Three sets are compared: the output (float32 logits and two hidden states); the feed-forward rows (three, with four
    hidden states, or ten widths for a recurrent layer) with the attention mask; and without flash attention the scores
    of all heads over all cells, with a float32 mask and six hidden states. One row of logits is added for each
    sequence. The estimate is within a few percent of measured loads (see the tests).
    """
    tokens = max(1, min(context.ubatch, context.batch))
    outputs = min(context.outputs or tokens, tokens)
    seen = _cells_seen(facts, context, tokens)
    width, heads = facts.embedding_length, max(facts.heads, default=0)
    forward = max(*facts.feed_forward, facts.experts.feed_forward * facts.experts.used, 0)
    mask = tokens * sum(seen) * (4 if context.flash == "off" else 2)
    output = 4 * (outputs * facts.vocabulary + 2 * tokens * width)
    recurrent = 10 * width if facts.recurrent else 0
    block = 4 * tokens * (4 * width + max(3 * forward, recurrent)) + mask
    scores = 0 if context.flash != "off" else 4 * tokens * (max(seen, default=0) * heads + 6 * width) + mask
    kept = 4 * facts.vocabulary * context.states
    return max(output, block, scores) + kept


def _cells_seen(facts: WeightFacts, context: ContextShape, tokens: int) -> list[int]:
    """Return the lengths of the attention masks: one for global layers, one for layers with a window."""
    if not facts.cached:
        return [tokens]
    attending = [layer for layer in facts.per_layer if layer.key]
    found = [context_cells(context, facts.train_context)] if any(not layer.slides for layer in attending) else []
    return [*found, sliding_cells(facts, context)] if any(layer.slides for layer in attending) else found


def _host_buffers(facts: WeightFacts, context: ContextShape) -> int:
    """Return the main memory of a context with all layers on GPUs: inputs, mask and the kept logits."""
    tokens = max(1, min(context.ubatch, context.batch))
    cells = context_cells(context, facts.train_context)
    return 4 * tokens * (facts.embedding_length + cells) + 4 * facts.vocabulary * context.states


def largest_context(facts: WeightFacts, shape: WeightsPlacement, context: ContextShape, ram: int) -> int:
    """Return the largest context size that needs at most `ram` bytes of main memory.

    The result is a multiple of 256, at most the trained context; 0 when no size fits. A pool keeps its share of the
    worst case, and has one request at least.
    """
    worst = (context.size or facts.train_context) * max(1, context.parallel)
    low, high = 0, max(1, facts.train_context // _STEP)
    while low < high:
        middle = (low + high + 1) // 2
        size = middle * _STEP
        pool = max(size, context.pool * size * max(1, context.parallel) // worst) if context.pool else 0
        tried = replace(context, size=size, pool=pool)
        low, high = (middle, high) if need(facts, shape, (tried,)).ram <= ram else (low, middle - 1)
    return low * _STEP


def _padded(cells: int) -> int:
    return -(-cells // _STEP) * _STEP
