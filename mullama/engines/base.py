"""The engine seam: plain values only, below the chat template; tokens or text in, pieces of text out.

An engine lives in a child process that holds one set of weights. It never sees a message, a tool or a dialect.
One thread drives it: `submit` and `cancel` only take note, all the work happens in `step`, which runs one
decode for every running request and returns what came of it. So batching is the engine's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mullama.chat.types import Constraint, Sampling, TokenLogprob
from mullama.errors import Kind
from mullama.weights.memory import ContextShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter file and how strongly it applies."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsOptions:
    """How weights are loaded; a change of any of these loads again.

    gpu_layers: how many layers leave the CPU, -1 for all. split: none, layer or row.
    tensor_split: share of each device, empty for the engine's choice. extra_buffers False avoids
    repacked weight buffers, which crash on some virtual machines.
    """

    gpu_layers: int = 0
    split: Literal["none", "layer", "row"] = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    mmap: bool = True
    mlock: bool = False
    extra_buffers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A prompt beginning that is worth computing before the first request; `text` may hold control tokens."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOptions:
    """One context over loaded weights.

    size: tokens that one request may use, 0 for the model's own. parallel: requests that decode together;
    memory is for parallel x size. batch/ubatch: tokens per decode call, logical and physical.
    kv_k, kv_v: cache types f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0. flash: auto, on or off.
    threads: 0 for as many as the process may use. pooling: "" as the model says.
    state_dir: where computed prefixes are kept between runs, None for nowhere; `state_key` names the
    weights, template and shape that they belong to.
    """

    size: int = 0
    parallel: int = 1
    batch: int = 512
    ubatch: int = 512
    kv_k: str = "f16"
    kv_v: str = "f16"
    flash: Literal["auto", "on", "off"] = "auto"
    threads: int = 0
    threads_batch: int = 0
    embedding: bool = False
    pooling: Literal["", "none", "mean", "cls", "last", "rank"] = ""
    rope_scaling: Literal["", "none", "linear", "yarn"] = ""
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    adapters: tuple[Adapter, ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    draft: Literal["", "prompt_lookup"] = ""
    state_dir: str | None = None
    state_key: str = ""

    @classmethod
    def of(cls, shape: ContextShape) -> ContextOptions:
        """Return the options of a context of this shape, all others at their defaults."""
        return cls(
            size=shape.size,
            parallel=shape.parallel,
            batch=shape.batch,
            ubatch=shape.ubatch,
            kv_k=shape.kv_k,
            kv_v=shape.kv_v,
            flash=shape.flash,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the engine learnt when it loaded the weights. Memory is in bytes; tokens by id."""

    name: str
    version: str
    vocabulary: int
    train_context: int
    embedding_length: int
    layers: int
    parameters: int
    weights_bytes: int
    template: str
    bos_text: str
    eos_text: str
    add_bos: bool
    end_tokens: tuple[int, ...] = ()
    fim: bool = False
    can_embed: bool = True
    can_rank: bool = False
    can_share: bool = True
    devices: tuple[str, ...] = ()
    gpu_layers: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextFacts:
    """A context as it came to be; sizes in bytes."""

    name: str
    size: int
    parallel: int
    kv_bytes: int
    compute_bytes: int
    seconds: float
    prefix_tokens: int = 0
    prefix_restored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """One choice of one request.

    prompt: text (control tokens in it are recognised) or token ids. suffix asks to fill in the middle.
    max_tokens: None for as many as the context allows. logprobs: None or the number of alternatives.
    every field of `sampling` is set. echo: report the prompt's own tokens and logprobs too.
    cache False computes the whole prompt anew and keeps nothing of it. Jobs with the same prompt (the choices of
    one request) compute it once.
    """

    id: int
    context: str
    prompt: str | tuple[int, ...]
    sampling: Sampling
    suffix: str | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    logprobs: int | None = None
    ignore_eos: bool = False
    echo: bool = False
    cache: bool = True
    want_tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Vectors for inputs; with `pairs` (query, document) scores of the rank head instead."""

    id: int
    context: str
    inputs: tuple[str | tuple[int, ...], ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    truncate: bool = True
    normalize: bool = True


Job = Generate | Embed


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The prompt was tokenised and has a sequence; nothing of it has to be computed yet."""

    id: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """How many prompt tokens have been computed so far."""

    id: int
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text that is certain by now: whole characters, and no beginning of a stop string at its end.

    count: tokens behind it. logprobs: one entry per token when asked. echo True: a piece of the prompt.
    """

    id: int
    text: str
    count: int
    logprobs: tuple[TokenLogprob, ...] = ()
    echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a generation. stop is the string that was met, when reason is stop_sequence.

    tokens: prompt and answer as ids, only when the job asked for them. Seconds of wall clock.
    """

    id: int
    reason: Literal["stop", "stop_sequence", "length", "cancelled"]
    stop: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0
    draft_tokens: int = 0
    draft_accepted: int = 0
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One vector per input, or one score per pair as a vector of length 1."""

    id: int
    vectors: tuple[tuple[float, ...], ...]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """This job ended in an error; the others go on. numbers: facts that the error's type needs, such as
    prompt_tokens and context_size of an overflow."""

    id: int
    kind: Kind
    message: str
    hint: str = ""
    numbers: tuple[tuple[str, int], ...] = ()


Output = Begun | Prefilled | Piece | Ended | Embedded | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counters since load, and what is held now; held: cells in use by the name of the context."""

    steps: int = 0
    decode_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    running: int = 0
    waiting: int = 0
    cells_used: int = 0
    cells_total: int = 0
    sequences_busy: int = 0
    contexts: tuple[str, ...] = ()
    held: tuple[tuple[str, int], ...] = ()


MOMENT = 0.014
"""Seconds that text may wait for more: a frame of a screen, and less than anybody sees."""


class Engine(Protocol):
    """One loaded set of weights with any number of contexts. Single-threaded, except `interrupt` and `expect`."""

    @property
    def facts(self) -> EngineFacts: ...

    def open_context(self, name: str, options: ContextOptions) -> ContextFacts:
        """A new context beside those that run; raises `Refused` when it does not fit."""
        ...

    def retune_context(self, name: str, *, threads: int, scales: tuple[float, ...]) -> None:
        """What can change on a live context: thread count and adapter scales."""
        ...

    def share_cores(self, rank: int, of: int) -> None:
        """How many engines of this machine compute at the moment, and which of them, from 0 up, this one is."""
        ...

    def declare_prefixes(self, name: str, prefixes: tuple[Prefix, ...]) -> None:
        """Replace the declared prefixes of a live context; `step` computes the new ones when idle.

        A changed system prompt is live: it must not need a new context.
        """
        ...

    def close_context(self, name: str) -> None:
        """Cancel what still runs in it and free it; closing twice does nothing."""
        ...

    def submit(self, job: Job) -> None:
        """Take note of a job; every failure is reported by `step` as `Failed`."""
        ...

    def cancel(self, id: int) -> None:
        """End a job at the next step, with `Ended(reason="cancelled")`; unknown ids are ignored."""
        ...

    def interrupt(self) -> None:
        """From any thread: make a `step` that is busy with prompts return early (see `cancel`)."""
        ...

    def expect(self, context: str) -> None:
        """From any thread: a prompt for this context is coming, which a `step` that has just begun may take along."""
        ...

    def step(self) -> Sequence[Output]:
        """One decode for every running job of one context; empty when there is nothing to do."""
        ...

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        ...

    @property
    def brisk(self) -> bool:
        """Whether the next step goes on with answers and is expected to take less than a `MOMENT`."""
        ...

    @property
    def gathering(self) -> float:
        """Seconds that the next step may still wait for other jobs to take part in it: little of what it will take."""
        ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]: ...

    def detokenize(self, tokens: Sequence[int]) -> bytes: ...

    def pieces(self, tokens: Sequence[int]) -> tuple[bytes, ...]: ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None:
        """Free everything; closing twice does nothing."""
        ...


LoadProgress = Callable[[float], bool]
"""Told the share done, 0 to 1; returning False stops the load."""


class LoadEngine(Protocol):
    def __call__(self, files: tuple[str, ...], options: WeightsOptions, progress: LoadProgress) -> Engine:
        """Load weights (all parts of a split set, in order); raises `EngineFailed` or `BadWeights`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engine runs a file: the name in the table `engines.ENGINES`."""

    name: str
    files: tuple[str, ...]
    options: WeightsOptions = field(default_factory=WeightsOptions)
