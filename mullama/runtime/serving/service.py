"""The service behind the HTTP endpoints: completions, embeddings and tokens.

A request takes the snapshot once, when it arrives, so exactly one revision answers it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from mullama.chat import inventory as inv
from mullama.chat import types as chat
from mullama.chat.answer import Fold
from mullama.chat.transcription import TranscriptionRequest
from mullama.dialects import base as dialect
from mullama.dialects.resumable_streams import CancelStream, FindStreams, ResumeStream
from mullama.dialects.sessions import OpenSession
from mullama.dialects.stored_objects import DeleteStored, FetchStored, ListStored, StoredObject, UpdateStored
from mullama.engines.base import Embed, Embedded, Prompt
from mullama.errors import Denied, EngineFailed, Invalid, MullamaError, NotFound, Unsupported
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.offload import compute
from mullama.runtime.base import Access, Admission, Caller, Tracer
from mullama.runtime.metering import LastAttempt, Metered, RequestResult
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.peers.completion import PeerCompletion
from mullama.runtime.peers.vectors import embed_by_peer, rank_by_peer
from mullama.runtime.pool import Lease, Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.serving.captures import CaptureLog
from mullama.runtime.serving.client_store import ClientStore
from mullama.runtime.serving.completion import Completion, Request, TimeLimit, prepared_for
from mullama.runtime.serving.fetched_media import names_addresses, with_fetched
from mullama.runtime.serving.inventory import InventoryCommands, ModelInventory
from mullama.runtime.serving.places import PlaceBoard
from mullama.runtime.serving.repeats import events_until_text
from mullama.runtime.serving.tracing import begin_trace
from mullama.runtime.serving.tries import R, Tries, default_model, first_model, served
from mullama.runtime.serving.truncation import certainly_fits, fitted, room_for_answer
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.serving.vectors import (
    check_dimensions,
    check_ids,
    check_pooling,
    embed_all,
    embed_slices,
    rerank_slices,
    shortened,
    tokenized,
    with_declared,
)
from mullama.runtime.snapshot import Deployment, Snapshot, key_of
from mullama.runtime.sound.transcription import Transcription, TranscriptionEvents, transcript_of
from mullama.runtime.worker.inbox import Inbox
from mullama.struct import replace

_T = TypeVar("_T")
_Text = TypeVar("_Text", bound=chat.TextRequest)
_Computed = Request | chat.EmbedRequest | chat.RerankRequest | chat.TokenizeRequest | chat.DetokenizeRequest


class ModelService:
    """Implements `runtime.base.Service`."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        pool: Pool,
        commands: InventoryCommands,
        metrics: Metrics,
        objects: ClientStore,
        rates: RateBook,
        usage: UsageLog,
        captures: CaptureLog,
        tracer: Tracer,
        peers: PeerBook,
    ) -> None:
        self._snapshot, self._pool, self._metrics = snapshot, pool, metrics
        self._places = PlaceBoard(lambda: pool.state.units)
        self._inventory = ModelInventory(snapshot, pool, commands, self._places)
        self._quarantine = pool.quarantine
        self._objects, self._rates, self._usage = objects, rates, usage
        self._captures, self._tracer, self._peers = captures, tracer, peers

    def access(self) -> Access:
        return self._snapshot().access

    def context_size(self, model: str) -> int:
        return self._snapshot().context_size(model)

    def default_model(self, caller: Caller) -> str:
        return default_model(self._snapshot(), caller, self.find)

    def admit(self, operation: dialect.Operation, caller: Caller) -> Admission | None:
        if not self._rates.active:
            return None
        try:
            model = first_model(self._snapshot, self._peers, operation, caller)
        except (NotFound, Denied):  # the request itself fails with it
            return None
        return self._rates.admit(caller.key, model)

    def first_model(self, operation: dialect.Operation, caller: Caller) -> str:
        """Return the name of the model that answers an operation unless it fails. Raises the errors of its name."""
        return first_model(self._snapshot, self._peers, operation, caller)

    def _meter(self, ended: Metered) -> None:
        if ended.key is not None:
            self._metrics.add_request(ended.key, ended.model, ended.usage, follows=ended.follows)
        self._usage.add(ended)
        self._rates.charge(ended.key, ended.model, ended.usage.prompt_tokens + ended.usage.completion_tokens)

    def find(self, name: str, caller: Caller) -> Deployment:
        """See `serving.tries.served`."""
        return served(self._snapshot(), name, caller)

    # Completions

    async def events(self, request: Request, caller: Caller) -> AsyncGenerator[Sequence[chat.Event], None]:
        """See `runtime.base.Service`.

        A request whose worker dies before the first text is repeated as a whole one. After a failure before the first
        event, the next model of its route answers.
        """
        async with self._with_media(request, caller) as complete:
            tries, repeated = Tries(self._snapshot, self._peers, complete, caller, self._metrics), False

            def again(error: MullamaError, started: bool) -> bool:
                nonlocal repeated
                if self._quarantine.blames(tries.request):
                    return False
                repeated = isinstance(error, EngineFailed) and not repeated
                return repeated or (not started and tries.after(error))

            with LastAttempt(self._meter) as usage:
                attempts = events_until_text(
                    lambda: self._conversed(tries.request, _of_try(tries.caller, repeated=repeated), usage), again
                )
                async with aclosing(attempts) as stream:
                    async for events in stream:
                        yield events

    async def transcribe(self, request: TranscriptionRequest, caller: Caller) -> TranscriptionEvents:
        """See `runtime.base.Service`."""
        tries = Tries(self._snapshot, self._peers, request, caller, self._metrics)

        def again(error: MullamaError, started: bool) -> bool:
            return not started and tries.after(error)

        def attempt() -> TranscriptionEvents:
            found = self.find(tries.request.model, tries.caller)
            return Transcription(tries.request, tries.caller, found, self._window, usage).events()

        with LastAttempt(self._meter) as usage:
            async with aclosing(events_until_text(attempt, again)) as stream:
                async for events in stream:
                    yield events

    async def _window(
        self, request: chat.ChatRequest, caller: Caller, usage: LastAttempt
    ) -> AsyncGenerator[Sequence[chat.Event], None]:
        """Yield the events of one window of a sound, which is tried again after the death of a worker."""
        repeated = False

        def again(error: MullamaError, started: bool) -> bool:
            nonlocal repeated
            repeated = isinstance(error, EngineFailed) and not repeated and not self._quarantine.blames(request)
            return repeated

        def attempt() -> AsyncGenerator[Sequence[chat.Event], None]:
            return self._attempt(request, _of_try(caller, repeated=repeated), usage)

        async with aclosing(events_until_text(attempt, again)) as stream:
            async for events in stream:
                yield events

    async def _answered(
        self, request: R, caller: Caller, attempt: Callable[[R, Caller, LastAttempt], Awaitable[_T]]
    ) -> _T:
        """Return the result of the first model of the route that does not fail."""
        tries = Tries(self._snapshot, self._peers, request, caller, self._metrics)
        with LastAttempt(self._meter) as usage:
            while True:
                try:
                    return await attempt(tries.request, tries.caller, usage)
                except MullamaError as error:
                    if self._quarantine.blames(tries.request) or not tries.after(error):
                        raise

    async def _repeated(self, request: _Computed, caller: Caller, attempt: Callable[[Caller], Awaitable[_T]]) -> _T:
        """Return the result of an attempt of a request that sends nothing before its end.

        It is made once more after its worker died, unless the request ended the worker itself (`runtime.quarantine`).
        """
        try:
            return await attempt(caller)
        except EngineFailed:
            if self._quarantine.blames(request):
                raise
        return await attempt(_of_try(caller, repeated=True))

    async def _folded(self, request: Request, caller: Caller, usage: LastAttempt) -> chat.Answer:
        return await self._repeated(request, caller, lambda one: self._folded_once(request, one, usage))

    async def _folded_once(self, request: Request, caller: Caller, usage: LastAttempt) -> chat.Answer:
        folded = Fold()
        async with aclosing(self._conversed(request, caller, usage)) as stream:
            async for events in stream:
                for event in events:
                    folded.feed(event)
        return folded.answer

    def _conversed(
        self, request: Request, caller: Caller, usage: LastAttempt
    ) -> AsyncGenerator[Sequence[chat.Event], None]:
        """As `_attempt`; raise `Unsupported` for text alone to a model for transcription."""
        if self._peers.has(request.model):
            return self._attempt(request, caller, usage)
        if self.find(request.model, caller).settings.transcription.only and not _has_sound(request):
            raise Unsupported(
                f'"{request.model}" is declared for transcription and answers no conversations without a sound',
                hint="send a sound to /v1/audio/transcriptions, or declare task: chat, which serves both",
                field="model",
            )
        return self._attempt(request, caller, usage)

    async def _attempt(
        self, request: Request, caller: Caller, usage: LastAttempt
    ) -> AsyncGenerator[Sequence[chat.Event], None]:
        """Yield the events of one attempt to answer a request."""
        run = await self._run(request, caller, usage)
        recording = self._captures.begin(request, caller, self._snapshot().generation)
        trace = begin_trace(self._tracer, request, caller)
        observers, failure = [one for one in (recording, trace) if one is not None], None
        self._metrics.running[id(run)] = run
        try:
            async with aclosing(run.events()) as stream:
                async for events in stream:
                    for observer in observers:
                        observer.take(events)
                    yield events
        except BaseException as error:
            failure = error
            raise
        finally:
            del self._metrics.running[id(run)]
            if recording is not None:
                recording.end(failure, model=run.model, prompt=run.prompt, usage=run.spent)
            if trace is not None:
                trace.end(failure, model=run.model, usage=run.spent, lease=run.lease)
        self._quarantine.clear(request)

    async def _run(self, request: Request, caller: Caller, usage: LastAttempt) -> Completion | PeerCompletion:
        """Return the attempt of the model of a request: of this server, or of a peer."""
        if self._peers.has(request.model):
            return PeerCompletion(self._peers, request, caller, self._metrics.of(request.model), usage.add)
        self.find(request.model, caller)
        fitted = await self._fitted(request, caller) if isinstance(request, chat.ChatRequest) else request
        return Completion(
            self._pool, self._metrics, lambda: self.find(request.model, caller), fitted, caller, self._places,
            author=request, meter=usage.add, alone=self._quarantine.suspects(request),
        )  # fmt: skip

    async def _fitted(self, request: chat.ChatRequest, caller: Caller) -> chat.ChatRequest:
        """Return the request without the oldest turns for which its context has no room, if it may be truncated."""
        deployment = self.find(request.model, caller)
        size = deployment.options.size or (deployment.files.facts.train_context if deployment.files.facts else 0)
        if not request.truncate or not size or certainly_fits(request, deployment.settings, size):
            return request
        prepared = await prepared_for(request, deployment)
        limit = size - room_for_answer(prepared.max_tokens, size)

        async def count(shorter: chat.ChatRequest) -> int:
            return await self._prompt_length(shorter, caller)

        return await fitted(request, limit, count)

    @asynccontextmanager
    async def _with_media(self, request: _Text, caller: Caller) -> AsyncGenerator[_Text, None]:
        """Yield the request with the files of the media that it names by address, and reserve their memory."""
        if not names_addresses(request) or self._leads_to_peers(request.model):
            yield request  # a peer fetches them
            return
        deployment, manifest = self.find(request.model, caller), self._snapshot().manifest
        if caller.memory is None:
            yield await with_fetched(request, deployment, manifest)
            return
        with caller.memory.share() as share:
            yield await with_fetched(request, deployment, manifest, share.take)

    def _leads_to_peers(self, name: str) -> bool:
        """Return True for a route to peers alone."""
        return PEER_SIGN in self._snapshot().names.get(key_of(name), "")

    async def answer(self, operation: dialect.Operation, caller: Caller) -> dialect.Result:
        match operation:
            case chat.ChatRequest() | chat.CompletionRequest():
                async with self._with_media(operation, caller) as request:
                    return await self._answered(request, caller, self._folded)
            case chat.EmbedRequest():
                return await self._answered(operation, caller, self._embed)
            case chat.RerankRequest():
                return await self._answered(operation, caller, self._rerank)
            case TranscriptionRequest():
                return await transcript_of(self.transcribe(operation, caller))
            case chat.CountRequest():
                async with self._with_media(operation.chat, caller) as request:
                    first = self._local(Tries(self._snapshot, self._peers, request, caller))
                    return chat.TokenCount(tokens=await self._prompt_length(first.request, first.caller))
            case chat.RenderRequest():
                async with self._with_media(operation.chat, caller) as request:
                    first = self._local(Tries(self._snapshot, self._peers, request, caller))
                    shown = await self._fitted(first.request, first.caller)
                    prepared = await prepared_for(shown, self.find(shown.model, first.caller))
                    return chat.DetokenizedText(text=prepared.shown)
            case chat.TokenizeRequest():
                return await self._tokenize(operation, caller)
            case chat.DetokenizeRequest():
                return await self._detokenize(operation, caller)
            case FetchStored() | DeleteStored() | UpdateStored() | ListStored():
                return await self._objects.answer(operation, caller)
            case dialect.StaticReply() | OpenSession() | ResumeStream() | FindStreams() | CancelStream():
                raise Invalid("this operation needs no model")
            case _:
                return await self._inventory.answer(operation, caller)

    def _local(self, tries: Tries[R]) -> Tries[R]:
        """Return the tries; raise `Unsupported` for a model of a peer, whose prompts only the peer can count."""
        if self._peers.has(tries.model):
            raise Unsupported(
                f"{tries.model} is a model of a peer", hint="a peer answers completions, embeddings and rankings only"
            )
        return tries

    def tasks(self, operation: inv.PullModel | inv.CreateModel, caller: Caller) -> AsyncIterator[inv.TaskStatus]:
        return self._inventory.tasks(operation)

    def watch(self, caller: Caller) -> AsyncIterator[inv.ModelStateReport]:
        return self._inventory.watch(caller)

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes], caller: Caller) -> bool:
        return await self._inventory.receive_blob(digest, chunks)

    async def store(self, stored: StoredObject, caller: Caller) -> None:
        await self._objects.put(stored, caller)

    # Other operations

    async def _embed(self, request: chat.EmbedRequest, caller: Caller, usage: LastAttempt) -> chat.Vectors:
        begun = time.monotonic()
        if self._peers.has(request.model):
            return await embed_by_peer(self._peers, request, caller, self._metrics, usage)
        request = with_declared(request, self.find(request.model, caller).model.embedding)

        async def jobs(lease: Lease, deployment: Deployment) -> list[Embed]:
            if not lease.worker.facts.can_embed:
                raise Unsupported(f'"{request.model}" does not support embedding')
            width, pooling = lease.worker.facts.embedding_length, deployment.options.pooling
            check_dimensions(request, width)
            check_pooling(request, pooling)
            check_ids(request.inputs, lease.worker.facts.vocabulary, request.place)
            slices = embed_slices(request.inputs, width, pooling=pooling)
            return [
                Embed(
                    id=lease.worker.next_id(),
                    context=lease.context,
                    inputs=some,
                    truncate=request.truncate,
                    normalize=request.normalize,
                )
                for some in await tokenized(lease.worker, slices)
            ]

        found, load, model = await self._embedded(request, caller, jobs, usage)
        if request.keep_alive is not None:
            self._pool.keep_alive(model, request.keep_alive)
        vectors = await compute(sum(map(len, found.vectors)), shortened, found.vectors, request)
        return chat.Vectors(
            vectors=vectors,
            answered_by=model,
            rows=found.rows,
            usage=chat.Usage(prompt_tokens=found.tokens),
            timings=chat.Timings(total=time.monotonic() - begun, load=load),
        )

    async def _rerank(self, request: chat.RerankRequest, caller: Caller, usage: LastAttempt) -> chat.Ranking:
        if self._peers.has(request.model):
            return await rank_by_peer(self._peers, request, caller, self._metrics, usage)

        async def jobs(lease: Lease, _: Deployment) -> list[Embed]:
            if not lease.worker.facts.can_rank:
                raise Unsupported(f'"{request.model}" does not support reranking', hint="it has no rank head")
            pairs = rerank_slices(request.query, request.documents)
            return [Embed(id=lease.worker.next_id(), context=lease.context, pairs=some) for some in pairs]

        found, _, model = await self._embedded(request, caller, jobs, usage)
        scores = sorted(enumerate(v[0] for v in found.vectors), key=lambda item: -item[1])
        return chat.Ranking(
            results=tuple(scores[: request.top_n]),
            usage=chat.Usage(prompt_tokens=found.tokens),
            answered_by=model,
        )

    async def _embedded(
        self,
        request: chat.EmbedRequest | chat.RerankRequest,
        caller: Caller,
        jobs: Callable[[Lease, Deployment], Awaitable[list[Embed]]],
        usage: LastAttempt,
    ) -> tuple[Embedded, float, str]:
        """Return the result of the jobs, the seconds of the load, and the model, which a reload may have removed."""
        begun, model = time.monotonic(), self.find(request.model, caller).name
        trace = begin_trace(self._tracer, request, caller)
        lease: Lease | None = None
        result: RequestResult = "error"
        failure: BaseException | None = None
        tokens = 0
        try:
            found, used = await self._repeated(request, caller, lambda one: self._embedded_once(request, one, jobs))
            result, tokens, lease = "ok", found.tokens, used
            return found, used.load_seconds, model
        except BaseException as error:
            failure, result = error, "error" if isinstance(error, Exception) else "cancelled"
            raise
        finally:
            if trace is not None:
                trace.end(failure, model=model, usage=chat.Usage(prompt_tokens=tokens), lease=lease)
            seconds = time.monotonic() - begun
            self._metrics.of(model).add_end(result, seconds)
            usage.add(
                Metered(
                    key=caller.key, route=caller.route or request.model, model=model,
                    usage=chat.Usage(prompt_tokens=tokens), seconds=seconds, result=result,
                )
            )  # fmt: skip

    async def _embedded_once(
        self,
        request: chat.EmbedRequest | chat.RerankRequest,
        caller: Caller,
        jobs: Callable[[Lease, Deployment], Awaitable[list[Embed]]],
    ) -> tuple[Embedded, Lease]:
        deployment = self.find(request.model, caller)
        if deployment.scales is not None:
            raise Unsupported(f'"{request.model}" is an adapter, and adapters write text only', hint="name its model")
        alone, inbox = self._quarantine.suspects(request), Inbox()
        async with self._pool.lease(
            deployment.name, caller.priority, alone=alone, falls_back=caller.falls_back
        ) as lease:
            self._metrics.of(deployment.name).waits.add(lease.load_seconds)
            await lease.worker.responsive()
            deadline = TimeLimit(lease.worker, inbox, deployment.model.limits.timeout)
            try:
                found = await embed_all(lease.worker, await jobs(lease, deployment), inbox, request)
            finally:
                deadline.cancel()
        self._quarantine.clear(request)
        self._metrics.of(deployment.name).prompt_tokens += found.tokens
        self._metrics.add_decodes(deployment.name, lease.worker.pid, (found,))
        return found, lease

    async def _prompt_length(self, request: chat.ChatRequest, caller: Caller) -> int:
        """Return the tokens of the prompt of a conversation, with those of its media."""
        deployment = self.find(request.model, caller)
        prepared = await prepared_for(request, deployment)

        async def work(lease: Lease) -> int:
            return await lease.worker.count_tokens(
                Prompt(
                    context=lease.context,
                    prompt=prepared.prompt,
                    joint=prepared.joint,
                    marker=prepared.marker,
                    media=prepared.media,
                    media_limits=deployment.settings.media_limits,
                )
            )

        return await self._asked(request, caller, work)

    async def _tokenize(self, request: chat.TokenizeRequest, caller: Caller) -> chat.Tokens:
        async def work(lease: Lease) -> chat.Tokens:
            ids = await _tokens_of(
                request.text, lease, add_special=request.add_special, parse_special=request.parse_special
            )
            return chat.Tokens(ids=ids, pieces=await lease.worker.pieces(ids) if request.with_pieces else ())

        return await self._asked(request, caller, work)

    async def _detokenize(self, request: chat.DetokenizeRequest, caller: Caller) -> chat.DetokenizedText:
        text = await self._asked(request, caller, lambda lease: lease.worker.detokenize(request.tokens))
        return chat.DetokenizedText(text=text.decode("utf-8", "replace"))

    async def _asked(self, request: _Computed, caller: Caller, work: Callable[[Lease], Awaitable[_T]]) -> _T:
        """Return the worker's answer to a question about tokens."""

        async def ask(caller: Caller) -> _T:
            name = self.find(request.model, caller).name
            async with self._pool.lease(name, caller.priority, falls_back=caller.falls_back) as lease:
                return await work(lease)

        return await self._repeated(request, caller, ask)


def _of_try(caller: Caller, *, repeated: bool) -> Caller:
    """Return the caller of one try: a repeated one waits for the worker, since its answer may have begun."""
    return replace(caller, falls_back=False) if repeated and caller.falls_back else caller


def _has_sound(request: Request) -> bool:
    if isinstance(request, chat.CompletionRequest):
        return any(part.kind == "audio" for part in request.media)
    parts = (part for message in request.messages for part in message.content)
    return any(isinstance(part, chat.MediaPart) and part.kind == "audio" for part in parts)


async def _tokens_of(
    prompt: chat.PromptInput, lease: Lease, *, add_special: bool, parse_special: bool
) -> tuple[int, ...]:
    """Return the tokens of texts and ids; `add_special` applies to a text at the beginning."""
    if isinstance(prompt, str):
        prompt = (prompt,)
    tokens: list[int] = []
    for place, part in enumerate(prompt):
        if isinstance(part, str):
            special = add_special and place == 0
            tokens += await lease.worker.tokenize(part, add_special=special, parse_special=parse_special)
        else:
            tokens.append(part)
    return tuple(tokens)
