"""The llama.cpp engine: weights, the contexts over them, and the loop that serves them in turn."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mullama.chat.sampling_fields import fold_seed
from mullama.engines.base import (
    Adapter,
    CacheUse,
    ContextFacts,
    ContextOptions,
    Embed,
    EngineFacts,
    EngineStats,
    Failed,
    Generate,
    Job,
    LoadProgress,
    Output,
    Prefix,
    Projector,
    Prompt,
    WeightsOptions,
)
from mullama.engines.llamacpp.batcher import Pace
from mullama.engines.llamacpp.binding.devices import device_names
from mullama.engines.llamacpp.binding.library import log as library_log
from mullama.engines.llamacpp.binding.library import version
from mullama.engines.llamacpp.binding.model import DeviceMemoryShort, NativeAdapter, NativeModel
from mullama.engines.llamacpp.binding.sampler import Candidates
from mullama.engines.llamacpp.cache.checkpoints import Scales
from mullama.engines.llamacpp.cache.slots import LONG_PREFIX
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.contention import ProcessorMeter, remark
from mullama.engines.llamacpp.context import Counters, Queued, TextContext
from mullama.engines.llamacpp.embeddings import VectorContext
from mullama.engines.llamacpp.open_context import (
    Threads,
    declared,
    open_text_context,
    open_vector_context,
    prefix_files,
    share_of,
)
from mullama.engines.llamacpp.placing import WeightsLoader
from mullama.engines.llamacpp.prompt_tokens import embed_inputs, main_tokens, prompt_tokens, text_tokens
from mullama.engines.llamacpp.sampling.constraint import Compilation, Grammars
from mullama.engines.llamacpp.sampling.reasoning_budget import ReasoningBudget
from mullama.engines.llamacpp.sampling.sampler import SHORTCUTS, Sampler, invalid_setting
from mullama.engines.llamacpp.speculation.draft_models import DraftModels
from mullama.engines.llamacpp.vocabulary import Vocabulary
from mullama.errors import BadWeights, Conflict, EngineFailed, Invalid, NotFound, Unsupported
from mullama.machine import usable_cores
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.engines.llamacpp.media.encoder import MediaEncoder

_MOST_STOPS, _LONGEST_STOP = 64, 4096  # strings, characters
_LONGEST_WARMING = 20.0  # seconds that opening a context may take for its declared prefixes


def load(
    files: tuple[str, ...],
    options: WeightsOptions,
    progress: LoadProgress,
    *,
    log: Callable[[str], None] | None = None,
    pace: Callable[[], Pace] = Pace,
    pool_threshold: int = LONG_PREFIX,
) -> LlamaEngine:
    """Load weights; also raise `BadWeights` for models that are neither a decoder nor an encoder.

    `pace` makes the pace of each context. Contexts whose declared prefixes have `pool_threshold` tokens or more
    share one pool of cells.
    """
    library_log.follower = log
    stopped = False

    def report(share: float) -> bool:
        nonlocal stopped
        stopped = stopped or not progress(share)
        return not stopped

    loader = WeightsLoader(files, options, report)
    try:
        model = loader.load()
    except BadWeights:
        if stopped:
            raise EngineFailed("the load was stopped") from None
        raise
    if model.diffusion or (model.has_encoder and model.has_decoder):
        kind = "diffusion" if model.diffusion else "encoder-decoder"
        model.close()
        raise BadWeights(f"{files[0]} is a {kind} model", hint="only decoders and encoders are served")
    return LlamaEngine(
        model,
        lambda weights: DraftModels(weights, files[0], options),
        loader.lower,
        pace=pace,
        pool_threshold=pool_threshold,
    )


class LlamaEngine:
    """Implements `Engine`: the contexts over one loaded set of weights take turns, one decode each."""

    def __init__(
        self,
        model: NativeModel,
        drafters: Callable[[NativeModel], DraftModels],
        lower: Callable[[NativeModel], NativeModel | None],
        *,
        pace: Callable[[], Pace],
        pool_threshold: int,
    ) -> None:
        """lower: see `WeightsLoader.lower`."""
        self._drafters_for = drafters
        self._lower = lower
        self._pace = pace
        self._pool_threshold = pool_threshold
        self._candidates = Candidates(model.vocabulary)
        self._contexts: dict[str, TextContext] = {}
        self._vectors: dict[str, VectorContext] = {}
        self._options: dict[str, ContextOptions] = {}
        self._outbox: list[Output] = []
        self._counters = Counters()
        self._turn = 0
        self._meter = ProcessorMeter.here(usable_cores())
        self.remark = ""
        self._rank = (0, 1)  # this engine's number and the count of engines that compute, see `share_cores`
        self._closed = False
        self._use(model)

    def _use(self, model: NativeModel) -> None:
        self._model = model
        self._drafters = self._drafters_for(model)
        self._vocabulary = Vocabulary(model)
        self._grammars = Grammars(self._vocabulary)
        self._adapters: dict[tuple[str, str], NativeAdapter] = {}  # by path and digest
        self._encoders: dict[Projector, MediaEncoder] = {}
        self._facts = _facts(model, self._vocabulary)

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    def open_context(self, name: str, options: ContextOptions) -> ContextFacts:
        if name in self._options:
            raise Conflict(f"the context {name!r} is already open")
        try:
            return self._open_lowered(name, options)
        finally:  # the projector of a context that could not be opened is freed
            self._keep_encoders(options.projector for options in self._options.values())

    def _open_lowered(self, name: str, options: ContextOptions) -> ContextFacts:
        """Open a context, with fewer layers on the devices where they have no memory for it."""
        lowered = False
        while True:
            try:
                facts = self._open(name, options)
            except DeviceMemoryShort:
                if self._options or (model := self._lower(self._model)) is None:
                    raise
                self._drafters.keep(())
                self._keep_encoders(())
                self._grammars.close()
                self._use(model)
                lowered = True
            else:
                return replace(facts, engine=self._facts) if lowered else facts

    def _open(self, name: str, options: ContextOptions) -> ContextFacts:
        started = time.monotonic()
        threads = self._threads(options)
        adapters = [(self._adapter(a), a.scale) for a in options.adapters]
        encoder = self._encoder(options.projector, threads[1]) if options.projector else None
        if options.embedding:
            vectors = open_vector_context(self._model, options, threads, adapters, self._counters)
            self._vectors[name] = vectors
            native, prefix, restored, size, pool = vectors.native, 0, False, vectors.longest, 0
        else:
            opened = open_text_context(
                self._model,
                self._vocabulary,
                options,
                threads,
                adapters,
                self._counters,
                pace=self._pace(),
                pool_threshold=self._pool_threshold,
                drafters=self._drafters,
                encoder=encoder,
            )
            idle = not self.busy
            self._contexts[name] = opened.context
            if idle:
                self._warm(opened.context, started)
            native, size, pool = opened.context.native, opened.size, opened.pool
            prefix, restored = opened.prefix_tokens, opened.restored
        self._options[name] = options
        return ContextFacts(
            name=name,
            size=size,
            parallel=options.parallel,
            pool=pool,
            kv_bytes=native.kv_bytes,
            compute_bytes=native.compute_bytes + native.output_bytes,
            seconds=time.monotonic() - started,
            prefix_tokens=prefix,
            prefix_restored=restored,
            placed=native.placed,
            media=encoder.facts if encoder else None,
        )

    def _encoder(self, projector: Projector, threads: int) -> MediaEncoder:
        """Return the encoder of a projector, which its contexts share."""
        found = self._encoders.get(projector)
        if found is None:
            from mullama.engines.llamacpp.media.encoder import MediaEncoder

            found = MediaEncoder(projector, self._model, self._vocabulary, threads=threads)
            self._encoders[projector] = found
        return found

    def _keep_encoders(self, used: Iterable[Projector | None]) -> None:
        """Free the encoders that no context uses."""
        for unused in self._encoders.keys() - set(used):
            self._encoders.pop(unused).close()

    def _warm(self, context: TextContext, started: float) -> None:
        """Compute the declared prefixes at once. Only while idle: nothing else is decoded in this time."""
        while context.busy and time.monotonic() - started < _LONGEST_WARMING:
            context.step()

    def declare_prefixes(self, name: str, prefixes: tuple[Prefix, ...]) -> int:
        options = self._known(name)
        self._options[name] = replace(options, prefixes=prefixes)
        context = self._contexts.get(name)
        if context is not None:
            size = options.size or self._model.train_context
            cuttable = context.cache.cuttable
            found = declared(prefixes, self._vocabulary, size, cuttable=cuttable)
            context.prefixes.declare(found)
            return context.prefixes.tokens
        return 0

    def retune_context(self, name: str, *, threads: int, scales: tuple[float, ...]) -> None:
        options = self._known(name)
        if len(scales) != len(options.adapters):
            raise Invalid(f"{len(scales)} scales for {len(options.adapters)} adapters")
        adapters = tuple(replace(a, scale=s) for a, s in zip(options.adapters, scales, strict=True))
        self._options[name] = replace(options, threads=threads, threads_batch=threads, adapters=adapters)
        for unit in self._units(name):
            unit.native.set_threads(self._threads(self._options[name]))
            if adapters == options.adapters:
                continue
            if isinstance(unit, TextContext):
                unit.prefixes.rescale(scales, prefix_files(self._options[name], self._model))
            else:
                unit.native.set_adapters([(self._adapter(a), a.scale) for a in adapters])

    def share_cores(self, rank: int, of: int) -> None:
        self._rank = rank, of
        self._set_threads()

    def _set_threads(self) -> None:
        for name, options in self._options.items():
            for unit in self._units(name):
                unit.native.set_threads(self._threads(options))

    def _threads(self, options: ContextOptions) -> Threads:
        """Return the threads of a context: its own setting, else as many as others leave, within the engine's share."""
        usable = usable_cores()
        threads = options.threads or min(usable, self._meter.threads)
        wanted = (threads, options.threads_batch or threads)
        if self._rank[1] == 1:
            return wanted
        part = share_of(usable, *self._rank)
        return min(wanted[0], part), min(wanted[1], part)

    def _remark(self) -> str:
        meter, declared = self._meter, {options.threads for options in self._options.values()}
        texts = (remark(meter.threads, cores=usable_cores(), load=meter.load, declared=n) for n in sorted(declared))
        return next(filter(None, texts), "")

    def close_context(self, name: str) -> None:
        for unit in self._units(name):
            self._outbox += unit.abandon()
            unit.close()
        self._contexts.pop(name, None)
        self._vectors.pop(name, None)
        self._options.pop(name, None)
        self._drafters.keep(options.draft for options in self._options.values())
        self._keep_encoders(options.projector for options in self._options.values())

    def prepare(self, job: Job) -> Job:
        if isinstance(job, Generate):
            size = self._known(job.context).size or self._model.train_context
            if job.media:
                return self._encoder_of(job).prepare(job, size)
            return replace(job, prompt=tuple(prompt_tokens(job, self._vocabulary, size)), suffix=None, joint="")
        whole = replace(job, truncate=True)
        inputs = tuple(map(tuple, embed_inputs(whole, self._vocabulary, sys.maxsize)))
        return replace(job, inputs=inputs, pairs=(), ranked=bool(job.pairs))

    def count_tokens(self, question: Prompt) -> int:
        if question.media:
            return self._encoder_of(question).count(question)
        return len(main_tokens(question.prompt, self._vocabulary, question.joint))

    def _encoder_of(self, prompt: Prompt) -> MediaEncoder:
        """Return the encoder of a prompt's context; raise `Unsupported` for a context without one."""
        projector = self._known(prompt.context).projector
        if projector is None:
            from mullama.engines.media_checks import check_media

            check_media(prompt, None)
        encoder = self._encoders.get(projector) if projector else None
        if encoder is None:
            raise EngineFailed("the context of this model was closed")
        return encoder

    def submit(self, job: Job) -> None:
        try:
            if isinstance(job, Generate):
                self._submit_text(job)
            else:
                self._submit_vectors(job)
        except Exception as error:  # noqa: BLE001 - a failure ends its request alone
            self._outbox.append(Failed.of(job.id, error))

    def cancel(self, id: int) -> None:
        for unit in self._all_units():
            unit.cancel(id)

    def interrupt(self) -> None:
        for unit in self._all_units():
            unit.interrupt()

    def announce_prompt(self, context: str) -> None:
        if unit := self._contexts.get(context):
            unit.announce_prompt()

    def step(self) -> Sequence[Output]:
        outputs, self._outbox = self._outbox, []
        busy = [unit for unit in self._all_units() if unit.busy]
        if busy:
            if self._meter.look(time.monotonic()):
                self._set_threads()
                self.remark = self._remark()
            self._turn += 1
            outputs = outputs + busy[self._turn % len(busy)].step()
        if busy and not outputs and len(busy) == 1:
            busy[0].wait()
        return outputs

    @property
    def busy(self) -> bool:
        return bool(self._outbox) or any(unit.busy for unit in self._all_units())

    @property
    def next_step_is_fast(self) -> bool:
        context = self._alone()
        return context is not None and context.next_step_is_fast

    @property
    def batch_delay(self) -> float:
        context = self._alone()
        return context.batch_delay if context else 0.0

    def _alone(self) -> TextContext | None:
        """The context that writes text while no other has anything to do."""
        busy = [unit for unit in self._all_units() if unit.busy]
        return busy[0] if len(busy) == 1 and isinstance(busy[0], TextContext) else None

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, joint: str | None = None
    ) -> tuple[int, ...]:
        if joint is not None:
            return tuple(text_tokens(text, self._vocabulary, joint, begins=add_special))
        return tuple(self._vocabulary.encode(text, add_special=add_special, parse_special=parse_special))

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        self._vocabulary.check(tokens)
        return self._vocabulary.decode(tokens)

    def pieces(self, tokens: Sequence[int]) -> tuple[bytes, ...]:
        self._vocabulary.check(tokens)
        return tuple(self._vocabulary.piece(token) for token in tokens)

    def stats(self) -> EngineStats:
        counters, contexts = self._counters, self._contexts.values()
        return EngineStats(
            steps=counters.steps,
            decode_seconds=counters.decode_seconds,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
            completion_tokens=counters.completion_tokens,
            running=sum(c.running for c in contexts),
            waiting=sum(u.waiting for u in self._all_units()),
            cells_used=sum(c.cache.used for c in contexts),
            cells_total=sum(c.cache.cells for c in contexts),
            pools=tuple(c.pool.use(name) for name, c in self._contexts.items() if c.pool),
            sequences_busy=sum(c.cache.busy for c in contexts),
            contexts=tuple(self._options),
            caches=tuple(
                CacheUse(context=name, cells=c.cache.cells, used=c.cache.used, sequences=c.cache.contents)
                for name, c in self._contexts.items()
            ),
            checkpoints=tuple(
                c.cache.checkpoints.stats(name) for name, c in self._contexts.items() if not c.cache.cuttable
            ),
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for name in list(self._options):
            self.close_context(name)
        self._drafters.keep(())
        self._grammars.close()
        self._model.close()

    def _submit_text(self, job: Generate) -> None:
        options = self._known(job.context)
        context = self._contexts.get(job.context)
        if context is None:
            raise Unsupported("this model computes vectors, not text", hint="ask a model that writes text")
        if reason := invalid_setting(job.sampling, self._vocabulary.size) or _bad_stop(job.stop):
            raise Invalid(reason)
        size = options.size or self._model.train_context
        if job.media:
            prepared = self.prepare(job)
            assert isinstance(prepared, Generate)
            job = prepared
        kind: Callable[..., RunningCompletion] = RunningCompletion
        if type(job) is Generate:
            prompt = prompt_tokens(job, self._vocabulary, size)
        else:  # `prepare` has encoded its media
            from mullama.engines.llamacpp.media.completion import MediaCompletion

            kind = MediaCompletion
            prompt = [part for part in job.prompt if isinstance(part, int)]
        room = size - context.cache.cells_of(prompt)
        grammar = self._grammars.request(job.constraint) if job.constraint else None
        queued = Queued(job.id, prompt, job.cache, partial(self._completion, kind, job, prompt, room, grammar))
        queued.grammar = grammar
        queued.most = room if job.max_tokens is None or job.max_tokens < 0 else min(job.max_tokens, room)
        queued.scales, queued.owner = _scales(job, options), job.owner
        context.submit(queued)

    def _completion(
        self,
        kind: Callable[..., RunningCompletion],
        job: Generate,
        prompt: list[int],
        room: int,
        grammar: Compilation | None,
    ) -> RunningCompletion:
        seed = fold_seed(-1 if job.sampling.seed is None else job.sampling.seed)
        sampler = Sampler(
            self._model,
            self._candidates,
            job.sampling,
            context_size=len(prompt) + room,
            seed=secrets.randbits(32) if seed is None else seed,
            forbidden=self._vocabulary.ends if job.ignore_eos else (),
            shortcuts=() if job.post_sampling and job.logprobs is not None else SHORTCUTS,
        )
        state = None
        if job.constraint is not None and grammar is not None:
            state = self._grammars.state(job.constraint, grammar.result())
        budget = None
        if job.reasoning is not None:
            closing = self._vocabulary.encode(job.reasoning.closing, add_special=False, parse_special=True)
            budget = ReasoningBudget(job.reasoning, closing)
        return kind(job, prompt, self._vocabulary, sampler, state, room=room, budget=budget)

    def _submit_vectors(self, job: Embed) -> None:
        self._known(job.context)
        context = self._vectors.get(job.context) or self._companion(job.context)
        ranks = job.ranked or bool(job.pairs)
        if ranks != (context.pooling == "rank"):
            raise Unsupported("this model has no rank head" if ranks else "this context ranks pairs")
        context.submit(job, embed_inputs(job, self._vocabulary, context.longest))

    def _companion(self, name: str) -> VectorContext:
        """Open the vector context for a text context, which cannot compute vectors itself, at the first request."""
        options = self._options[name]
        threads = self._threads(options)
        adapters = [(self._adapter(a), a.scale) for a in options.adapters]
        context = open_vector_context(self._model, options, threads, adapters, self._counters)
        self._vectors[name] = context
        return context

    def _known(self, name: str) -> ContextOptions:
        options = self._options.get(name)
        if options is None:
            raise NotFound(f"there is no context {name!r}", name=name)
        return options

    def _adapter(self, adapter: Adapter) -> NativeAdapter:
        key = (adapter.path, adapter.digest)
        found = self._adapters.get(key)
        if found is None:
            found = self._adapters[key] = NativeAdapter(self._model, adapter.path)
        return found

    def _units(self, name: str) -> list[TextContext | VectorContext]:
        found = (self._contexts.get(name), self._vectors.get(name))
        return [unit for unit in found if unit is not None]

    def _all_units(self) -> list[TextContext | VectorContext]:
        return [*self._contexts.values(), *self._vectors.values()]


def _scales(job: Generate, options: ContextOptions) -> Scales:
    """Return the adapter scales of a job; raise `Invalid` unless there is one for each adapter."""
    if job.scales is None:
        return tuple(adapter.scale for adapter in options.adapters)
    if len(job.scales) != len(options.adapters):
        raise Invalid(f"{len(job.scales)} scales for {len(options.adapters)} adapters")
    return job.scales


def _bad_stop(stops: tuple[str, ...]) -> str | None:
    if len(stops) > _MOST_STOPS:
        return f"{len(stops)} stop strings, at most {_MOST_STOPS}"
    long = next((s for s in stops if len(s) > _LONGEST_STOP), None)
    return None if long is None else f"a stop string has {len(long)} characters"


def _facts(model: NativeModel, vocabulary: Vocabulary) -> EngineFacts:
    def text(token: int) -> str:
        return vocabulary.piece(token).decode("utf-8", "replace") if token >= 0 else ""

    return EngineFacts(
        name="llamacpp",
        version=version(),
        vocabulary=model.vocabulary,
        train_context=model.train_context,
        embedding_length=model.embedding_length,
        layers=model.layers,
        parameters=model.parameters,
        weights_bytes=model.weights_bytes,
        template=model.template,
        bos_text=text(vocabulary.bos),
        eos_text=text(vocabulary.eos),
        add_bos=model.add_bos,
        end_tokens=vocabulary.ends,
        fim=vocabulary.fim,
        can_rank=model.pooling == 4,
        can_share=not model.recurrent and model.window == 0,
        devices=device_names(),
        gpu_layers=model.gpu_layers,
        placed=model.placed,
        warnings=model.remarks,
    )
