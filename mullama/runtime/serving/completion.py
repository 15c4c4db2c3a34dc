"""One generation of one request on one lease: jobs for the worker, events for the client."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from mullama.chat import types as chat
from mullama.chat.prompt import Prepared, prepare
from mullama.engines.base import Generate
from mullama.errors import TimedOut, Unavailable
from mullama.runtime.base import Caller
from mullama.runtime.deployment import Deployment
from mullama.runtime.metrics import Metrics
from mullama.runtime.pool import Lease, Pool
from mullama.runtime.serving.aggregate import Aggregate
from mullama.runtime.worker.inbox import Inbox

Request = chat.ChatRequest | chat.CompletionRequest


class Completion:
    """One generation of one request on one lease."""

    def __init__(
        self, pool: Pool, stats: Metrics, find: Callable[[], Deployment], request: Request, caller: Caller
    ) -> None:
        self._pool, self._find, self._request, self._caller = pool, find, request, caller
        self._deployment = find()
        self._stats = stats.of(self._deployment.name)
        self._arrived = time.monotonic()
        self.started = self.was_running = False
        self._wordless = True

    async def events(self) -> AsyncGenerator[Sequence[chat.Event], None]:
        """See `runtime.base.Service.events`."""
        result = "error"
        prepared = await prepared_for(self._request, self._deployment)
        try:
            async with self._pool.lease(self._deployment.name, self._caller.priority) as lease:
                if lease.unit != self._deployment.unit:
                    # The model was replaced while the request waited: what answers it is what it is prepared for.
                    self._deployment = self._find()
                    prepared = await prepared_for(self._request, self._deployment)
                async with aclosing(self._generate(lease, prepared)) as stream:
                    async for events in stream:
                        yield events
            result = "ok"
        except GeneratorExit:
            result = "cancelled"
            raise
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        finally:
            self._stats.requests[result] += 1
            self._stats.duration.add(time.monotonic() - self._arrived)
            if (seconds := self._request.keep_alive) is not None:
                self._pool.keep(self._deployment.name, float("inf") if seconds < 0 else seconds)

    async def _generate(self, lease: Lease, prepared: Prepared) -> AsyncGenerator[Sequence[chat.Event], None]:
        """All choices at once, their events in the order they happen; one deadline over all."""
        jobs = self._jobs(lease, prepared, await self._prompts(lease, prepared))
        readers = {job.id: prepared.reader(choice) for choice, job in enumerate(jobs)}
        tally = Aggregate(readers, self._request.n, prepared.warnings)
        inbox = Inbox()
        lease.on_cut(lambda: inbox.fail(_cut()))
        timeout = self._deployment.model.limits.timeout
        deadline = asyncio.get_running_loop().call_later(timeout, lambda: inbox.fail(_late(timeout)))
        self.was_running = True
        try:
            async with aclosing(lease.worker.generate(*jobs, inbox=inbox)) as stream:
                async for outputs in stream:
                    events = tally.take(outputs)
                    if tally.complete:
                        events.append(self._completed(tally, lease))
                    if events:
                        self._note(events)
                        yield events
        finally:
            deadline.cancel()

    def _note(self, events: Iterable[chat.Event]) -> None:
        self.started = True
        if self._wordless and any(isinstance(event, chat.TextDelta | chat.ThinkingDelta) for event in events):
            self._stats.first_token.add(time.monotonic() - self._arrived)
            self._wordless = False

    async def _prompts(self, lease: Lease, prepared: Prepared) -> tuple[str | tuple[int, ...], ...]:
        """The prompts, after the tokens of an earlier answer where the client sends those along."""
        if not prepared.context or not isinstance(prepared.prompt, str):
            return prepared.prompts
        tokens = await lease.worker.tokenize(prepared.prompt, add_special=False, parse_special=True)
        return ((*prepared.context, *tokens),)

    def _jobs(self, lease: Lease, prepared: Prepared, prompts: tuple[str | tuple[int, ...], ...]) -> list[Generate]:
        request, limits = self._request, self._deployment.model.limits
        logprobs = request.logprobs
        return [
            Generate(
                id=lease.worker.next_id(),
                context=lease.context,
                prompt=prompt,
                suffix=prepared.suffix,
                sampling=_seeded(prepared.sampling, choice),
                max_tokens=_bounded(prepared.max_tokens, limits.max_tokens),
                stop=prepared.stop,
                constraint=prepared.constraint,
                logprobs=logprobs,
                ignore_eos=request.ignore_eos,
                echo=isinstance(request, chat.CompletionRequest) and request.echo,
                cache=request.cache,
                want_tokens=prepared.want_tokens,
            )
            for prompt in prompts
            for choice in range(request.n)
        ]

    def _completed(self, tally: Aggregate, lease: Lease) -> chat.Completed:
        stats, usage = self._stats, tally.usage()
        stats.prompt_tokens += usage.prompt_tokens
        stats.cached_tokens += usage.cached_tokens
        stats.completion_tokens += usage.completion_tokens
        stats.decode_seconds += tally.decode_seconds
        timings = chat.Timings(
            total=time.monotonic() - self._arrived,
            load=lease.load_seconds,
            prompt=tally.prompt_seconds,
            decode=tally.decode_seconds,
        )
        return chat.Completed(usage=usage, timings=timings, context=tally.context)


def _cut() -> Unavailable:
    message = "the model was replaced or unloaded, and the time to finish is over"
    return Unavailable(message, hint="send the request again")


def _late(timeout: float) -> TimedOut:
    return TimedOut(f"the request took longer than {timeout:g} s", hint="limits.timeout of the model bounds it")


async def prepared_for(request: Request, deployment: Deployment) -> Prepared:
    """Templates render beside the loop: their fuel bounds them, but a long conversation takes its time.

    A prompt that is sent as it is takes none, and a thread that has to be waited for would be most of it.
    """
    if isinstance(request, chat.CompletionRequest) and request.raw and request.format is None:
        return prepare(request, deployment.settings, time.time(), _call_id)
    return await asyncio.to_thread(prepare, request, deployment.settings, time.time(), _call_id)


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _seeded(sampling: chat.Sampling, choice: int) -> chat.Sampling:
    """Choices of one request differ by their seed, reproducibly when the client gave one."""
    if choice == 0 or sampling.seed is None or sampling.seed == -1:
        return sampling
    return replace(sampling, seed=(sampling.seed + choice) % 2**32)


def _bounded(asked: int | None, ceiling: int | None) -> int | None:
    """The client's limit under the manifest's ceiling; None and negative mean no limit of the client's."""
    wanted = None if asked is None or asked < 0 else asked
    if ceiling is None:
        return wanted
    return ceiling if wanted is None else min(wanted, ceiling)
