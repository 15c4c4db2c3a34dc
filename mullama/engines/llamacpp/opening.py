"""How a context comes to be: its shape from the options, its adapters, its declared prefixes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.binding.context import MAX_SEQUENCES, NativeContext
from mullama.engines.llamacpp.binding.library import version
from mullama.engines.llamacpp.binding.model import NativeAdapter, NativeModel
from mullama.engines.llamacpp.context import Counters, TextContext, rows_wanted
from mullama.engines.llamacpp.prefixes import PrefixCache
from mullama.engines.llamacpp.prefixfile import PrefixFiles
from mullama.engines.llamacpp.prompts import prefix_tokens
from mullama.engines.llamacpp.vectors import VectorContext
from mullama.engines.llamacpp.vocabulary import Vocabulary
from mullama.errors import Refused, Unsupported

_IDLE_SEQUENCES = 64  # ended conversations whose cells may be kept, where that needs no memory of its own
_IDLE_STATES = 1  # the same, where every sequence needs memory of its own
_VECTOR_SEQUENCES = 64  # inputs in one decode

Threads = tuple[int, int]
Adapters = Sequence[tuple[NativeAdapter, float]]


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
    """A context for answers, its declared prefixes in memory."""
    if not model.has_decoder:
        raise Unsupported("this model gives vectors, not text", hint="task: embedding")
    size = options.size or model.train_context
    if len(options.prefixes) + options.parallel + 1 > MAX_SEQUENCES:
        raise Refused(f"parallel is {options.parallel}", hint=f"at most {MAX_SEQUENCES - 8}")
    cuttable = not model.recurrent and model.window == 0
    kept = len(options.prefixes) + (_IDLE_SEQUENCES if cuttable else _IDLE_STATES)
    kept = min(kept, MAX_SEQUENCES - options.parallel)
    states = options.parallel if cuttable else options.parallel + kept
    batch = max(options.batch, options.parallel)
    native = NativeContext(
        model,
        replace(options, batch=batch, ubatch=min(options.ubatch, batch), pooling=""),
        cells=size * options.parallel,
        sequences=states,
        outputs=max(rows_wanted(options), states),
        threads=threads[0],
        threads_batch=threads[1] or threads[0],
    )
    native.set_adapters(adapters)
    cache = PrefixCache(cells=native.cells, running=options.parallel, kept=kept, cuttable=cuttable)
    if not cuttable:
        options = replace(options, draft="")
    context = TextContext(native, cache, options, counters, time.monotonic)
    try:
        known, restored = _warm(context, vocabulary, options, size)
    except BaseException:
        context.close()
        raise
    return Opened(context=context, size=size, prefix_tokens=known, restored=restored)


def _warm(context: TextContext, vocabulary: Vocabulary, options: ContextOptions, size: int) -> tuple[int, bool]:
    """Have every declared prefix in memory: (tokens, whether all came from disk)."""
    files = PrefixFiles(options.state_dir, _shape(options)) if options.state_dir else None
    whole = not context.cache.cuttable
    known, restored = 0, bool(options.prefixes)
    for prefix in options.prefixes:
        tokens = prefix_tokens(prefix.text, vocabulary, whole=whole)[: size - 1]
        if not tokens:
            continue
        state = files.load(tokens) if files else None
        if state is None or not context.adopt(tokens, state):
            restored = False
            sequence = context.compute(tokens)
            if files:
                files.save(tokens, context.native.save(sequence))
        known += len(tokens)
    return known, restored and known > 0


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
    architecture = model.metadata("general.architecture")
    causal = model.has_decoder and model.metadata(f"{architecture}.attention.causal") != "false"
    trained = {"1": "mean", "2": "cls", "3": "last", "4": "rank"}
    pooling = options.pooling or trained.get(model.metadata(f"{architecture}.pooling_type"), "")
    pooling = pooling if pooling not in ("", "none") else ("last" if causal else "mean")
    size = options.size or model.train_context
    own_mean = causal and pooling == "mean"
    native = NativeContext(
        model,
        replace(
            options,
            embedding=True,
            batch=max(size, 1),
            ubatch=min(options.ubatch, size) if causal else size,
            pooling="none" if own_mean else pooling,  # type: ignore[arg-type]
        ),
        cells=size,
        sequences=_VECTOR_SEQUENCES if not model.recurrent else 1,
        outputs=0,
        threads=threads[0],
        threads_batch=threads[1] or threads[0],
    )
    native.set_adapters(adapters)
    sequences = 1 if model.recurrent else _VECTOR_SEQUENCES
    return VectorContext(native, pooling=pooling, sequences=sequences, batch=options.batch)
