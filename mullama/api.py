"""The Python API: weights and contexts as objects, without a server. See docs/python.md.

with Model.load("builtin:tiny") as model, Context(model) as context:
    print(context.generate("Once upon a time", max_tokens=32))
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self, get_args, overload

from mullama.chat.constraint import build
from mullama.chat.model_settings import settings_for
from mullama.chat.prompt import RAW
from mullama.chat.template import ChatInput, SpecialTexts
from mullama.chat.types import DEFAULT_SAMPLING, ResponseFormat, Role, Sampling, text_message
from mullama.engines import base
from mullama.errors import EngineFailed, Invalid, MullamaError, Unsupported
from mullama.plan.fit import as_made
from mullama.reconcile.machine import observe_machine
from mullama.runtime.worker.blocking import BlockingWorker, choice_of, files_here, refuse_too_big
from mullama.struct import replace
from mullama.weights.memory import CACHE_TYPES, ContextShape

__all__ = [
    "Answer",
    "Context",
    "ContextParams",
    "MemoryInfo",
    "Model",
    "ModelParams",
    "MullamaError",
    "Sampling",
    "TextStream",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParams:
    """How weights are loaded. Raises `Invalid` for a value outside its range."""

    n_gpu_layers: int = 0
    """Layers to put on the GPU; -1 puts all of them there."""
    use_mmap: bool = True
    """Map the file into memory instead of reading it."""
    use_mlock: bool = False
    """Lock the weights in main memory, so that they are never swapped out."""
    split_mode: Literal["none", "layer", "row"] = "layer"
    """How several GPUs share a model: by layers, by rows of each matrix, or not at all."""
    main_gpu: int = 0
    """Index of the GPU that holds everything that is not split."""
    tensor_split: tuple[float, ...] = ()
    """Relative share of each GPU, 0 or more; empty for equal shares."""
    use_extra_bufts: bool = True
    """Repack the weights into a layout that the CPU computes faster, where it has one."""

    def __post_init__(self) -> None:
        _require_integer("n_gpu_layers", self.n_gpu_layers, -1)
        _require_integer("main_gpu", self.main_gpu, 0)
        _require_choice("split_mode", self.split_mode, ("none", "layer", "row"))
        if not all(math.isfinite(share) and share >= 0 for share in self.tensor_split):
            raise Invalid("tensor_split must hold finite shares of 0 or more", field="tensor_split")

    @property
    def options(self) -> base.WeightsOptions:
        """The parameters as the engine takes them."""
        return base.WeightsOptions(
            gpu_layers=self.n_gpu_layers,
            split=self.split_mode,
            main_gpu=self.main_gpu,
            tensor_split=self.tensor_split,
            mmap=self.use_mmap,
            mlock=self.use_mlock,
            extra_buffers=self.use_extra_bufts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParams:
    """The size and the settings of a context. Raises `Invalid` for a value outside its range."""

    n_ctx: int = 0
    """Tokens that one request may use, prompt and answer together; 0 for the length the model was trained with."""
    n_batch: int = 512
    """Most tokens that one decode call takes."""
    n_ubatch: int = 512
    """Most tokens that are computed at once; a batch is cut into parts of this size."""
    n_seq_max: int = 1
    """Requests that run at the same time, each with `n_ctx` tokens."""
    n_threads: int = 0
    """CPU threads; 0 for every core that the process may use."""
    kv_cache_type: str = "f16"
    """Type of the cached keys and values: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0."""
    flash_attn: Literal["auto", "on", "off"] = "auto"
    """Flash attention; `auto` uses it where the backend supports it."""
    embeddings: bool = False
    """Compute embeddings instead of text."""
    pooling_type: Literal["", "none", "mean", "cls", "last", "rank"] = ""
    """How the embeddings of tokens become one vector; empty for the method that the model declares."""

    def __post_init__(self) -> None:
        for name, least in (("n_ctx", 0), ("n_threads", 0), ("n_batch", 1), ("n_ubatch", 1), ("n_seq_max", 1)):
            _require_integer(name, getattr(self, name), least)
        _require_choice("kv_cache_type", self.kv_cache_type, CACHE_TYPES)
        _require_choice("flash_attn", self.flash_attn, ("auto", "on", "off"))
        _require_choice("pooling_type", self.pooling_type, ("", "none", "mean", "cls", "last", "rank"))

    @property
    def options(self) -> base.ContextOptions:
        """The parameters as the engine takes them."""
        return replace(
            base.ContextOptions.of(self.shape),
            threads=self.n_threads,
            threads_batch=self.n_threads,
            embedding=self.embeddings,
            pooling=self.pooling_type,
        )

    @property
    def shape(self) -> ContextShape:
        """The parameters as the memory estimate takes them."""
        return ContextShape(
            size=self.n_ctx,
            parallel=self.n_seq_max,
            batch=self.n_batch,
            ubatch=min(self.n_ubatch, self.n_batch),
            kv_k=self.kv_cache_type,
            kv_v=self.kv_cache_type,
            flash=self.flash_attn,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryInfo:
    """The memory of a context and its weights, as llama.cpp allocated it."""

    model_size: int
    """Bytes of the weights, which all contexts of the model share."""
    kv_cache_size: int
    """Bytes of the key-value cache, which is allocated when the context opens."""
    compute_size: int
    """Bytes of the compute buffers."""
    token_count: int
    """Tokens whose state is in the cache now."""
    context_size: int
    """Tokens that one request may use."""
    total_allocated: int
    """Bytes of the weights, the cache and the compute buffers together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a completion ended, with its counts and times."""

    reason: str
    """`stop` at the model's end token, `stop_sequence` at one of the `stop` texts, `length` at `max_tokens`."""
    stop: str | None
    """The stop text that was generated, when `reason` is `stop_sequence`."""
    prompt_tokens: int
    """Tokens of the prompt, including cached ones."""
    cached_tokens: int
    """Tokens of the prompt whose state was in the cache."""
    completion_tokens: int
    """Tokens that were generated."""
    prompt_seconds: float
    """Seconds spent on the prompt."""
    decode_seconds: float
    """Seconds spent on the answer."""


class Model:
    """Loads weights into a child process and keeps them there until `close`. Contexts share the weights.

    Methods may be called from any thread. After `close`, and after the child process died, they raise `Invalid` and
    `EngineFailed`.
    """

    def __init__(self, source: str | os.PathLike[str], params: ModelParams | None = None) -> None:
        """Load weights and return when they are in memory.

        source: path of a GGUF file (any part of a split set), `builtin:NAME`, or any source of a manifest that is on
        this machine already; nothing is downloaded.

        Raises `NotFound` for a source that is not here, `BadWeights` for a file that must not reach llama.cpp,
        `Refused` when memory is short, and `EngineFailed` when loading crashed. All of them are `MullamaError`.
        """
        self.params = params or ModelParams()
        self._files = files_here(os.fspath(source), os.environ)
        refuse_too_big(self._files.facts, self.params.options, (), observe_machine())
        self._engine = BlockingWorker(choice_of(self._files, self.params.options))
        self._context_numbers = count(1)

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> Self:
        """Load weights with the default parameters. `Model(source)` describes `source` and the errors."""
        return cls(source)

    @classmethod
    def load_with_params(cls, source: str | os.PathLike[str], params: ModelParams) -> Self:
        """Load weights with these parameters. `Model(source, params)` describes `source` and the errors."""
        return cls(source, params)

    @property
    def n_vocab(self) -> int:
        """Tokens in the vocabulary."""
        return self._engine.facts.vocabulary

    @property
    def n_ctx_train(self) -> int:
        """Context length that the model was trained with, in tokens."""
        return self._engine.facts.train_context

    @property
    def n_embd(self) -> int:
        """Numbers in one embedding."""
        return self._engine.facts.embedding_length

    @property
    def n_layer(self) -> int:
        """Layers of the model."""
        return self._engine.facts.layers

    @property
    def n_params(self) -> int:
        """Parameters of the model."""
        return self._engine.facts.parameters

    @property
    def size(self) -> int:
        """Bytes of the weights in memory."""
        return self._engine.facts.weights_bytes

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer."""
        return self._engine.facts.end_tokens

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Return the token ids of a text.

        add_special: add the tokens that the model expects at the beginning or end of a text, such as BOS.
        parse_special: read control tokens in the text, such as `<|im_end|>`, as tokens and not as characters.
        """
        work = self._engine.worker.tokenize(text, add_special=add_special, parse_special=parse_special)
        return list(self._engine.call(work))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; bytes that are not valid UTF-8 become U+FFFD."""
        return self._engine.call(self._engine.worker.detokenize(tuple(tokens))).decode("utf-8", "replace")

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Return the prompt of a conversation, made with the chat template of the GGUF file.

        messages: mappings with exactly `role` (system, user, assistant or tool) and `content`, both strings.
        add_generation_prompt: end the prompt where the assistant's answer begins.

        Raises `Invalid` for a message of another form.
        """
        facts = self._engine.facts
        special = SpecialTexts(bos=facts.bos_text, eos=facts.eos_text)
        settings = settings_for("model", facts.template, special=special)
        conversation = tuple(_message(message, index) for index, message in enumerate(messages))
        chat = ChatInput(messages=conversation, generate=add_generation_prompt, now=time.time())
        return settings.template.render(chat).text

    def close(self) -> None:
        """End the child process and return its memory; every context of the model closes. May be called twice."""
        self._engine.close()

    dispose = close

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._engine.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TextStream(Iterator[str]):
    """Iterates over the pieces of an answer as the model generates them. `close` cancels the request.

    The iterator raises `EngineFailed` when the child process dies or the model is closed.
    """

    answer: Answer | None
    """How the completion ended, once the last piece has been read; None before, and after `close`."""

    def __init__(self, outputs: Iterator[base.Output]) -> None:
        self._outputs = outputs
        self.answer = None

    def __next__(self) -> str:
        for output in self._outputs:
            if isinstance(output, base.Piece) and output.text:
                return output.text
            if isinstance(output, base.Ended):
                self.answer = _answer(output)
        raise StopIteration

    def close(self) -> None:
        """Stop generating and end the iteration. May be called twice."""
        close: Callable[[], None] | None = getattr(self._outputs, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Context:
    """Opens one llama.cpp context over the weights of a model.

    Methods may be called from several threads; `n_seq_max` requests run at the same time, further ones wait. Each
    `generate` and `embed` is a request of its own. The beginning that a prompt shares with an earlier one is not
    computed again.
    """

    def __init__(self, model: Model, params: ContextParams | None = None) -> None:
        """Open the context and allocate its memory.

        Raises `Refused` when it does not fit into free memory and `Invalid` when the model is closed.
        """
        self.model, self.params = model, params or ContextParams()
        self._lock = threading.Lock()  # held while the context is opened or closed
        self._open = False
        if not model.closed and (header := model._files.facts):
            shape = as_made(self.params.shape, header, vectors=self.params.embeddings)
            refuse_too_big(header, model.params.options, (shape,), observe_machine())
        self._facts = self._open_new()

    def _open_new(self) -> base.ContextFacts:
        """Open a llama.cpp context under a name that the child process has not used yet."""
        self._name = f"context-{next(self.model._context_numbers)}"
        engine = self.model._engine
        facts = engine.call(engine.worker.open_context(self._name, self.params.options))
        self._open = True
        return facts

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int = 128,
        *,
        params: Sampling | None = None,
        stop: Sequence[str] = (),
        format: Literal["json"] | Mapping[str, Any] | None = None,
    ) -> str:
        """Return the complete answer as text. `generate_stream` describes the arguments and errors."""
        return "".join(self.generate_stream(prompt, max_tokens, params=params, stop=stop, format=format))

    def generate_stream(
        self,
        prompt: str | Sequence[int],
        max_tokens: int = 128,
        *,
        params: Sampling | None = None,
        stop: Sequence[str] = (),
        format: Literal["json"] | Mapping[str, Any] | None = None,
    ) -> TextStream:
        """Return an iterator over the pieces of the answer; generation begins at once.

        prompt: text, or token ids. In text, control tokens such as `<|im_end|>` are read as tokens.
        max_tokens: most tokens to generate, 1 or more.
        params: sampling; a field that is None has its default.
        stop: texts that end the answer; the answer does not contain them.
        format: `"json"` for any JSON value, or a JSON schema (a mapping) that the answer must satisfy.

        Raises `ContextOverflow` for a prompt longer than `n_ctx`, `Invalid` for an argument outside its range, and
        `Unsupported` in a context for embeddings. Errors of the prompt are raised when the first piece is read.
        """
        _require_integer("max_tokens", max_tokens, 1)
        engine = self._require_open()
        job = base.Generate(
            id=engine.worker.next_id(),
            context=self._name,
            prompt=prompt if isinstance(prompt, str) else tuple(prompt),
            sampling=(params or Sampling()).over(DEFAULT_SAMPLING),
            max_tokens=max_tokens,
            stop=tuple(stop),
            constraint=build(RAW, format=_format(format)).constraint,
        )
        return TextStream(engine.outputs(job))

    @overload
    def embed(self, text: str, *, normalize: bool = True) -> list[float]: ...  # type: ignore[overload-overlap]

    @overload
    def embed(self, text: Sequence[str], *, normalize: bool = True) -> list[list[float]]: ...

    def embed(self, text: str | Sequence[str], *, normalize: bool = True) -> list[float] | list[list[float]]:
        """Return the embedding of a text, or one embedding for each text of a sequence.

        An embedding is a list of `Model.n_embd` numbers; `normalize` scales it to length 1.

        In a context that was opened without `embeddings`, the first call opens a second llama.cpp context for them.

        Raises `ContextOverflow` for a text longer than `n_ctx`, and `Unsupported` with the pooling type "none".
        """
        engine = self._require_open()
        inputs = (text,) if isinstance(text, str) else tuple(text)
        if not inputs:
            return []
        job = base.Embed(
            id=engine.worker.next_id(), context=self._name, inputs=inputs, truncate=False, normalize=normalize
        )
        found = engine.call(engine.worker.embed(job))
        if found.rows:
            raise Unsupported(
                "this context gives a vector for each token, and embed returns one for each text",
                hint="open it with another pooling_type",
            )
        vectors = [list(vector) for vector in found.vectors]
        return vectors[0] if isinstance(text, str) else vectors

    def clear(self) -> None:
        """Drop all cached state by opening the context again; running requests are cancelled."""
        with self._lock:
            engine = self._require_open()
            self._open = False
            engine.call(engine.worker.close_context(self._name))
            self._facts = self._open_new()

    def memory_info(self) -> MemoryInfo:
        """Return the memory of the context and its weights, as llama.cpp allocated it."""
        engine, facts = self._require_open(), self._facts
        caches = engine.call(engine.worker.stats()).caches
        weights = engine.facts.weights_bytes
        return MemoryInfo(
            model_size=weights,
            kv_cache_size=facts.kv_bytes,
            compute_size=facts.compute_bytes,
            token_count=sum(cache.used for cache in caches if cache.context == self._name),
            context_size=facts.size,
            total_allocated=weights + facts.kv_bytes + facts.compute_bytes,
        )

    def close(self) -> None:
        """Cancel running requests and free the context; the model stays loaded. May be called twice."""
        with self._lock:
            if self._open and not self.model.closed:
                self._open = False
                engine = self.model._engine
                with suppress(EngineFailed):  # a child process that died has freed the context already
                    engine.call(engine.worker.close_context(self._name))

    dispose = close

    def _require_open(self) -> BlockingWorker:
        """Return the worker of the model; raise `Invalid` when the context or the model is closed."""
        if not self._open or self.model.closed:
            raise Invalid("the context is closed")
        return self.model._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _answer(ended: base.Ended) -> Answer:
    return Answer(
        reason=ended.reason,
        stop=ended.stop,
        prompt_tokens=ended.prompt_tokens,
        cached_tokens=ended.cached_tokens,
        completion_tokens=ended.completion_tokens,
        prompt_seconds=ended.prompt_seconds,
        decode_seconds=ended.decode_seconds,
    )


def _message(message: Mapping[str, str], index: int) -> Any:
    name = f"messages[{index}]"
    if set(message) != {"role", "content"} or not isinstance(message["content"], str):
        raise Invalid(f"{name} must have exactly role and content, both strings", field=name)
    role = message["role"]
    _require_choice(f"{name}.role", role, get_args(Role))
    return text_message(role, message["content"])  # type: ignore[arg-type]


def _format(format: Literal["json"] | Mapping[str, Any] | None) -> ResponseFormat | None:
    if format is None:
        return None
    if isinstance(format, Mapping):
        return ResponseFormat(kind="json_schema", schema=dict(format))
    if format != "json":
        raise Invalid(f"unknown format {format!r}", hint='use "json" or a JSON schema', field="format")
    return ResponseFormat(kind="json")


def _require_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise Invalid(f"{name} must be an integer of at least {least}, not {value!r}", field=name)


def _require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        hint = f"use one of {', '.join(repr(choice) for choice in choices)}"
        raise Invalid(f"unknown {name} {value!r}", hint=hint, field=name)
