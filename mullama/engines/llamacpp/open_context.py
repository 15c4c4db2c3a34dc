"""How a context comes to be: its shape from the options, its adapters, its declared prefixes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mullama.engines.base import ContextOptions, Prefix
from mullama.engines.llamacpp.binding.context import MAX_SEQUENCES, NativeContext
from mullama.engines.llamacpp.binding.library import version
from mullama.engines.llamacpp.binding.model import NativeAdapter, NativeModel
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles
from mullama.engines.llamacpp.cache.prefix_tree import SHORTEST_SHARE, PrefixCache
from mullama.engines.llamacpp.cache.slots import Cells, SlotCache
from mullama.engines.llamacpp.context import Counters, TextContext, rows_wanted
from mullama.engines.llamacpp.embeddings import VectorContext
from mullama.engines.llamacpp.prompt_tokens import prefix_tokens
from mullama.engines.llamacpp.vocabulary import Vocabulary
from mullama.errors import Refused, Unsupported

_IDLE_SEQUENCES = 64  # ended conversations whose cells may be kept, where that needs no memory of its own
_WORTH_A_POOL = 256  # tokens of declared beginnings: see `slots` for the other way
_IDLE_CELLS = 4096  # of ended conversations, or as many as one request may use
_IDLE_STATES = 1  # the same, where every sequence needs memory of its own
_VECTOR_SEQUENCES = 64  # inputs in one decode
_TRAINED_POOLING = {1: "mean", 2: "cls", 3: "last", 4: "rank"}

Adapters = Sequence[tuple[NativeAdapter, float]]
Threads = tuple[int, int]
"""Threads that decode single tokens, and threads that decode batches."""


def part_of(cores: int, rank: int, of: int) -> int:
    """Return the number of cores for the engine at `rank` of the `of` engines that compute now, at least 1."""
    return max(1, cores // of + (rank < cores % of))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    context: TextContext
    size: int
    prefix_tokens: int
    restored: bool


def open_text_context(
    model: NativeModel,
    vocabulary: Vocabulary,
    options: ContextOptions,
    threads: Threads,
    adapters: Adapters,
    counters: Counters,
) -> Opened:
    """A context for answers; its declared beginnings are in memory where they were on disk."""
    if not model.causal:
        raise Unsupported("this model gives vectors, not text", hint="task: embedding")
    size = options.size or model.train_context
    if len(options.prefixes) + options.parallel + 2 > MAX_SEQUENCES:
        raise Refused(f"parallel is {options.parallel}", hint=f"at most {MAX_SEQUENCES - 8}")
    cuttable = not model.recurrent and model.window == 0
    beginnings = declared(options.prefixes, vocabulary, size, cuttable=cuttable)
    pool = not cuttable or options.parallel == 1 or sum(map(len, beginnings)) >= _WORTH_A_POOL
    slots = options.parallel + 1 if pool else options.parallel  # one for a beginning that is being computed
    kept = min(len(beginnings) + (_IDLE_SEQUENCES if cuttable else _IDLE_STATES), MAX_SEQUENCES - slots)
    states = slots if cuttable else slots + kept
    cells = size * options.parallel if pool else _padded(size) * options.parallel
    batch = max(options.batch, options.parallel)
    native = NativeContext(
        model,
        replace(options, batch=batch, ubatch=min(options.ubatch, batch), pooling=""),
        cells=cells,
        sequences=states,
        outputs=max(rows_wanted(options), states),
        threads=threads,
        pool=pool,
    )
    native.set_adapters(adapters)
    if not cuttable:
        options = replace(options, draft="")
    cache: Cells = SlotCache(size=native.cells // options.parallel, slots=options.parallel)
    if pool:
        idle = max(size, _IDLE_CELLS)
        cache = PrefixCache(cells=native.cells, running=slots, kept=kept, cuttable=cuttable, idle_cells=idle)
    context = TextContext(native, cache, prefix_files(options), options, counters, time.monotonic)
    try:
        restored = context.warmth.declare(beginnings)
    except BaseException:
        context.close()
        raise
    known = sum(map(len, beginnings)) if pool else 0
    return Opened(context=context, size=size, prefix_tokens=known, restored=restored and known > 0)


def _padded(size: int) -> int:
    """Cells as llama.cpp rounds them."""
    return -(-size // 256) * 256


def declared(prefixes: Sequence[Prefix], vocabulary: Vocabulary, size: int, *, cuttable: bool) -> list[list[int]]:
    """Declared beginnings as tokens, each once, none longer than a prompt may be."""
    found: list[list[int]] = []
    for prefix in prefixes:
        tokens = prefix_tokens(prefix.text, vocabulary, whole=not cuttable)[: size - 2]
        if len(tokens) >= SHORTEST_SHARE and tokens not in found:
            found.append(tokens)
    return found


def prefix_files(options: ContextOptions) -> PrefixFiles | None:
    """Where computed beginnings of such a context are kept between runs."""
    return PrefixFiles(options.state_dir, _shape(options)) if options.state_dir else None


def _shape(options: ContextOptions) -> str:
    """Everything besides the tokens that a computed prefix depends on."""
    parts = (
        options.state_key,
        version(),
        options.kv_k,
        options.kv_v,
        options.flash,
        options.rope_scaling,
        options.rope_freq_base,
        options.rope_freq_scale,
        tuple((a.path, a.scale) for a in options.adapters),
    )
    return repr(parts)


def open_vector_context(
    model: NativeModel, options: ContextOptions, threads: Threads, adapters: Adapters
) -> VectorContext:
    """A context for vectors, or for scores where the pooling is `rank`.

    An encoder must see a whole input in one physical batch; a decoder may see it in parts, except that llama.cpp
    takes a mean only within one, so that mean is taken by us.
    """
    pooling = options.pooling or _TRAINED_POOLING.get(model.pooling, "")
    pooling = pooling if pooling not in ("", "none") else ("last" if model.causal else "mean")
    size = options.size or model.train_context
    own_mean = model.causal and pooling == "mean"
    native = NativeContext(
        model,
        replace(
            options,
            embedding=True,
            batch=max(size, 1),
            ubatch=min(options.ubatch, size) if model.causal else size,
            pooling="none" if own_mean else pooling,  # type: ignore[arg-type]
        ),
        cells=size,
        sequences=_VECTOR_SEQUENCES if not model.recurrent else 1,
        outputs=0,
        threads=threads,
    )
    native.set_adapters(adapters)
    sequences = 1 if model.recurrent else _VECTOR_SEQUENCES
    return VectorContext(native, pooling=pooling, sequences=sequences, batch=options.batch)
