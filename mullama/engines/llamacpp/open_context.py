"""Opens contexts: shape from the options, adapters, declared prefixes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.engines.base import ContextOptions, Prefix
from mullama.engines.llamacpp.batcher import Pace
from mullama.engines.llamacpp.binding.context import MAX_SEQUENCES, NativeContext
from mullama.engines.llamacpp.binding.library import version
from mullama.engines.llamacpp.binding.model import NativeAdapter, NativeModel
from mullama.engines.llamacpp.binding.paged_memory import can_page
from mullama.engines.llamacpp.cache.checkpoints import Checkpoints
from mullama.engines.llamacpp.cache.kept_states import KeptStates, StateFolder
from mullama.engines.llamacpp.cache.partial_states import PartialStates
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles
from mullama.engines.llamacpp.cache.prefix_tree import SHORTEST_SHARE, PrefixCache
from mullama.engines.llamacpp.cache.slots import Cells, SlotCache
from mullama.engines.llamacpp.context import Counters, TextContext
from mullama.engines.llamacpp.embeddings import VectorContext
from mullama.engines.llamacpp.prompt_tokens import prefix_tokens
from mullama.engines.llamacpp.speculation.draft_models import DraftModels
from mullama.engines.llamacpp.speculation.open import open_speculator
from mullama.engines.llamacpp.speculation.rollback import Rollback
from mullama.engines.llamacpp.vocabulary import LONG_BEGINNING, Vocabulary
from mullama.engines.observed_use import ObservedUse
from mullama.errors import Refused, Unsupported
from mullama.folders import is_own_folder
from mullama.struct import Struct, replace
from mullama.weights.memory import DRAFT_STATES, ROWS, draft_rows

if TYPE_CHECKING:
    from mullama.engines.llamacpp.media.encoder import MediaEncoder

_IDLE_SEQUENCES = 64  # ended conversations whose cells may be kept, where a sequence needs no memory of its own
_IDLE_CELLS = 4096  # of ended conversations, or the size of one request if that is larger
_IDLE_STATES = 1  # ended conversations, where every sequence needs memory of its own
_VECTOR_SEQUENCES = 64  # inputs in one decode
# Tokens that an encoder reads in one decode on the CPU. Each token is compared with all others of its batch, also with
# those of other inputs, so larger batches cost more: MiniLM's vector of 64 tokens takes 12 % more time in 512.
_ENCODER_BATCH = 256
_TRAINED_POOLING = {1: "mean", 2: "cls", 3: "last", 4: "rank"}

Adapters = Sequence[tuple[NativeAdapter, float]]
Threads = tuple[int, int]
"""Threads that decode single tokens, and threads that decode batches."""


def share_of(cores: int, rank: int, of: int) -> int:
    """Return the number of cores for the engine at `rank` of the `of` engines that compute now, at least 1."""
    return max(1, cores // of + (rank < cores % of))


class OpenedContext(Struct, frozen=True, kw_only=True):
    """A text context, with the facts that are known once it is open."""

    context: TextContext
    size: int
    """Tokens that one request may use."""
    pool: int
    """Tokens that all requests share, 0 for the worst case."""
    prefix_tokens: int
    """Tokens of declared prefixes."""
    restored: bool
    """All declared prefixes were restored from disk."""


def open_text_context(
    model: NativeModel,
    vocabulary: Vocabulary,
    options: ContextOptions,
    threads: Threads,
    adapters: Adapters,
    counters: Counters,
    *,
    pace: Pace,
    pool_threshold: int,
    drafters: DraftModels,
    encoder: MediaEncoder | None = None,
) -> OpenedContext:
    """Open a context for answers; restore its declared prefixes from disk. Raise `Refused` or `Unsupported`."""
    if not model.causal:
        raise Unsupported("this model computes vectors, not text", hint="task: embedding")
    size = options.size or model.train_context
    if len(options.prefixes) + options.parallel + 2 > MAX_SEQUENCES:
        raise Refused(f"parallel is {options.parallel}", hint=f"at most {MAX_SEQUENCES - 8}")
    cuttable = not model.recurrent and model.window == 0
    prefixes = declared(options.prefixes, vocabulary, size, cuttable=cuttable)
    room = _room_of(model, options, size, prefixes, encoder, cuttable=cuttable, pool_threshold=pool_threshold)
    native, divided = _open_native(model, options, room, threads)
    native.set_adapters(adapters)
    cache = _account_of(native, options, room, divided, encoder)
    rollback = Rollback(native, cache, range(divided.sequences, divided.sequences + room.spares))
    try:
        # Declared prefixes are held once, but the draft model reads them with the text of each request.
        read = room.scarce + (options.parallel - 1) * sum(map(len, prefixes)) if room.limited else 0
        speculator = open_speculator(native, options, rollback, drafters, cost=pace.cost, rows=room.guesses, most=read)
    except BaseException:
        native.close()
        raise
    ends = frozenset(vocabulary.ends)
    context = _kind_of(encoder)(
        native,
        cache,
        prefix_files(options, model),
        options,
        counters,
        time.monotonic,
        pace,
        PartialStates(native, cache, longest=size, ends=ends, token_seconds=lambda: pace.token_seconds),
        rows=max(ROWS, options.parallel) + room.guesses,
        speculator=speculator,
        adapters=tuple(adapter for adapter, _ in adapters),
        kept=_kept_states(options, model),
        pool=room.limited,
        use=ObservedUse(Path(options.use_file)) if options.use_file else None,
    )
    try:
        restored = context.prefixes.declare(prefixes)
    except BaseException:
        context.close()
        raise
    known = context.prefixes.tokens
    return OpenedContext(
        context=context, size=size, pool=cache.cells if room.limited else 0, prefix_tokens=known,
        restored=restored and known > 0,
    )  # fmt: skip


def _kind_of(encoder: MediaEncoder | None) -> Callable[..., TextContext]:
    """Return what makes the context."""
    if encoder is None:
        return TextContext
    from mullama.engines.llamacpp.media.context import MediaContext

    return MediaContext


def _cache_of(encoder: MediaEncoder | None) -> Callable[..., PrefixCache]:
    """Return what makes the account of its cells."""
    if encoder is None:
        return PrefixCache
    from mullama.engines.llamacpp.media.run_cache import RunCache

    return partial(RunCache, encoder.numbers)


class _Division(Struct, frozen=True, kw_only=True):
    """The cells of a context and its sequences."""

    cells: int
    sequences: int
    pool: bool
    """All sequences share the cells."""
    running: int
    """Sequences of requests, and one for a prefix that is being computed in a pool."""
    kept: int = 0
    """Sequences of ended conversations and declared prefixes."""
    paged: int = 0
    """The most cells in use at once, where other cells take no memory."""


class _Room(Struct, frozen=True, kw_only=True):
    """The room of a context: for its requests, its guesses, and in one decode."""

    size: int
    """Tokens that one request may use."""
    cuttable: bool
    """The memory of a sequence can be cut at any token."""
    scarce: int
    """Cells for all requests and the declared prefixes."""
    limited: bool
    """These cells are fewer than all requests may need."""
    divisions: tuple[_Division, ...]
    """In the order in which they are tried."""
    batch: int
    """Most tokens of one decode."""
    guesses: int
    """Rows of logits for guessed tokens."""
    spares: int
    """Sequences that keep states to which guesses return."""


def _room_of(
    model: NativeModel,
    options: ContextOptions,
    size: int,
    prefixes: Sequence[Sequence[int]],
    encoder: MediaEncoder | None,
    *,
    cuttable: bool,
    pool_threshold: int,
) -> _Room:
    """Decide on the cells of a context. prefixes: the declared ones as tokens."""
    declared_tokens = sum(map(len, prefixes))
    worst = size * options.parallel
    scarce = min(worst, max(size, options.pool) + declared_tokens) if options.pool else worst
    limited = scarce < worst and not model.cellless
    # A medium has many cells, and requests often share it, so they need one pool. Those of the package have few.
    many = options.projector is not None and options.projector.known is None
    shared = not cuttable or options.parallel == 1 or many or declared_tokens >= pool_threshold
    # Attention in a pool reads the mask of all cells, so slots are faster on the CPU, and cells in use can be limited.
    paged = limited and not shared and options.flash != "off" and not model.gpu_layers and can_page()
    one = _one_pool(scarce if limited else worst, options.parallel, len(prefixes), cuttable=cuttable)
    divisions: tuple[_Division, ...] = (one,)
    if not shared and (paged or not limited):
        slots = _slots(size, options.parallel, scarce if paged else 0)
        # The pool takes less address space than pages, which may be limited.
        divisions = (slots, one) if paged else (slots,)
    return _Room(
        size=size,
        cuttable=cuttable,
        scarce=scarce,
        limited=limited,
        divisions=divisions,
        batch=max(options.batch, options.parallel),
        guesses=draft_rows(options.draft.tokens, options.parallel, model.vocabulary) if options.draft else 0,
        spares=DRAFT_STATES if options.draft and model.recurrent else 0,
    )


def _open_native(
    model: NativeModel, options: ContextOptions, room: _Room, threads: Threads
) -> tuple[NativeContext, _Division]:
    """Return the native context and its division: the first one for which there is memory. Raise `Refused`."""
    bounded = replace(options, batch=room.batch, ubatch=min(options.ubatch, room.batch), pooling="")
    *others, last = room.divisions

    def opened(division: _Division) -> tuple[NativeContext, _Division]:
        sequences = division.sequences + room.spares
        native = NativeContext(
            model, bounded, cells=division.cells, sequences=sequences, outputs=max(ROWS, sequences) + room.guesses,
            threads=threads, pool=division.pool, paged=division.paged,
        )  # fmt: skip
        return native, division

    for division in others:
        with suppress(Refused):
            return opened(division)
    return opened(last)


def _account_of(
    native: NativeContext, options: ContextOptions, room: _Room, divided: _Division, encoder: MediaEncoder | None
) -> Cells:
    """Return the account of the cells of a context."""
    if not divided.pool:
        return SlotCache(size=native.cells // options.parallel, slots=options.parallel, cells=divided.paged)
    return _cache_of(encoder)(
        cells=native.cells,
        running=divided.running,
        kept=divided.kept,
        cuttable=room.cuttable,
        idle_cells=max(room.size, _IDLE_CELLS),
        checkpoints=Checkpoints(options.checkpoint_bytes),
        intact=native.complete,
        cellless=native.model.cellless,
    )


def _one_pool(cells: int, parallel: int, prefixes: int, *, cuttable: bool) -> _Division:
    """Return one pool of cells. prefixes: the number of declared ones."""
    running = parallel + 1
    kept = min(prefixes + (_IDLE_SEQUENCES if cuttable else _IDLE_STATES), MAX_SEQUENCES - running)
    # llama.cpp shares cells between sequences without memory for them, but allocates a recurrent state for each.
    sequences = running if cuttable else running + kept
    return _Division(cells=cells, sequences=sequences, pool=True, running=running, kept=kept)


def _slots(size: int, parallel: int, most: int) -> _Division:
    """Return cells of its own for each request. most: those in use at once, 0 for all."""
    cells = _padded(size) * parallel
    return _Division(cells=cells, sequences=parallel, pool=False, running=parallel, paged=min(most, cells))


def _padded(size: int) -> int:
    """Round up as llama.cpp does: llama_context pads n_ctx_seq to 256."""
    return -(-size // 256) * 256


def declared(prefixes: Sequence[Prefix], vocabulary: Vocabulary, size: int, *, cuttable: bool) -> list[list[int]]:
    """Return declared prefixes as tokens, each once, none longer than a prompt may be.

    The vocabulary keeps the tokens of long ones.
    """
    found: list[list[int]] = []
    for prefix in prefixes:
        if len(prefix.text) >= LONG_BEGINNING and not (prefix.joint and prefix.joint in prefix.text):
            vocabulary.keep_beginning(prefix.text)
        tokens = prefix_tokens(prefix, vocabulary, fixed=not cuttable)[: size - 2]
        if len(tokens) >= SHORTEST_SHARE and tokens not in found:
            found.append(tokens)
    return found


def prefix_files(options: ContextOptions, model: NativeModel) -> PrefixFiles | None:
    """Return the files that keep computed prefixes of such a context between runs, None without a folder."""
    if not options.state_dir or not options.prefix_bytes:
        return None
    return PrefixFiles(
        options.state_dir, _shape(options), most_bytes=options.prefix_bytes, valid=model.has_files_as_loaded
    )


def _kept_states(options: ContextOptions, model: NativeModel) -> KeptStates | None:
    """Return the files that keep conversations beyond the context, None without any."""
    folders = []
    if options.ram_dir and options.ram_bytes and is_own_folder(options.ram_dir):
        folders.append(StateFolder(options.ram_dir, options.ram_bytes, model.has_files_as_loaded))
    if options.state_dir and options.keep_bytes:
        folder = str(Path(options.state_dir) / "conversations")
        folders.append(StateFolder(folder, options.keep_bytes, model.has_files_as_loaded))
    if not folders:
        return None
    unscaled = tuple(replace(adapter, scale=1.0) for adapter in options.adapters)  # each state has its own scales
    return KeptStates(folders, _shape(replace(options, adapters=unscaled)))


def _shape(options: ContextOptions) -> str:
    """Return everything, besides the tokens, that a computed prefix depends on."""
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
    model: NativeModel, options: ContextOptions, threads: Threads, adapters: Adapters, counters: Counters
) -> VectorContext:
    """Open a context for vectors, or for scores if the pooling is `rank`.

    An encoder needs a complete input in one physical batch. A decoder can read it in parts, but llama.cpp pools the
    mean only within one physical batch, so `VectorContext` computes that mean itself.
    """
    pooling = options.pooling or _TRAINED_POOLING.get(model.pooling) or ("last" if model.causal else "mean")
    size = options.size or model.train_context
    own_mean = model.causal and pooling == "mean"
    native = NativeContext(
        model,
        replace(
            options,
            embedding=True,
            batch=max(size, 1),
            ubatch=min(options.ubatch, size) if model.causal else size,
            pooling="none" if own_mean else pooling,
        ),
        cells=size,
        sequences=_VECTOR_SEQUENCES if not model.recurrent else 1,
        outputs=0,
        threads=threads,
    )
    native.set_adapters(adapters)
    sequences = 1 if model.recurrent else _VECTOR_SEQUENCES
    batch = options.batch if model.causal or model.gpu_layers else min(options.batch, _ENCODER_BATCH)
    return VectorContext(native, counters, pooling=pooling, sequences=sequences, batch=batch)
