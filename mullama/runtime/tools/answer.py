"""One answer with calls of tools: the turns of the model and the calls between them, as the events of one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, cast

from mullama.chat import types as chat
from mullama.chat.tool_servers import SEARCH_LABEL
from mullama.errors import Internal, MullamaError
from mullama.runtime.base import Caller, MadeCall
from mullama.runtime.serving.completion import timed_out
from mullama.runtime.tools.calls import CallRunner, end_tasks
from mullama.runtime.tools.loop import (
    Decision,
    LoopState,
    Offered,
    Verdict,
    added,
    beginning,
    continued,
    decide,
    is_ours,
    room_for_results,
    share_of,
    shortened,
    summed,
    tokens_left,
    with_results,
)
from mullama.runtime.tools.offer import ToolOffer
from mullama.struct import Struct, field, replace
from mullama.tools.base import ToolResult
from mullama.tools.search.quotation import last_number, renumbered

Events = Sequence[chat.Event]
RunTurn = Callable[[chat.ChatRequest, Caller], AsyncIterator[Events]]
"""Yields the events of one turn of the model."""
CountTokens = Callable[[str], Awaitable[Sequence[bytes]]]
"""Returns the tokens of a text, as bytes."""
MOST_AT_ONCE = 16
"""Calls of one answer that run at the same time; further ones wait."""
_CHARACTERS = 3
"""Characters of a token of a conversation that no model has counted yet, about."""
_ERROR = "Error: "
_SEARCHES = f"{SEARCH_LABEL}__"
"""The beginning of the functions of a search."""
_ONCE = chat.Started | chat.PromptText | chat.PromptProgress


class AnswerSettings(Struct, frozen=True, kw_only=True):
    """The settings of one answer that its model decides."""

    model: str
    """Its name, for events and metrics."""
    context_size: int
    """Tokens of its context as it is declared, until its first turn reports them; 0 when unknown."""
    seconds: float | None
    """The time for all turns and calls; None for no limit."""


class _Turn(Struct):
    """The parts of one turn as they arrive."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[chat.ToolCall] = field(default_factory=list)
    """Those of this server's tools."""
    ours: set[int] = field(default_factory=set)
    """Their numbers among all calls of the turn."""
    theirs: dict[int, int] = field(default_factory=dict)
    """The client's calls: number of the turn → number of the answer."""
    finished: chat.Finished | None = None
    completed: chat.Completed | None = None


class ToolAnswer:
    """The answer to one request."""

    def __init__(
        self,
        run_turn: RunTurn,
        count: CountTokens,
        calls: CallRunner,
        offer: ToolOffer,
        caller: Caller,
        settings: AnswerSettings,
    ) -> None:
        self._run_turn, self._count, self._calls = run_turn, count, calls
        self._offer, self._request, self._caller, self._settings = offer, offer.request, caller, settings
        self._arrived = time.monotonic()
        self._begun: float | None = None
        """The time of the first turn's begin: waiting for the model does not count against the time limit."""
        self._state = LoopState()
        self._usage, self._timings = chat.Usage(), chat.Timings(answers=0)
        self._made: list[MadeCall] = []
        self._pages = _pages_of(offer.request)
        """The number of the last page that searches of the conversation found: a number names one page in all of it."""
        self._client_calls = 0
        self._context, self._used = settings.context_size, 0
        """Tokens that the request may use, and those of the conversation so far."""

    async def events(self) -> AsyncGenerator[Events, None]:
        """See `runtime.base.Service.events`."""
        before: list[chat.Event] = list(self._offer.listings)
        async with aclosing(self._approved()) as stream:
            async for events in stream:
                before += events
        closing = False
        while True:
            turn = _Turn()
            async with aclosing(self._turn(turn)) as stream:
                async for events in stream:
                    if before and isinstance(events[0], chat.Started):
                        events, before = [events[0], *before, *events[1:]], []
                    yield events
            decision = self._decided(turn, closing=closing)
            if decision is None:
                yield self._last(turn)
                return
            async with aclosing(self._results(turn, decision)) as stream:
                async for events in stream:
                    yield events
            if decision.ends:
                yield self._last(turn, asked=not turn.theirs)
                return
            closing = decision.closing

    # The turns of the model.

    async def _turn(self, turn: _Turn) -> AsyncGenerator[Events, None]:
        """Yield the events of a turn without its end and without the calls of this server's tools."""
        caller = self._caller
        if self._state.turns or self._made:
            caller = replace(caller, turn=self._state.turns, spent=self._spent(), calls=tuple(self._made))
        if self._state.turns:
            caller = replace(caller, sent=None)
        async with aclosing(cast(Any, self._run_turn(self._request, caller))) as stream:
            async for events in stream:
                shown = [one for event in events for one in self._shown(event, turn)]
                if shown:
                    yield shown
        if turn.completed is None or turn.finished is None:
            raise Internal("a turn of the model ended without its last event")
        self._made = []
        usage = turn.completed.usage
        self._usage = summed(self._usage, usage)
        self._timings = added(self._timings, turn.completed.timings, time.monotonic() - self._arrived)
        self._used = usage.prompt_tokens + usage.completion_tokens

    def _shown(self, event: chat.Event, turn: _Turn) -> Iterable[chat.Event]:
        """Return an event of a turn as one of the answer, and note what it means for the turn."""
        match event:
            case chat.TextDelta():
                turn.text.append(event.text)
            case chat.ThinkingDelta():
                turn.thinking.append(event.text)
            case chat.ToolCallStarted() | chat.ToolCallDelta() | chat.ToolCallFinished():
                return self._shown_call(event, turn)
            case chat.Finished():
                turn.finished = event
                return ()
            case chat.Completed():
                turn.completed = event
                return ()
            case chat.Generated():
                usage = summed(self._usage, event.usage)
                timings = added(self._timings, event.timings, time.monotonic() - self._arrived)
                return (replace(event, usage=usage, timings=timings),)
            case _:
                pass
        if isinstance(event, _ONCE):
            if self._state.turns:
                return ()
            if self._begun is None:
                self._begun = time.monotonic()
            if isinstance(event, chat.Started) and event.effective is not None:
                self._context = event.effective.context_size
        return (event,)

    def _shown_call(
        self, event: chat.ToolCallStarted | chat.ToolCallDelta | chat.ToolCallFinished, turn: _Turn
    ) -> Iterable[chat.Event]:
        """Return the event of a client's call under its number in the answer; none for a call of this server."""
        if isinstance(event, chat.ToolCallStarted):
            if is_ours(event.name, self._offer.tools, self._offer.clients):
                turn.ours.add(event.index)
            else:
                turn.theirs[event.index] = self._client_calls
                self._client_calls += 1
        if event.index in turn.ours:
            if isinstance(event, chat.ToolCallFinished):
                turn.calls.append(event.call)
            return ()
        return (replace(event, index=turn.theirs[event.index]),)

    def _decided(self, turn: _Turn, *, closing: bool) -> Decision | None:
        """Return the decision on the calls of a turn; None for one after which the answer ends without calls."""
        assert turn.finished is not None
        if not turn.calls or turn.finished.reason is not chat.StopReason.TOOL_CALLS:
            return None
        if turn.theirs and not self._request.shows_calls:
            # The client answers its own calls in a new request, which has no place for the results of ours. The model
            # then makes them again, so none is made twice.
            return None
        spent = tokens_left(self._request.max_tokens, _tokens_of(turn)) == 0
        if closing or spent:
            if not turn.theirs:
                reason = chat.StopReason.LENGTH if spent else chat.StopReason.TOOL_LIMIT
                turn.finished = replace(turn.finished, reason=reason)
            return None
        decision = decide(
            turn.calls, self._state, self._offer.tools, self._offer.limits,
            asks=self._request.asks_approval, others=bool(turn.theirs),
        )  # fmt: skip
        self._state = decision.state
        return decision

    def _last(self, turn: _Turn, *, asked: bool = False) -> Events:
        """Return the last events of the answer. asked: it ends because a person must approve a call."""
        assert turn.finished is not None
        assert turn.completed is not None
        finished = turn.finished
        if asked or (turn.calls and not turn.theirs and finished.reason is chat.StopReason.TOOL_CALLS):
            finished = replace(finished, reason=chat.StopReason.STOP)
        if finished.outcome is not None:
            outcome = replace(finished.outcome, usage=self._usage, timings=self._timings)
            finished = replace(finished, outcome=outcome)
        return finished, replace(turn.completed, usage=self._usage, timings=self._timings)

    def _spent(self) -> float:
        """Return the seconds of the time limit that have passed. Raises `TimedOut` at its end."""
        spent, limit = time.monotonic() - (self._begun or self._arrived), self._settings.seconds
        if limit is not None and spent >= limit:
            raise timed_out(limit)
        return spent

    # The calls between them.

    async def _results(self, turn: _Turn, decision: Decision) -> AsyncGenerator[Events, None]:
        """Make the calls of a turn, and continue the request with their results."""
        texts: dict[str, str] = {v.call.id: _ERROR + v.refusal for v in decision.verdicts if v.action == "refuse"}
        first: list[chat.Event] = []
        for verdict in decision.verdicts:
            if verdict.action == "refuse" and verdict.tool is not None:
                first.append(_started(verdict.call, verdict.tool))
                first.append(chat.ToolEnded(id=verdict.call.id, text=verdict.refusal, is_error=True))
        to_make = [verdict for verdict in decision.verdicts if verdict.action == "make"]
        first += [_started(v.call, v.tool) for v in to_make if v.tool is not None]
        if first:
            yield first
        try:
            async with aclosing(self._calls_made(to_make, texts)) as stream:
                async for events in stream:
                    yield events
        finally:
            if self._made:
                self._calls.captured(self._caller.request_id, self._state.turns - 1, self._made)
            self._made = []
        asked = [
            chat.ApprovalNeeded(id=v.call.id, server=v.tool.label, name=v.tool.tool.name, arguments=_object(v.call))
            for v in decision.verdicts
            if v.action == "ask" and v.tool is not None
        ]
        if asked:
            yield asked
        if not decision.ends:
            limit = tokens_left(self._request.max_tokens, _tokens_of(turn))
            after = continued(self._request, "".join(turn.text), "".join(turn.thinking), turn.calls, texts)
            self._request = replace(after, max_tokens=limit)

    async def _calls_made(self, verdicts: Sequence[Verdict], texts: dict[str, str]) -> AsyncGenerator[Events, None]:
        """Make calls at the same time; yield the end of each as it arrives, and add its text to `texts`."""
        room = room_for_results(self._context, self._used, self._request.max_tokens)
        ended: list[chat.ToolEnded] = []
        waiting, places = len(verdicts), asyncio.Semaphore(MOST_AT_ONCE)

        async def make(verdict: Verdict) -> None:
            nonlocal room, waiting
            assert verdict.tool is not None
            async with places:
                left = None if self._settings.seconds is None else self._settings.seconds - self._spent()
                result, seconds = await self._calls.make(
                    verdict.tool, verdict.call, self._caller, self._settings.model, left
                )
            first, pages = self._pages + 1, result.citations
            self._pages += len(pages)
            text = renumbered(result.text, first) if pages else result.text
            if room is not None:
                share, waiting = share_of(room, waiting), waiting - 1
                text, tokens = await self._trimmed(text, share)
                room = max(0, room - tokens)
            texts[verdict.call.id] = _ERROR + text if result.is_error else text
            self._made.append(_made(verdict.tool, verdict.call, replace(result, text=text), seconds))
            ended.append(
                chat.ToolEnded(id=verdict.call.id, text=text, is_error=result.is_error, citations=pages, first=first)
            )

        tasks = {asyncio.create_task(make(verdict)) for verdict in verdicts}
        try:
            pending = tasks
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                events, ended[:] = tuple(ended), ()
                if events:
                    yield events
        finally:
            await end_tasks(tasks)

    async def _trimmed(self, text: str, most: int) -> tuple[str, int]:
        """Return a result of at most so many tokens, and their number. A token has one byte at least."""
        size = len(text.encode("utf-8", "surrogatepass"))
        if size <= most:
            return text, size
        begun = beginning(text, most)
        try:
            pieces = await self._count(begun)
        except MullamaError:  # the model is gone or cannot count; its next turn reports that
            return text[: 2 * most], most
        return shortened(pieces, most, whole=begun == text), min(len(pieces), most)

    # Approvals.

    async def _approved(self) -> AsyncGenerator[Events, None]:
        """Make the calls that a person has approved; their results fill their places in the request."""
        approved = {one.id for one in self._request.approvals if one.approved}
        calls = [call for message in self._request.messages for call in message.tool_calls if call.id in approved]
        if not calls:
            return
        self._begun = time.monotonic()
        self._used = sum(len(message.text) for message in self._request.messages) // _CHARACTERS
        tools = self._offer.tools
        free = {function: replace(tool, approve=False) for function, tool in tools.items()}
        decision = decide(calls, self._state, free, self._offer.limits, asks=True)
        self._state = replace(decision.state, turns=0)
        texts = {v.call.id: _ERROR + v.refusal for v in decision.verdicts if v.action == "refuse"}
        to_make = [verdict for verdict in decision.verdicts if verdict.action == "make"]
        yield [_started(v.call, v.tool, approval=v.call.id) for v in to_make if v.tool is not None]
        async with aclosing(self._calls_made(to_make, texts)) as stream:
            async for events in stream:
                yield events
        self._request = with_results(self._request, texts)


def _pages_of(request: chat.ChatRequest) -> int:
    results = (m for m in request.messages if m.role == "tool" and (m.tool_name or "").startswith(_SEARCHES))
    return max((last_number(message.text) for message in results), default=0)


def _tokens_of(turn: _Turn) -> int:
    """Return the tokens that the model wrote in a turn."""
    return turn.completed.usage.completion_tokens if turn.completed else 0


def _object(call: chat.ToolCall) -> dict[str, Any]:
    """Return the arguments of a call; none of a text that is no JSON object."""
    return {} if isinstance(call.arguments, str) else dict(call.arguments)


def _started(call: chat.ToolCall, tool: Offered, approval: str | None = None) -> chat.ToolStarted:
    return chat.ToolStarted(
        id=call.id, server=tool.label, name=tool.tool.name, arguments=_object(call), approval=approval,
        search=tool.tool.server == SEARCH_LABEL,
    )  # fmt: skip


def _made(tool: Offered, call: chat.ToolCall, result: ToolResult, seconds: float) -> MadeCall:
    return MadeCall(
        server=tool.tool.server, name=tool.tool.name, arguments=_object(call), text=result.text,
        is_error=result.is_error, seconds=seconds,
    )  # fmt: skip
