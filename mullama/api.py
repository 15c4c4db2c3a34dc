"""The Python face: weights and contexts as objects, without a server. See docs/python.md.

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
from mullama.chat.types import DEFAULT_SAMPLING, ResponseFormat, Role, Sampling, say
from mullama.engines.base import ContextFacts, ContextOptions, Embed, Ended, Generate, Output, Piece, WeightsOptions
from mullama.errors import EngineFailed, Invalid, MullamaError
from mullama.plan.fit import as_made
from mullama.reconcile.machine import observe_machine
from mullama.runtime.worker.blocking import BlockingWorker, choice_of, files_here, refuse_too_big
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
    """How weights are loaded.

    n_gpu_layers: how many layers leave main memory, -1 for all. split_mode: none, layer or row.
    tensor_split: each GPU's share, empty for equal ones. use_extra_bufts: repacked weights, faster where the CPU
    can run them.
    """

    n_gpu_layers: int = 0
    use_mmap: bool = True
    use_mlock: bool = False
    split_mode: Literal["none", "layer", "row"] = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    use_extra_bufts: bool = True

    def __post_init__(self) -> None:
        _whole("n_gpu_layers", self.n_gpu_layers, -1)
        _whole("main_gpu", self.main_gpu, 0)
        _one_of("split_mode", self.split_mode, ("none", "layer", "row"))
        if not all(math.isfinite(share) and share >= 0 for share in self.tensor_split):
            raise Invalid("tensor_split holds shares from 0 up", field="tensor_split")

    @property
    def options(self) -> WeightsOptions:
        return WeightsOptions(
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
    """The shape of a context.

    n_ctx: tokens that one request may use, 0 for as many as the model was trained on. n_seq_max: requests that
    run together, each with n_ctx tokens. n_batch, n_ubatch: tokens per decode, logical and physical. n_threads: 0 for
    every core. kv_cache_type: of keys and values, one of f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0.
    embeddings: the context gives vectors instead of text; pooling_type then says how, "" as the model does.
    """

    n_ctx: int = 0
    n_batch: int = 512
    n_ubatch: int = 512
    n_seq_max: int = 1
    n_threads: int = 0
    kv_cache_type: str = "f16"
    flash_attn: Literal["auto", "on", "off"] = "auto"
    embeddings: bool = False
    pooling_type: Literal["", "none", "mean", "cls", "last", "rank"] = ""

    def __post_init__(self) -> None:
        for name, least in (("n_ctx", 0), ("n_threads", 0), ("n_batch", 1), ("n_ubatch", 1), ("n_seq_max", 1)):
            _whole(name, getattr(self, name), least)
        _one_of("kv_cache_type", self.kv_cache_type, CACHE_TYPES)
        _one_of("flash_attn", self.flash_attn, ("auto", "on", "off"))
        _one_of("pooling_type", self.pooling_type, ("", "none", "mean", "cls", "last", "rank"))

    @property
    def options(self) -> ContextOptions:
        return ContextOptions(
            size=self.n_ctx,
            parallel=self.n_seq_max,
            batch=self.n_batch,
            ubatch=min(self.n_ubatch, self.n_batch),
            kv_k=self.kv_cache_type,
            kv_v=self.kv_cache_type,
            flash=self.flash_attn,
            threads=self.n_threads,
            threads_batch=self.n_threads,
            embedding=self.embeddings,
            pooling=self.pooling_type,
        )

    @property
    def shape(self) -> ContextShape:
        return ContextShape(
            size=self.n_ctx,
            parallel=self.n_seq_max,
            batch=self.n_batch,
            ubatch=min(self.n_ubatch, self.n_batch),
            kv_k=self.kv_cache_type,
            kv_v=self.kv_cache_type,
            flash=self.flash_attn != "off",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryInfo:
    """What a context and its weights hold; bytes, except the two counts of tokens.

    model_size: the weights, which contexts share. kv_cache_size: the cache, allocated at once. token_count: tokens
    whose state the cache holds now. total_allocated: weights, cache and compute buffers together.
    """

    model_size: int
    kv_cache_size: int
    compute_size: int
    token_count: int
    context_size: int
    total_allocated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a generation ended. reason: stop, stop_sequence (then `stop` is the text met) or length."""

    reason: str
    stop: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prompt_seconds: float
    decode_seconds: float


class Model:
    """Weights in memory, in a process of their own. Contexts share them; closing twice does nothing."""

    def __init__(self, source: str | os.PathLike[str], params: ModelParams | None = None) -> None:
        """See `load_with_params`."""
        self.params = params or ModelParams()
        self._files = files_here(os.fspath(source), os.environ)
        refuse_too_big(self._files.facts, self.params.options, (), observe_machine())
        self._solo = BlockingWorker(choice_of(self._files, self.params.options))
        self._names = count(1)

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> Self:
        """Load with default parameters; see `load_with_params`."""
        return cls(source)

    @classmethod
    def load_with_params(cls, source: str | os.PathLike[str], params: ModelParams) -> Self:
        """Load a GGUF file (any part of a split set), `builtin:NAME`, or any source that is on this machine.

        Raises `NotFound`, `BadWeights` before native code sees a bad file, `Refused` where memory is short, and
        `EngineFailed` when loading crashed: all of them `MullamaError`.
        """
        return cls(source, params)

    @property
    def n_vocab(self) -> int:
        return self._solo.facts.vocabulary

    @property
    def n_ctx_train(self) -> int:
        return self._solo.facts.train_context

    @property
    def n_embd(self) -> int:
        return self._solo.facts.embedding_length

    @property
    def n_layer(self) -> int:
        return self._solo.facts.layers

    @property
    def n_params(self) -> int:
        return self._solo.facts.parameters

    @property
    def size(self) -> int:
        """Bytes of the weights in memory."""
        return self._solo.facts.weights_bytes

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return self._solo.facts.end_tokens

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Text → tokens; add_special: with the model's own beginning, parse_special: control tokens are seen."""
        work = self._solo.worker.tokenize(text, add_special=add_special, parse_special=parse_special)
        return list(self._solo.call(work))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Tokens → text; bytes that are no UTF-8 become U+FFFD."""
        return self._solo.call(self._solo.worker.detokenize(tuple(tokens))).decode("utf-8", "replace")

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The prompt of a conversation, by the template in the file; messages have `role` and `content`."""
        facts = self._solo.facts
        special = SpecialTexts(bos=facts.bos_text, eos=facts.eos_text)
        settings = settings_for("model", facts.template, special=special)
        said = tuple(_message(message, place) for place, message in enumerate(messages))
        chat = ChatInput(messages=said, generate=add_generation_prompt, now=time.time())
        return settings.template.render(chat).text

    def close(self) -> None:
        """End the worker and return its memory; every context over it is closed with it."""
        self._solo.close()

    dispose = close

    @property
    def closed(self) -> bool:
        return self._solo.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TextStream(Iterator[str]):
    """The pieces of an answer as they are made. After the last, `answer` tells how it ended; `close` cancels."""

    def __init__(self, outputs: Iterator[Output]) -> None:
        self._outputs = outputs
        self.answer: Answer | None = None

    def __next__(self) -> str:
        for output in self._outputs:
            if isinstance(output, Piece) and output.text:
                return output.text
            if isinstance(output, Ended):
                self.answer = _answer(output)
        raise StopIteration

    def close(self) -> None:
        """Stop generating; the pieces so far were all."""
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
    """One llama.cpp context over a model's weights. Safe to use from several threads; closing twice does nothing.

    Each `generate` is a request of its own: what a prompt shares with earlier ones is not computed again.
    """

    def __init__(self, model: Model, params: ContextParams | None = None) -> None:
        """Raises `Refused` where the context does not fit into memory."""
        self.model, self.params = model, params or ContextParams()
        self._lock = threading.Lock()
        self._open = False
        if not model.closed and (header := model._files.facts):
            made = as_made(self.params.shape, header, vectors=self.params.embeddings)
            refuse_too_big(header, model.params.options, (made,), observe_machine())
        self._facts = self._begin()

    def _begin(self) -> ContextFacts:
        self._name = f"context-{next(self.model._names)}"
        solo = self.model._solo
        facts = solo.call(solo.worker.open_context(self._name, self.params.options))
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
        """The whole answer; see `generate_stream`."""
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
        """The answer piece by piece, from the first token on.

        prompt: text, in which control tokens count, or token ids. params: sampling where it differs from the
        defaults. format: `"json"` or a JSON schema that the answer must follow. Raises `ContextOverflow` for a prompt
        longer than n_ctx.
        """
        _whole("max_tokens", max_tokens, 1)
        worker = self._solo().worker
        job = Generate(
            id=worker.next_id(),
            context=self._name,
            prompt=prompt if isinstance(prompt, str) else tuple(prompt),
            sampling=(params or Sampling()).over(DEFAULT_SAMPLING),
            max_tokens=max_tokens,
            stop=tuple(stop),
            constraint=build(RAW, format=_format(format)).constraint,
        )
        return TextStream(self._solo().outputs(job))

    @overload
    def embed(self, text: str, *, normalize: bool = True) -> list[float]: ...  # type: ignore[overload-overlap]

    @overload
    def embed(self, text: Sequence[str], *, normalize: bool = True) -> list[list[float]]: ...

    def embed(self, text: str | Sequence[str], *, normalize: bool = True) -> list[float] | list[list[float]]:
        """One vector of n_embd numbers for a text, a list of them for several; too long a text is an error."""
        worker = self._solo().worker
        inputs = (text,) if isinstance(text, str) else tuple(text)
        if not inputs:
            return []
        job = Embed(id=worker.next_id(), context=self._name, inputs=inputs, truncate=False, normalize=normalize)
        vectors = [list(vector) for vector in self._solo().call(worker.embed(job)).vectors]
        return vectors[0] if isinstance(text, str) else vectors

    def clear(self) -> None:
        """Forget everything that was computed, by opening the context anew; what still runs in it is cancelled."""
        with self._lock:
            solo = self._solo()
            self._open = False
            solo.call(solo.worker.close_context(self._name))
            self._facts = self._begin()

    def memory_info(self) -> MemoryInfo:
        solo, facts = self._solo(), self._facts
        held = dict(solo.call(solo.worker.stats()).held)
        weights = solo.facts.weights_bytes
        return MemoryInfo(
            model_size=weights,
            kv_cache_size=facts.kv_bytes,
            compute_size=facts.compute_bytes,
            token_count=held.get(self._name, 0),
            context_size=facts.size,
            total_allocated=weights + facts.kv_bytes + facts.compute_bytes,
        )

    def close(self) -> None:
        """Cancel what runs and free the context; the model stays."""
        with self._lock:
            if self._open and not self.model.closed:
                self._open = False
                solo = self.model._solo
                with suppress(EngineFailed):  # a worker that died holds nothing any more
                    solo.call(solo.worker.close_context(self._name))

    dispose = close

    def _solo(self) -> BlockingWorker:
        if not self._open or self.model.closed:
            raise Invalid("the context is closed")
        return self.model._solo

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _answer(ended: Ended) -> Answer:
    return Answer(
        reason=ended.reason,
        stop=ended.stop,
        prompt_tokens=ended.prompt_tokens,
        cached_tokens=ended.cached_tokens,
        completion_tokens=ended.completion_tokens,
        prompt_seconds=ended.prompt_seconds,
        decode_seconds=ended.decode_seconds,
    )


def _message(message: Mapping[str, str], place: int) -> Any:
    if set(message) != {"role", "content"} or not isinstance(message["content"], str):
        raise Invalid(f"messages[{place}] needs role and content, both text", field=f"messages[{place}]")
    role = message["role"]
    _one_of(f"messages[{place}].role", role, get_args(Role))
    return say(role, message["content"])  # type: ignore[arg-type]


def _format(format: Literal["json"] | Mapping[str, Any] | None) -> ResponseFormat | None:
    if format is None:
        return None
    if isinstance(format, Mapping):
        return ResponseFormat(kind="json_schema", schema=dict(format))
    if format != "json":
        raise Invalid(f"format {format!r} is not known", hint='"json" or a JSON schema', field="format")
    return ResponseFormat(kind="json")


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise Invalid(f"{name} is {value!r}, it is a whole number from {least} up", field=name)


def _one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise Invalid(f"{name} is {value!r}", hint=f"one of {', '.join(repr(c) for c in choices)}", field=name)
