"""One completion of one request on one lease: jobs for the worker, events for the client."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing

from mullama.chat import types as chat
from mullama.chat.prompt import Prepared, prepare
from mullama.engines.base import Generate
from mullama.errors import ContextOverflow, Invalid, TimedOut, Unavailable
from mullama.offload import LARGE
from mullama.runtime.base import Caller
from mullama.runtime.metering import Meter, Metered, RequestResult
from mullama.runtime.metrics import Metrics
from mullama.runtime.pool import Lease, Pool
from mullama.runtime.serving.adapters import adapter_scales, numbered_adapters
from mullama.runtime.serving.aggregate import Aggregate
from mullama.runtime.serving.places import PlaceBoard
from mullama.runtime.serving.vectors import check_ids
from mullama.runtime.snapshot import Deployment
from mullama.runtime.worker.inbox import Inbox
from mullama.runtime.worker.parent import WorkerClient
from mullama.struct import replace

Request = chat.ChatRequest | chat.CompletionRequest
_HANG_CHECK = 0.1  # seconds


class Completion:
    """One try to answer a request: all its choices on one lease."""

    def __init__(
        self,
        pool: Pool,
        metrics: Metrics,
        find: Callable[[], Deployment],
        request: Request,
        caller: Caller,
        places: PlaceBoard,
        *,
        author: Request,
        meter: Meter,
        alone: bool = False,
    ) -> None:
        """author: the request as the client sent it; `request` may be truncated. meter: is called at the end."""
        self._pool, self._find, self._request, self._caller = pool, find, request, caller
        self._places, self._author = places, author
        self._deployment = find()
        self._server_metrics, self._metrics = metrics, metrics.of(self._deployment.name)
        self._arrived = time.monotonic()
        self._alone = alone
        self._has_text = False
        self._meter = meter
        self._aggregate: Aggregate | None = None
        self.counted = False
        """True once the tokens are in the counters of the model."""
        self._prepared: Prepared | None = None
        self.lease: Lease | None = None
        """Also after its end; None if the request got none."""

    @property
    def model(self) -> str:
        """The name of the model that answers."""
        return self._deployment.name

    @property
    def prompt(self) -> str:
        """The rendered prompt; "" before it is rendered, and for token ids."""
        return self._prepared.shown if self._prepared else ""

    @property
    def spent(self) -> chat.Usage:
        """The tokens so far."""
        return self._aggregate.spent() if self._aggregate else chat.Usage()

    async def events(self) -> AsyncGenerator[Sequence[chat.Event], None]:
        """See `runtime.base.Service.events`."""
        result: RequestResult = "error"
        adapter_scales(self._request, self._deployment)  # raises before the request waits
        prepared = self._prepared = await prepared_for(self._request, self._deployment)
        try:
            async with self._pool.lease(
                self._deployment.name, self._caller.priority, alone=self._alone, falls_back=self._caller.falls_back
            ) as lease:
                self.lease = lease
                self._metrics.waits.add(lease.load_seconds)
                if lease.unit != self._deployment.unit:
                    # The model was replaced while the request waited. A prompt of the old template must not reach
                    # the new weights.
                    self._deployment = self._find()
                    prepared = self._prepared = await prepared_for(self._request, self._deployment)
                async with aclosing(self._generate(lease, prepared)) as stream:
                    async for events in stream:
                        yield events
            result = "ok"
        except (GeneratorExit, asyncio.CancelledError):
            result = "cancelled"
            raise
        finally:
            if not self.counted:
                self._metrics.add_unfinished(self.spent)
                self.counted = True
            seconds_taken = time.monotonic() - self._arrived
            self._metrics.add_end(result, seconds_taken)
            self._meter(
                Metered(
                    key=self._caller.key, route=self._caller.route or self._request.model, model=self._deployment.name,
                    result=result, seconds=seconds_taken,
                    usage=self.spent, follows=self._caller.turn > 0,
                )
            )  # fmt: skip
            if (seconds := self._request.keep_alive) is not None:
                self._pool.keep_alive(self._deployment.name, seconds)

    async def _generate(self, lease: Lease, prepared: Prepared) -> AsyncGenerator[Sequence[chat.Event], None]:
        """Generate all choices at once, with one deadline; yield their events in order of arrival."""
        prepared = replace(prepared, sampling=await _with_ids(prepared.sampling, lease))
        jobs = self._jobs(lease, prepared, await self._prompts(lease, prepared))
        readers = {job.id: prepared.reader(choice) for choice, job in enumerate(jobs)}
        effective = self._effective(lease, prepared)
        parallel = self._deployment.options.parallel
        places = self._places.request(
            lease.unit, parallel, self._request, effective, lambda choice: aggregate.generated(choice)
        )
        aggregate = self._aggregate = Aggregate(
            readers,
            self._request.n,
            prepared.warnings,
            effective=effective,
            progress=self._request.progress,
            places=places,
        )
        inbox = Inbox()
        lease.on_cancel(lambda: inbox.fail(_drained()))
        await lease.worker.responsive()
        deadline = TimeLimit(lease.worker, inbox, self._deployment.model.limits.timeout, self._caller.spent)
        try:
            async with aclosing(lease.worker.generate(*jobs, inbox=inbox, request=self._author)) as stream:
                async for outputs in stream:
                    events = aggregate.take(outputs)
                    if aggregate.complete:
                        events.append(self._completed(aggregate, lease))
                    if events:
                        self._note(events)
                        yield events
        except Invalid as error:
            if error.field == "format":
                error.field = _source_of_constraint(self._request.format)
            raise
        finally:
            places.close()
            deadline.cancel()

    def _effective(self, lease: Lease, prepared: Prepared) -> chat.Effective:
        """Return the settings of the answer."""
        deployment = self._deployment
        context = self._pool.context_facts(lease.unit)
        return chat.Effective(
            model=deployment.name,
            context_size=context.size if context else deployment.options.size,
            sampling=prepared.sampling,
            max_tokens=_bounded(prepared.max_tokens, deployment.model.limits.max_tokens),
            stop=prepared.stop,
            constraint=prepared.constraint,
            end_tokens=lease.worker.facts.end_tokens,
            parallel_tool_calls=deployment.settings.parallel_calls
            and (not isinstance(self._request, chat.ChatRequest) or self._request.parallel_tool_calls),
            draft=deployment.options.draft.kind if deployment.options.draft else "",
            adapters=tuple(numbered_adapters(self._request, deployment).items()),
        )

    def _note(self, events: Iterable[chat.Event]) -> None:
        if not self._has_text and any(isinstance(event, chat.TextDelta | chat.ThinkingDelta) for event in events):
            self._metrics.add_first_token(time.monotonic() - self._arrived)
            self._has_text = True

    async def _prompts(self, lease: Lease, prepared: Prepared) -> tuple[chat.PromptInput, ...]:
        """Return the prompts, after the tokens of an earlier answer if the client sent them."""
        if len(prepared.prompts) > 1:
            check_ids(prepared.prompts, lease.worker.facts.vocabulary, "prompt")
        if prepared.media and isinstance(prepared.prompt, str):
            return ((*prepared.context, prepared.prompt),) if prepared.context else (prepared.prompt,)
        if not prepared.context or not isinstance(prepared.prompt, str):
            return tuple([await self._tokenized(lease, prepared, prompt) for prompt in prepared.prompts])
        tokens = await lease.worker.tokenize(
            prepared.prompt, add_special=False, parse_special=True, joint=prepared.joint
        )
        return ((*prepared.context, *tokens),)

    async def _tokenized(self, lease: Lease, prepared: Prepared, prompt: chat.PromptInput) -> chat.PromptInput:
        """Return the tokens of a long text. The worker answers this beside the steps of other requests."""
        if not isinstance(prompt, str) or len(prompt) < LARGE:
            return prompt
        if prepared.suffix is None:
            ids = await lease.worker.tokenize(prompt, add_special=True, parse_special=True, joint=prepared.joint)
        else:
            ids = await lease.worker.tokenize(prompt, add_special=False, parse_special=False)
        _check_tokens(len(ids), self._deployment.options.size)
        return ids

    def _jobs(self, lease: Lease, prepared: Prepared, prompts: tuple[chat.PromptInput, ...]) -> list[Generate]:
        request, limits = self._request, self._deployment.model.limits
        logprobs = request.logprobs
        scales = adapter_scales(request, self._deployment)
        return [
            Generate(
                id=lease.worker.next_id(),
                context=lease.context,
                prompt=prompt,
                joint=prepared.joint if isinstance(prompt, str) or prepared.media else "",
                marker=prepared.marker,
                media=prepared.media,
                media_limits=self._deployment.settings.media_limits,
                suffix=prepared.suffix,
                sampling=_seeded(prepared.sampling, choice),
                max_tokens=_bounded(prepared.max_tokens, limits.max_tokens),
                stop=prepared.stop,
                constraint=prepared.constraint,
                reasoning=prepared.reasoning,
                logprobs=logprobs,
                post_sampling=request.post_sampling,
                ignore_eos=request.ignore_eos,
                draft=request.draft,
                echo=isinstance(request, chat.CompletionRequest) and request.echo,
                scales=scales,
                owner=self._caller.key or "",
                cache=request.cache,
                want_tokens=prepared.want_tokens,
                details=request.details,
                progress=request.progress and choice == 0,
                want_prompt=request.want_prompt,
            )
            for prompt in prompts
            for choice in range(request.n)
        ]

    def _completed(self, aggregate: Aggregate, lease: Lease) -> chat.Completed:
        usage, ends = aggregate.usage(), tuple(aggregate.ends)
        timings = chat.Timings(
            total=time.monotonic() - self._arrived,
            load=lease.load_seconds,
            prompt=aggregate.prompt_seconds,
            decode=aggregate.decode_seconds,
            answers=sum(1 for ended in ends if ended.completion_tokens),
        )
        self._metrics.add_answers(usage, timings, ends)
        self.counted = True
        self._server_metrics.add_decodes(self._deployment.name, lease.worker.pid, ends)
        return chat.Completed(usage=usage, timings=timings, context=aggregate.context)


class TimeLimit:
    """Fails an inbox at the time limit of its request; later, while another request shows that the worker may hang.

    Such a worker is replaced within seconds, and the request is repeated.
    """

    def __init__(self, worker: WorkerClient, inbox: Inbox, timeout: float, spent: float = 0.0) -> None:
        """spent: the seconds of the limit that are over."""
        self._worker, self._inbox, self._timeout = worker, inbox, timeout
        self._timer = asyncio.get_running_loop().call_later(max(0.0, timeout - spent), self._passed)

    def _passed(self) -> None:
        if self._worker.overdue:
            self._timer = asyncio.get_running_loop().call_later(_HANG_CHECK, self._passed)
        else:
            self._inbox.fail(timed_out(self._timeout))

    def cancel(self) -> None:
        self._timer.cancel()


def _drained() -> Unavailable:
    message = "the model was replaced or unloaded, and the request did not finish in time"
    return Unavailable(message, hint="send the request again")


def timed_out(timeout: float) -> TimedOut:
    """Return the error of a request that took longer than its model allows."""
    return TimedOut(f"the request took longer than {timeout:g} s", hint="limits.timeout of the model bounds it")


async def prepared_for(request: Request, deployment: Deployment) -> Prepared:
    """Prepare a request for a model, with its template rendered in a thread.

    Fuel bounds a template, but a long conversation would still block the event loop for some milliseconds. A raw
    prompt needs no rendering, so the switch to a thread would only delay it.
    """
    if isinstance(request, chat.CompletionRequest) and request.raw and request.format is None:
        prepared = prepare(request, deployment.settings, time.time(), _call_id)
    else:
        prepared = await asyncio.to_thread(prepare, request, deployment.settings, time.time(), _call_id)
    _check_length(prepared, deployment.options.size)
    return prepared


def _check_length(prepared: Prepared, size: int) -> None:
    """Raise `ContextOverflow` for a prompt whose ids alone cannot fit, before it is sent to the worker."""
    longest = max(_count_ids(prompt) for prompt in prepared.prompts)
    _check_tokens(len(prepared.context) + longest, size)


def _check_tokens(tokens: int, size: int) -> None:
    if size and tokens >= size:
        raise ContextOverflow(tokens, size)


async def _with_ids(sampling: chat.Sampling, lease: Lease) -> chat.Sampling:
    """Return the sampling with the ids of tokens in place of texts in `logit_bias`."""
    if not any(isinstance(token, str) for token, _ in sampling.logit_bias or ()):
        return sampling
    biases: list[tuple[int | str, float]] = []
    for token, bias in sampling.logit_bias or ():
        if isinstance(token, str):
            ids = await lease.worker.tokenize(token, add_special=False, parse_special=False)
            biases += [(id, bias) for id in ids]
        else:
            biases.append((token, bias))
    return replace(sampling, logit_bias=tuple(biases))


def _count_ids(prompt: chat.PromptInput) -> int:
    return 0 if isinstance(prompt, str) else sum(isinstance(part, int) for part in prompt)


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _seeded(sampling: chat.Sampling, choice: int) -> chat.Sampling:
    """Give each choice of a request its own seed, derived from the client's if there is one."""
    if choice == 0 or sampling.seed is None or sampling.seed == -1:
        return sampling
    return replace(sampling, seed=(sampling.seed + choice) % 2**32)


def _source_of_constraint(format: chat.ResponseFormat | None) -> str:
    """Return the field of a request that its constraint comes from."""
    if format is None:
        return "tools"
    return "grammar" if format.kind == "gbnf" else "response_format"


def _bounded(asked: int | None, ceiling: int | None) -> int | None:
    """Return the client's limit, at most the manifest's. None and negative numbers mean no limit of the client."""
    wanted = None if asked is None or asked < 0 else asked
    if ceiling is None:
        return wanted
    return ceiling if wanted is None else min(wanted, ceiling)
