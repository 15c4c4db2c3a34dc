"""The engine seam: plain values only, below the chat template. Tokens or text in, pieces of text out.

An engine lives in a child process that holds one set of weights. It never sees a message, a tool or a dialect.
One thread drives it: `submit` and `cancel` only record their argument, and `step` does all the work. A step runs one
decode for every running request and returns the outputs of it, so batching is internal to the engine.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.types import (
    ANY_DRAFT,
    LONGEST_DRAFT,
    Constraint,
    DraftLimits,
    PromptInput,
    ReasoningLimit,
    Sampling,
    TokenLogprob,
)
from mullama.errors import Internal, Invalid, Kind, MullamaError
from mullama.struct import Struct, field
from mullama.weights.memory import ContextShape, Split


class Adapter(Struct, frozen=True, kw_only=True):
    """A LoRA adapter file."""

    path: str
    digest: str = ""
    """SHA-256 of the file, "" if unknown. A file that was replaced has another one, and is loaded again."""
    scale: float = 1.0
    """Factor for the adapter's effect; 0 has none."""


class LayerFit(Struct, frozen=True, kw_only=True):
    """The bounds of automatic layers. They define no weights: models with other bounds may share loaded ones."""

    shape: ContextShape
    """The context that is opened over the weights."""
    rooms: tuple[int, ...] = ()
    """Bytes that may be used on each device, 0 for its free memory."""
    beside: tuple[int, ...] = ()
    """Bytes on each device that a draft model and a projector take beside the layers."""


class WeightsOptions(Struct, frozen=True, kw_only=True):
    """How weights are loaded. A change of any of these loads them again."""

    gpu_layers: int = 0
    """Layers on devices, -1 for all."""
    devices: tuple[str, ...] = ()
    """Devices in use, each as `plan.observed.Device.address`; empty for all devices of this machine."""
    split: Split = "layer"
    """How several devices share the layers."""
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    """Share of each device, in any unit; empty for the engine's choice."""
    in_main_memory: tuple[str, ...] = ()
    """Expressions for the names of tensors that stay in main memory, whatever device has their layer."""
    fit: LayerFit | None = None
    """Set for automatic layers: what must fit into the devices beside the weights."""
    mmap: bool = True
    mlock: bool = False
    drafting: bool = False
    """Load the layers that predict further tokens (nextn)."""
    extra_buffers: bool = True
    """Use repacked weight buffers. They are faster, but crash on some virtual machines."""


class Prefix(Struct, frozen=True, kw_only=True):
    """A declared prompt prefix: the engine computes it before the first request."""

    text: str
    """The prefix as the template renders it, control tokens included."""
    joint: str = ""
    """As `Generate.joint`."""


class DraftOptions(Struct, frozen=True, kw_only=True):
    """How tokens are guessed ahead, for the model to verify in one decode."""

    kind: Literal["ngram", "model", "mtp"]
    """From earlier tokens of the text, by a smaller model, or by the model's own layers for the purpose (nextn)."""
    files: tuple[str, ...] = ()
    """The GGUF files of a draft model."""
    digest: str = ""
    """Of these files, "" if unknown. Files that were replaced have another one, and are loaded again."""
    automatic: bool = False
    """The kind was not asked for: where `mtp` is not possible, guesses come from the text."""
    tokens: int = LONGEST_DRAFT
    """Most guesses of one request and decode. Fewer are made where fewer pay."""
    min_probability: float = 0.0
    """Guesses end before the first token with a lower probability."""
    until_parallel: int = 0
    """No guesses beside more running requests than this; 0 decides by measured durations of decodes."""


class MediaFacts(Struct, frozen=True, kw_only=True):
    """The abilities of a projector."""

    vision: bool
    audio: bool


class Projector(Struct, frozen=True, kw_only=True):
    """The file that turns media into the vectors that weights read in place of tokens (mmproj)."""

    path: str
    digest: str = ""
    """SHA-256 of the file, "" if unknown."""
    gpu: bool = True
    """Encode on a device if the machine has one."""
    cache_bytes: int = 256 * 2**20
    """Most memory for encoded media that later requests may repeat."""
    known: MediaFacts | None = None
    """Set for a file that is known to load, such as one of the package: it is loaded with its first medium."""


class ContextOptions(Struct, frozen=True, kw_only=True):
    """One context over loaded weights."""

    size: int = 0
    """Tokens that one request may use, 0 for the model's training context."""
    parallel: int = 1
    """Requests that decode together."""
    pool: int = 0
    """Tokens that all requests together may have in the cache, beside those of declared prefixes; 0 for the worst case,
    `parallel` x `size`. When they run out, requests are set aside and resumed."""
    pool_auto: bool = False
    """`pool` was chosen by what requests really use. Another choice makes no other context."""
    use_file: str | None = None
    """File that keeps the most tokens of all requests at once, for the next choice of `pool`; None to keep none."""
    batch: int = 512
    """Tokens in one decode call."""
    ubatch: int = 512
    """Tokens that are computed at once; larger batches are split."""
    kv_k: str = "f16"
    """Type of the cached keys: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0."""
    kv_v: str = "f16"
    """Type of the cached values, as `kv_k`."""
    flash: Literal["auto", "on", "off"] = "auto"
    """Flash attention."""
    threads: int = 0
    """Threads for decodes of single tokens, 0 for as many as the process may use."""
    threads_batch: int = 0
    """Threads for decodes of prompts, 0 for `threads`."""
    embedding: bool = False
    """The context computes vectors instead of text."""
    pooling: Literal["", "none", "mean", "cls", "last", "rank"] = ""
    """How token vectors become one vector; "" for the model's own way."""
    rope_scaling: Literal["", "none", "linear", "yarn"] = ""
    """Position scaling; "" for the model's own."""
    rope_freq_base: float = 0.0
    """0 for the model's own."""
    rope_freq_scale: float = 0.0
    """0 for the model's own."""
    checkpoint_bytes: int = 256 * 2**20
    """Most memory for the checkpoints of a model whose memory cannot be cut: recurrent states and sliding windows."""
    adapters: tuple[Adapter, ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    draft: DraftOptions | None = None
    projector: Projector | None = None
    """Set for a context that reads media. Contexts with the same projector share it."""
    state_dir: str | None = None
    """Folder that keeps computed prefixes between runs, None to keep none."""
    prefix_bytes: int = 4 * 2**30
    """Bytes on disk for computed prefixes, 0 to keep none."""
    keep_bytes: int = 0
    """Bytes on disk for the states of conversations when the context closes, 0 to keep none."""
    ram_dir: str | None = None
    """Folder of a file system in memory, for the states of conversations when the context closes."""
    ram_bytes: int = 0
    """Bytes of such states in `ram_dir`, 0 to keep none."""
    state_key: str = ""
    """Identifies weights, template and shape; a kept prefix with another key is not used."""

    @classmethod
    def of(cls, shape: ContextShape) -> ContextOptions:
        """Return the options of a context of this shape, all others at their defaults."""
        return cls(
            size=shape.size,
            parallel=shape.parallel,
            pool=shape.pool,
            batch=shape.batch,
            ubatch=shape.ubatch,
            kv_k=shape.kv_k,
            kv_v=shape.kv_v,
            flash=shape.flash,
        )


class DeviceUse(Struct, frozen=True, kw_only=True):
    """A part of weights or of a context on one device."""

    device: str
    """As in `WeightsOptions.devices`."""
    bytes: int
    layers: int = 0
    """Layers of the weights on it, with the output as one; 0 for a context."""


class EngineFacts(Struct, frozen=True, kw_only=True):
    """Properties of the loaded weights, as the engine reports them."""

    name: str
    """The engine's name in `engines.ENGINES`."""
    version: str
    """The engine's own version."""
    vocabulary: int
    """Number of tokens in the vocabulary."""
    train_context: int
    """Tokens."""
    embedding_length: int
    layers: int
    parameters: int
    weights_bytes: int
    """Memory of the weights, in bytes."""
    template: str
    """The chat template in the file, "" without one."""
    bos_text: str
    eos_text: str
    add_bos: bool
    """Prompts begin with the BOS token."""
    end_tokens: tuple[int, ...] = ()
    """Ids of the tokens that end an answer."""
    fim: bool = False
    """The vocabulary has the tokens to fill in the middle."""
    can_embed: bool = True
    can_rank: bool = False
    can_share: bool = True
    """Sequences can share any prefix, because memory can be cut at any token."""
    devices: tuple[str, ...] = ()
    """Names of compute devices other than the CPU."""
    gpu_layers: int = 0
    """Layers on devices, with the output as one."""
    placed: tuple[DeviceUse, ...] = ()
    """The devices with weights."""
    warnings: tuple[str, ...] = ()


class ContextFacts(Struct, frozen=True, kw_only=True):
    """Properties of an open context."""

    name: str
    size: int
    """Tokens that one request may use."""
    parallel: int
    pool: int = 0
    """Tokens of the cache that all requests share, 0 where it has the worst case."""
    kv_bytes: int
    """Memory of the cache, in bytes."""
    compute_bytes: int
    """Memory of compute and output buffers, in bytes."""
    seconds: float
    """Time that opening took."""
    prefix_tokens: int = 0
    """Tokens of declared prefixes that requests can share."""
    prefix_restored: bool = False
    """All declared prefixes were restored from `state_dir`."""
    placed: tuple[DeviceUse, ...] = ()
    """The devices with parts of the cache and the compute buffers."""
    media: MediaFacts | None = None
    """The abilities of the projector, None without one."""
    engine: EngineFacts | None = None
    """The properties of the weights, if they were loaded again for the context: with fewer layers on the devices."""


class Prompt(Struct, frozen=True, kw_only=True):
    """A prompt with its media, and the context that reads it."""

    context: str
    """Name of the context."""
    prompt: PromptInput
    """Text, in which control tokens are recognised, or token ids, or both in any order."""
    joint: str = ""
    """A character of the text that is not part of the prompt: it stands inside texts of control tokens that are plain
    text. "" for a text without one."""
    marker: str = ""
    """A character that stands for each medium in the text, and for nothing else. "" for a prompt without media."""
    media: tuple[Medium, ...] = ()
    """The media of the prompt, in the order of their markers."""
    media_limits: MediaLimits = MediaLimits()


class Generate(Prompt, frozen=True, kw_only=True):
    """A job: one answer (one choice of one request). Jobs with the same prompt compute it once."""

    id: int
    sampling: Sampling
    """Every field is set."""
    suffix: str | None = None
    """Text after the answer, for models that fill in the middle."""
    max_tokens: int | None = None
    """Most tokens of the answer, None for as many as the context holds."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer and are not part of it."""
    constraint: Constraint | None = None
    reasoning: ReasoningLimit | None = None
    """The bound on the reasoning, None for none."""
    logprobs: int | None = None
    """Number of alternatives for each token, None for no logprobs."""
    post_sampling: bool = False
    """Logprobs are of the last draw, after all samplers; alternatives that it could not draw are left out."""
    ignore_eos: bool = False
    """End tokens are never chosen."""
    echo: bool = False
    """Report the prompt's own tokens, with logprobs if asked for."""
    scales: tuple[float, ...] | None = None
    """The scale of each adapter of the context, in order; None for the scales of the context."""
    owner: str = ""
    """The key that sent the request: a conversation from disk is shared with jobs of its own key."""
    cache: bool = True
    """Share prefixes with other jobs; False computes the complete prompt and keeps nothing."""
    draft: DraftLimits = ANY_DRAFT
    want_tokens: bool = False
    """Report the ids of prompt and answer at the end."""
    details: bool = False
    """Report the token ids and the times of each piece."""
    progress: bool = False
    """Report the progress of the prompt to its end, also for a short one."""
    want_prompt: bool = False
    """Report the text of the prompt at the beginning."""


class Embed(Struct, frozen=True, kw_only=True):
    """A job: vectors of inputs, or scores of pairs."""

    id: int
    context: str
    """Name of the context."""
    inputs: tuple[PromptInput, ...] = ()
    """Texts, token ids, or both in any order."""
    pairs: tuple[tuple[str, str], ...] = ()
    """(query, document) pairs to score with the rank head, in place of inputs."""
    ranked: bool = False
    """The inputs are the tokens of pairs, which `prepare` has made."""
    truncate: bool = True
    """Cut inputs that are too long; False fails the job."""
    normalize: bool = True
    """Scale vectors to length 1."""


Job = Generate | Embed


class Begun(Struct, frozen=True, kw_only=True):
    """The prompt is tokenised and has a sequence. None of it needs to be computed yet."""

    id: int
    prompt_tokens: int
    cached_tokens: int
    """Tokens of the prompt that were in memory."""
    prompt: str = ""
    """The prompt as the model reads it, with control tokens, if the job asks for it."""


class Prefilled(Struct, frozen=True, kw_only=True):
    """Progress of a prompt. Only a job with `progress` reports its end."""

    id: int
    done: int
    """Tokens computed so far."""
    total: int
    """Tokens of the prompt."""
    seconds: float = 0.0
    """Wall-clock time since the job's begin."""


class PieceDetails(Struct, frozen=True, kw_only=True):
    """The tokens of a piece, and the times until it was complete."""

    tokens: tuple[int, ...]
    prompt_seconds: float
    """As `Ended.prompt_seconds`."""
    decode_seconds: float
    """As `Ended.decode_seconds`, until now."""


class Piece(Struct, frozen=True, kw_only=True, gc=False):
    """Final text: complete characters that are not the beginning of a stop string."""

    id: int
    text: str
    count: int
    """Tokens of this piece."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One entry for each token, if the job asks for them."""
    echo: bool = False
    """The piece belongs to the prompt."""
    details: PieceDetails | None = None
    """If the job asks for them."""


class Ended(Struct, frozen=True, kw_only=True):
    """The end of an answer."""

    id: int
    reason: Literal["stop", "stop_sequence", "length", "cancelled"]
    stop: str | None = None
    """The stop string that was found, for the reason `stop_sequence`."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prompt_seconds: float = 0.0
    """Wall-clock time from the job's begin to its first token."""
    decode_seconds: float = 0.0
    """Wall-clock time from the first token to the end."""
    draft_tokens: int = 0
    """Guessed tokens."""
    draft_accepted: int = 0
    """Guessed tokens that the model would have chosen."""
    tokens: tuple[int, ...] = ()
    """Ids of prompt and answer, if the job asks for them."""
    held_tokens: int = 0
    """Tokens of prompt and answer in memory."""
    drafts: int = 0
    """Decodes that verified guessed tokens."""
    draft_accepted_at: tuple[int, ...] = ()
    """`draft_accepted` by the position of the guess, from the first."""
    engine_decodes: int = 0
    """Decodes of the engine since its load, of all requests."""
    engine_requests: int = 0
    """Sum over these decodes of the requests in each."""


class Embedded(Struct, frozen=True, kw_only=True):
    """The result of an `Embed` job."""

    id: int
    vectors: tuple[tuple[float, ...], ...]
    """One vector for each input, or one score for each pair as a vector of length 1."""
    rows: tuple[int, ...] = ()
    """Vectors of each input, where the pooling is `none`: one for each token, never scaled. Empty for one each."""
    tokens: int
    """Tokens of all inputs."""
    engine_decodes: int = 0
    """As `Ended.engine_decodes`."""
    engine_requests: int = 0
    """As `Ended.engine_requests`."""


class Failed(Struct, frozen=True, kw_only=True):
    """An error ended this job. Other jobs continue."""

    id: int
    kind: Kind
    message: str
    hint: str = ""
    numbers: tuple[tuple[str, int], ...] = ()
    """Named numbers of the error's type, such as `prompt_tokens` and `context_size` of an overflow."""
    field: str = ""
    """The part of the job that is wrong: `format` for its constraint, "" if it is not known."""

    @classmethod
    def of(cls, id: int, error: Exception) -> Failed:
        """Return the failure of a job; an error that is not a `MullamaError` is a bug, and is printed."""
        if not isinstance(error, MullamaError):
            traceback.print_exception(error)
            error = Internal(f"the engine failed at this request: {type(error).__name__}: {error}"[:300])
        names = ("prompt_tokens", "context_size", "index")
        numbers = tuple((n, v) for n in names if (v := getattr(error, n, None)) is not None)
        wrong = (error.field or "") if isinstance(error, Invalid) else ""
        return cls(id=id, kind=error.kind, message=error.message, hint=error.hint, numbers=numbers, field=wrong)


Output = Begun | Prefilled | Piece | Ended | Embedded | Failed


class CheckpointStats(Struct, frozen=True, kw_only=True):
    """The states of one context's sequences that are kept in main memory, see `ContextOptions.checkpoint_bytes`."""

    context: str
    count: int
    bytes: int
    most_bytes: int
    restored: int
    """Prompts that continued from one, since the context was opened."""


class PoolUse(Struct, frozen=True, kw_only=True):
    """The pool of one context now, and counts since it was opened."""

    context: str
    """Name of the context."""
    size: int
    """Tokens."""
    used: int
    """Tokens in memory, with those of conversations and prefixes that are kept for later requests."""
    set_aside: int
    """Requests that wait for room after they began."""
    set_asides: int
    """Number of times that a request was set aside."""
    resumes: int
    """Number of times that one was resumed."""


class CachedSequence(Struct, frozen=True, kw_only=True):
    """The tokens of one sequence that a context has in memory."""

    use: Literal["request", "prefix", "conversation"]
    """A running request, a declared prefix, or an ended request that a later one may continue."""
    tokens: int


class CacheUse(Struct, frozen=True, kw_only=True):
    """The cells of one context and their content now."""

    context: str
    """Name of the context."""
    cells: int
    used: int
    """Cells in use. Sequences may share cells, so it may be less than the sum of their tokens."""
    sequences: tuple[CachedSequence, ...] = ()
    """Largest first."""


class EngineStats(Struct, frozen=True, kw_only=True):
    """Counters since load, and what is in use now."""

    steps: int = 0
    """Decodes."""
    decode_seconds: float = 0.0
    prompt_tokens: int = 0
    """Computed tokens of prompts."""
    cached_tokens: int = 0
    """Tokens of prompts that were in memory."""
    completion_tokens: int = 0
    running: int = 0
    waiting: int = 0
    cells_used: int = 0
    """Cells (tokens) of all caches that are in use."""
    cells_total: int = 0
    pools: tuple[PoolUse, ...] = ()
    """Of the contexts whose cells are fewer than all requests may need."""
    sequences_busy: int = 0
    contexts: tuple[str, ...] = ()
    checkpoints: tuple[CheckpointStats, ...] = ()
    """Of each context whose memory cannot be cut."""
    caches: tuple[CacheUse, ...] = ()
    """Of each context for text."""


COALESCE_SECONDS = 0.014
"""Longest delay to combine work or text: less than a frame of a 60 Hz screen (17 ms), so it cannot be seen."""


class Engine(Protocol):
    """One loaded set of weights with any number of contexts.

    Not thread-safe, except `interrupt` and `announce_prompt`.
    """

    @property
    def facts(self) -> EngineFacts: ...

    def open_context(self, name: str, options: ContextOptions) -> ContextFacts:
        """Open another context; raise `Refused` when it does not fit."""
        ...

    def retune_context(self, name: str, *, threads: int, scales: tuple[float, ...]) -> None:
        """Change the thread count and the adapter scales of an open context. Jobs that were submitted keep theirs."""
        ...

    def share_cores(self, rank: int, of: int) -> None:
        """Limit threads to a share of the cores: this engine is number `rank`, from 0, of `of` that compute now."""
        ...

    def declare_prefixes(self, name: str, prefixes: tuple[Prefix, ...]) -> int:
        """Replace the declared prefixes of an open context; `step` computes the new ones when idle.

        Returns their tokens, as `ContextFacts.prefix_tokens`.

        A changed system prompt is live: it must not need a new context.
        """
        ...

    def close_context(self, name: str) -> None:
        """Cancel its jobs and free it. Closing twice does nothing."""
        ...

    def prepare(self, job: Job) -> Job:
        """Return the job with its texts as the token ids that `submit` would make of them; raise what makes it fail.

        Media are decoded and encoded. Thread-safe: long texts are tokenized, and media are encoded, beside the steps.
        """
        ...

    def count_tokens(self, question: Prompt) -> int:
        """Return the tokens of a prompt. Media are decoded, but not encoded. Errors: as for `prepare`. Thread-safe."""
        ...

    def submit(self, job: Job) -> None:
        """Queue a job. `step` reports every failure as `Failed`."""
        ...

    def cancel(self, id: int) -> None:
        """End a job at the next step with `Ended(reason="cancelled")`. Unknown ids are ignored."""
        ...

    def interrupt(self) -> None:
        """Make a `step` that computes prompts return early, so that a `cancel` takes effect. Thread-safe."""
        ...

    def announce_prompt(self, context: str) -> None:
        """Announce a prompt for this context; a `step` that has just begun may restart to include it. Thread-safe."""
        ...

    def step(self) -> Sequence[Output]:
        """Run one decode for every running job of one context; return nothing when there is nothing to do."""
        ...

    @property
    def busy(self) -> bool:
        """True while `step` has anything to do."""
        ...

    @property
    def remark(self) -> str:
        """A sentence about what slows the engine down now, "" for nothing. Read by another thread."""
        ...

    @property
    def next_step_is_fast(self) -> bool:
        """True if the next step only continues answers and should take less than `COALESCE_SECONDS`."""
        ...

    @property
    def batch_delay(self) -> float:
        """Seconds that the next step may be delayed to include more jobs; a small part of its duration."""
        ...

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, joint: str | None = None
    ) -> tuple[int, ...]:
        """Return token ids. `add_special` adds BOS and EOS as the model wants, `parse_special` recognises control
        tokens in the text. Raise `Invalid` for text with lone surrogates.

        joint: the text is a prompt, and this is its `Generate.joint`; the tokens are those of `Generate.prompt`.
        """
        ...

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes of tokens, which need not be complete characters; raise `Invalid` for unknown ids."""
        ...

    def pieces(self, tokens: Sequence[int]) -> tuple[bytes, ...]:
        """Return the bytes of each token; raise `Invalid` for unknown ids."""
        ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None:
        """Free everything. Closing twice does nothing."""
        ...


LoadProgress = Callable[[float], bool]
"""Called with the share that is loaded, 0 to 1; a result of False stops the load."""


class LoadEngine(Protocol):
    """The function of each engine that loads weights."""

    def __call__(
        self,
        files: tuple[str, ...],
        options: WeightsOptions,
        progress: LoadProgress,
        *,
        log: Callable[[str], None] | None = None,
    ) -> Engine:
        """Load weights (all parts of a split set, in order); raise `EngineFailed` or `BadWeights`.

        log: receives the lines of the engine's log from now on, from any thread.
        """
        ...


class EngineChoice(Struct, frozen=True, kw_only=True):
    """The engine that runs a file."""

    name: str
    """A name in `engines.ENGINES`."""
    files: tuple[str, ...]
    """Paths of all parts, in order."""
    options: WeightsOptions = field(default_factory=WeightsOptions)
