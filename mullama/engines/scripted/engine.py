"""The scripted engine: implements `engines.base.Engine` without arithmetic, as fast as Python allows."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from mullama.chat.stops import StopMatcher
from mullama.chat.types import PromptInput, TokenLogprob
from mullama.engines.base import (
    Begun,
    CachedSequence,
    CacheUse,
    ContextFacts,
    ContextOptions,
    Embed,
    Embedded,
    Ended,
    EngineFacts,
    EngineStats,
    Failed,
    Generate,
    Job,
    LoadProgress,
    MediaFacts,
    Output,
    Piece,
    PieceDetails,
    Prefilled,
    Prefix,
    Prompt,
    WeightsOptions,
)
from mullama.engines.media_checks import check_media
from mullama.engines.scripted import script as scripts
from mullama.engines.scripted.faults import misbehave
from mullama.engines.scripted.script import Script, ScriptedReply
from mullama.errors import (
    BadWeights,
    Conflict,
    ContextOverflow,
    EngineFailed,
    Invalid,
    MullamaError,
    NotFound,
    Unsupported,
)
from mullama.struct import Struct, field, replace

Reason = Literal["stop", "stop_sequence", "length", "cancelled"]

_END_TOKEN = scripts.token_of(b"") + 1  # an id that no text has
_VOCABULARY = 2**33
_LONGEST_WAIT = 0.05  # seconds that one step may wait for a slow answer


def load(
    files: tuple[str, ...],
    options: WeightsOptions,
    progress: LoadProgress,
    *,
    log: Callable[[str], None] | None = None,
) -> ScriptedEngine:
    """Read the script in `files[0]`; without a file, use the script that echoes."""
    script = Script()
    if files:
        try:
            text = Path(files[0]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadWeights(f"{files[0]} cannot be read: {error}") from error
        script = scripts.parse(text, files[0])
    if log is not None:
        log(f"the script {script.name} is read")
    misbehave(script.on_load if script.faults else "")
    if not progress(1.0):
        raise EngineFailed("the load was stopped")
    return ScriptedEngine(script)


class _Answer(Struct, eq=False):
    """A job that waits or runs."""

    job: Generate
    reply: ScriptedReply
    chunks: tuple[bytes, ...]  # tokens of the reply
    text: str
    prompt: int
    cached: int
    limit: int
    stops: StopMatcher | None
    computed: int = 0
    sent: int = 0  # tokens of the reply
    held: int = 0  # tokens whose text may begin a stop string
    due: float = 0.0
    begun: float = 0.0
    first: float = 0.0
    cancelled: bool = False


class _Context(Struct, eq=False):
    options: ContextOptions
    size: int
    prefixes: list[str]
    waiting: deque[_Answer] = field(default_factory=deque)
    running: list[_Answer] = field(default_factory=list)

    def cache_use(self, name: str) -> CacheUse:
        """Return its use of memory: only running requests have any."""
        held = sorted((answer.computed + answer.sent for answer in self.running), reverse=True)
        return CacheUse(
            context=name,
            cells=self.size * self.options.parallel,
            used=sum(held),
            sequences=tuple(CachedSequence(use="request", tokens=count) for count in held),
        )


class ScriptedEngine:
    """Answers from a script; the same prompt always has the same answer."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._contexts: dict[str, _Context] = {}
        self._outbox: list[Output] = []
        self._embeds: deque[Embed] = deque()
        self._steps = self._prompt = self._cached = self._completion = 0

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            name="scripted",
            version="1",
            vocabulary=_VOCABULARY,
            train_context=self._script.context,
            embedding_length=self._script.embedding_length,
            layers=1,
            parameters=0,
            weights_bytes=0,
            template=self._script.template,
            bos_text="",
            eos_text=scripts.END,
            add_bos=False,
            end_tokens=(_END_TOKEN,),
            can_rank=True,
        )

    def open_context(self, name: str, options: ContextOptions) -> ContextFacts:
        if name in self._contexts:
            raise Conflict(f"the context {name!r} is already open")
        misbehave(self._script.on_open if self._script.faults else "")
        size = options.size or self._script.context
        prefixes = [_without(p.joint, p.text) for p in options.prefixes]
        self._contexts[name] = _Context(options, size, prefixes)
        known = sum(len(scripts.chunks(prefix)) for prefix in prefixes)
        return ContextFacts(
            name=name,
            size=size,
            parallel=options.parallel,
            kv_bytes=0,
            compute_bytes=0,
            seconds=0.0,
            prefix_tokens=known,
            media=self._media,
        )

    @property
    def _media(self) -> MediaFacts | None:
        """Return what the script declares: it needs no projector."""
        kinds = self._script.media
        return MediaFacts(vision="image" in kinds, audio="audio" in kinds) if kinds else None

    def declare_prefixes(self, name: str, prefixes: tuple[Prefix, ...]) -> int:
        texts = self._known(name).prefixes = [_without(p.joint, p.text) for p in prefixes]
        return sum(len(scripts.chunks(text)) for text in texts)

    def retune_context(self, name: str, *, threads: int, scales: tuple[float, ...]) -> None:
        wanted = len(self._known(name).options.adapters)
        if len(scales) != wanted:
            raise Invalid(f"{len(scales)} scales for {wanted} adapters")

    def share_cores(self, rank: int, of: int) -> None:
        """Do nothing: there is no computation to share cores for."""

    def close_context(self, name: str) -> None:
        context = self._contexts.pop(name, None)
        if context is not None:
            for answer in (*context.waiting, *context.running):
                self._outbox.append(_ended(answer, "cancelled", None))

    def prepare(self, job: Job) -> Job:
        return job

    def count_tokens(self, question: Prompt) -> int:
        self._known(question.context)
        return len(scripts.chunks(self._prompt_of(question)))

    def _prompt_of(self, asked: Prompt) -> str:
        text = self._text_of(asked.prompt)
        if asked.media:
            check_media(asked, self._media)
            text = scripts.with_media(text, asked.marker, asked.media)
        text = _without(asked.joint, text)
        _well_formed(text)
        return text

    def submit(self, job: Job) -> None:
        try:
            if isinstance(job, Embed):
                self._known(job.context)
                self._embeds.append(job)
            else:
                context = self._known(job.context)
                context.waiting.append(self._answer(job, context))
        except MullamaError as error:
            self._outbox.append(Failed.of(job.id, error))

    def cancel(self, id: int) -> None:
        for context in self._contexts.values():
            for answer in (*context.waiting, *context.running):
                answer.cancelled |= answer.job.id == id
        for job in [e for e in self._embeds if e.id == id]:
            self._embeds.remove(job)
            self._outbox.append(Ended(id=id, reason="cancelled"))

    def interrupt(self) -> None:
        """Do nothing: a step never takes long."""

    def announce_prompt(self, context: str) -> None:
        """Do nothing: a step is not cheaper for several prompts."""

    @property
    def busy(self) -> bool:
        return bool(self._outbox or self._embeds or any(c.running or c.waiting for c in self._contexts.values()))

    @property
    def remark(self) -> str:
        return ""

    @property
    def next_step_is_fast(self) -> bool:
        return False  # a script may pause before any token

    @property
    def batch_delay(self) -> float:
        return 0.0  # a step is not cheaper for several prompts

    def step(self) -> Sequence[Output]:
        outputs, self._outbox = self._outbox, []
        self._steps += 1
        while self._embeds:
            outputs.append(self._embedded(self._embeds.popleft()))
        now = time.monotonic()
        for context in self._contexts.values():
            self._advance(context, now, outputs)
        if not outputs:
            self._wait(now)
        return outputs

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, joint: str | None = None
    ) -> tuple[int, ...]:
        text = _without(joint or "", text)
        _well_formed(text)
        return tuple(scripts.token_of(chunk) for chunk in scripts.chunks(text))

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.pieces(tokens))

    def pieces(self, tokens: Sequence[int]) -> tuple[bytes, ...]:
        _in_range(tokens)
        return tuple(scripts.chunk_of(token) for token in tokens)

    def stats(self) -> EngineStats:
        contexts = self._contexts.values()
        return EngineStats(
            steps=self._steps,
            prompt_tokens=self._prompt,
            cached_tokens=self._cached,
            completion_tokens=self._completion,
            running=sum(len(c.running) for c in contexts),
            waiting=sum(len(c.waiting) for c in contexts) + len(self._embeds),
            cells_used=sum(a.computed + a.sent for c in contexts for a in c.running),
            cells_total=sum(c.size * c.options.parallel for c in contexts),
            sequences_busy=sum(len(c.running) for c in contexts),
            contexts=tuple(self._contexts),
            caches=tuple(c.cache_use(name) for name, c in self._contexts.items()),
        )

    def close(self) -> None:
        for name in list(self._contexts):
            self.close_context(name)

    def _answer(self, job: Generate, context: _Context) -> _Answer:
        if job.constraint is not None and not self._script.constraints:
            raise Unsupported(
                "a script cannot be made to follow a grammar",
                hint="write the answers so that they do, and set constraints in the script",
            )
        if job.suffix is not None:
            raise Unsupported("a script cannot fill in the middle", hint="send no suffix")
        prompt = self._prompt_of(job)
        tokens = len(scripts.chunks(prompt))
        if tokens == 0:
            raise Invalid("the prompt is empty", hint="send at least one character", field="prompt")
        if tokens >= context.size:
            raise ContextOverflow(tokens, context.size)
        reply = scripts.reply(self._script, prompt)
        room = context.size - tokens
        wanted = room if job.max_tokens is None or job.max_tokens < 0 else job.max_tokens
        declared = [p for p in context.prefixes if prompt.startswith(p)] if job.cache else []
        cached = max((len(scripts.chunks(p)) for p in declared), default=0)
        return _Answer(
            job=job,
            reply=reply,
            chunks=scripts.chunks(reply.text),
            text=prompt,
            prompt=tokens,
            cached=min(cached, tokens - 1),
            limit=min(wanted, room),
            stops=StopMatcher(job.stop) if job.stop else None,
        )

    def _advance(self, context: _Context, now: float, outputs: list[Output]) -> None:
        while context.waiting and len(context.running) < context.options.parallel:
            answer = context.waiting.popleft()
            answer.begun = answer.first = now
            answer.computed = answer.cached
            context.running.append(answer)
            self._cached += answer.cached
            text = answer.text if answer.job.want_prompt else ""
            outputs.append(
                Begun(id=answer.job.id, prompt_tokens=answer.prompt, cached_tokens=answer.cached, prompt=text)
            )
        ended = [answer for answer in context.running if self._step_of(answer, context, now, outputs)]
        for answer in ended:
            context.running.remove(answer)
        for answer in [a for a in context.waiting if a.cancelled]:
            context.waiting.remove(answer)
            outputs.append(_ended(answer, "cancelled", None))

    def _step_of(self, answer: _Answer, context: _Context, now: float, outputs: list[Output]) -> bool:
        """Output the next tokens of an answer; return True at its end."""
        if answer.cancelled:
            outputs.append(_ended(answer, "cancelled", None))
            return True
        if answer.computed < answer.prompt:
            return self._prefill(answer, context, now, outputs)
        if answer.due > now:
            return False
        if answer.reply.fault and answer.sent == 1:
            misbehave(answer.reply.fault)
        end = min(answer.sent + self._script.burst, len(answer.chunks), answer.limit)
        if end == answer.sent:
            return self._end(answer, now, outputs, None)
        part = answer.chunks[answer.sent : end]
        text, stop = b"".join(part).decode("utf-8", "surrogatepass"), None
        if answer.stops is not None:
            text, stop = answer.stops.feed(text)
        count = end - answer.sent + answer.held
        answer.sent = end
        self._completion += len(part)
        answer.due = now + answer.reply.pause
        if text:
            logprobs = _logprobs(part, answer.job.logprobs)
            details = _details(answer, count, now)
            outputs.append(Piece(id=answer.job.id, text=text, count=count, logprobs=logprobs, details=details))
        answer.held = 0 if text else count
        return stop is not None and self._end(answer, now, outputs, stop)

    def _prefill(self, answer: _Answer, context: _Context, now: float, outputs: list[Output]) -> bool:
        computed = min(answer.computed + context.options.batch, answer.prompt)
        self._prompt += computed - answer.computed
        answer.computed = computed
        answer.first = now
        id = answer.job.id
        if computed < answer.prompt or answer.job.progress:
            outputs.append(Prefilled(id=id, done=computed, total=answer.prompt, seconds=now - answer.begun))
        if computed == answer.prompt and answer.job.echo:
            logprobs = _echoed(_logprobs(scripts.chunks(answer.text), answer.job.logprobs))
            outputs.append(Piece(id=id, text=answer.text, count=answer.prompt, logprobs=logprobs, echo=True))
        return False

    def _end(self, answer: _Answer, now: float, outputs: list[Output], stop: str | None) -> bool:
        rest = answer.stops.flush() if answer.stops is not None and stop is None else ""
        if rest:
            details = _details(answer, answer.held, now)
            outputs.append(Piece(id=answer.job.id, text=rest, count=answer.held, details=details))
        complete = answer.sent == len(answer.chunks)
        reason: Reason = "stop_sequence" if stop is not None else "stop" if complete else "length"
        ended = _ended(answer, reason, stop, now)
        outputs.append(replace(ended, engine_decodes=self._steps, engine_requests=self._steps))
        return True

    def _embedded(self, job: Embed) -> Output:
        texts = [self._text_of(item) for item in job.inputs]
        length = self._script.embedding_length
        if job.pairs:
            scores = [(scripts.similarity(scripts.vector(q, length), scripts.vector(d, length)),) for q, d in job.pairs]
            tokens = sum(len(scripts.chunks(q + d)) for q, d in job.pairs)
            return Embedded(id=job.id, vectors=tuple(scores), tokens=tokens)
        size = self._contexts[job.context].size if job.context in self._contexts else 0
        for index, length_of in enumerate(len(scripts.chunks(text)) for text in texts):
            if length_of > size and not job.truncate:
                return Failed.of(job.id, ContextOverflow(length_of, size, index=index))
        tokens = sum(min(len(scripts.chunks(t)), size) for t in texts)
        return Embedded(id=job.id, vectors=tuple(scripts.vector(t, length) for t in texts), tokens=tokens)

    def _text_of(self, item: PromptInput) -> str:
        if isinstance(item, str):
            return item
        _in_range([part for part in item if not isinstance(part, str)])
        parts = (
            part.encode("utf-8", "surrogatepass") if isinstance(part, str) else scripts.chunk_of(part) for part in item
        )
        return b"".join(parts).decode("utf-8", "replace")

    def _wait(self, now: float) -> None:
        """Sleep until a token is due, but only briefly, because commands may arrive."""
        due = [a.due for c in self._contexts.values() for a in c.running]
        if due:
            time.sleep(min(max(min(due) - now, 0.0), _LONGEST_WAIT))

    def _known(self, name: str) -> _Context:
        context = self._contexts.get(name)
        if context is None:
            raise NotFound(f"there is no context {name!r}", name=name)
        return context


def _ended(
    answer: _Answer,
    reason: Reason,
    stop: str | None,
    now: float | None = None,
) -> Ended:
    tokens: tuple[int, ...] = ()
    if answer.job.want_tokens:
        chunks = (*scripts.chunks(answer.text), *answer.chunks[: answer.sent])
        tokens = tuple(scripts.token_of(chunk) for chunk in chunks)
    return Ended(
        id=answer.job.id,
        reason=reason,
        stop=stop,
        prompt_tokens=answer.prompt,
        cached_tokens=answer.cached,
        completion_tokens=answer.sent,
        prompt_seconds=answer.first - answer.begun,
        decode_seconds=(now or answer.first) - answer.first,
        tokens=tokens,
        # The last token is never computed, unless the model ended the answer after it.
        held_tokens=answer.computed + (answer.sent if reason == "stop" else max(0, answer.sent - 1)),
    )


def _details(answer: _Answer, count: int, now: float) -> PieceDetails | None:
    """Return the details of a piece of the last `count` tokens, None if the job asks for none."""
    if not answer.job.details:
        return None
    return PieceDetails(
        tokens=tuple(scripts.token_of(chunk) for chunk in answer.chunks[answer.sent - count : answer.sent]),
        prompt_seconds=answer.first - answer.begun,
        decode_seconds=now - answer.first,
    )


def _logprobs(part: Sequence[bytes], alternatives: int | None) -> tuple[TokenLogprob, ...]:
    """Return a logprob near 0 for every token, and the same token with lower ones as its alternatives."""
    if alternatives is None:
        return ()
    return tuple(
        _logprob(chunk, -0.01, tuple(_logprob(chunk, -0.01 - i) for i in range(alternatives))) for chunk in part
    )


def _echoed(logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
    """Return the logprobs of a prompt: its first token follows no other, so its logprob is NaN."""
    return (*(replace(first, logprob=math.nan, top=()) for first in logprobs[:1]), *logprobs[1:])


def _logprob(chunk: bytes, value: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    text = chunk.decode("utf-8", "replace")
    return TokenLogprob(id=scripts.token_of(chunk), text=text, bytes=chunk, logprob=value, top=top)


def _without(joint: str, text: str) -> str:
    return text.replace(joint, "") if joint else text


def _bytes_of(part: int | str) -> bytes:
    return scripts.chunk_of(part) if isinstance(part, int) else part.encode("utf-8", "surrogatepass")


def _well_formed(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"the text has a lone surrogate at character {error.start}") from error


def _in_range(tokens: Sequence[int]) -> None:
    for index, token in enumerate(tokens):
        if not 0 <= token < _VOCABULARY:
            raise Invalid(f"token {index} is {token}", hint=f"tokens are 0 to {_VOCABULARY - 1}")
