"""The service with the tools that the server calls for its models: a decorator of `runtime.base.Service`.

A request without such tools passes to the service beneath unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

from mullama.chat import types as chat
from mullama.chat.answer import Fold, unfold
from mullama.chat.inventory import CreateModel, ModelStateReport, PullModel, TaskStatus
from mullama.chat.transcription import TranscriptEvent, TranscriptionRequest
from mullama.dialects.base import Operation, Result
from mullama.dialects.stored_objects import StoredObject
from mullama.errors import Internal
from mullama.runtime.base import Access, Admission, Caller, Service
from mullama.runtime.tools.answer import AnswerSettings, RunTurn, ToolAnswer
from mullama.runtime.tools.calls import CallRunner
from mullama.runtime.tools.offer import OfferedTools, Toolbox, ToolOffer, offer
from mullama.struct import replace


class ToolService:
    """Implements `runtime.base.Service`."""

    def __init__(
        self,
        inner: Service,
        first_model: Callable[[Operation, Caller], str],
        toolbox: Toolbox,
        calls: CallRunner,
    ) -> None:
        """first_model: returns the name of the model that answers a request unless it fails, or raises its error."""
        self._inner, self._first_model, self._toolbox, self._calls = inner, first_model, toolbox, calls
        self._offered = OfferedTools()

    def events(
        self, request: chat.ChatRequest | chat.CompletionRequest, caller: Caller
    ) -> AsyncIterator[Sequence[chat.Event]]:
        if isinstance(request, chat.ChatRequest) and self._may_offer(request):
            return self._streamed(request, caller)
        return self._inner.events(request, caller)

    async def answer(self, operation: Operation, caller: Caller) -> Result:
        match operation:
            case chat.ChatRequest() if self._may_offer(operation):
                model, found = await self._offer(operation, caller)
                if found is not None and found.empty:
                    operation = found.request
                elif found is not None:
                    return await self._folded(self._answer(found, caller, model, self._whole))
            case chat.CountRequest(chat=asked) | chat.RenderRequest(chat=asked) if self._may_offer(asked):
                _, found = await self._offer(asked, caller)
                if found is not None:
                    return await self._inner.answer(replace(operation, chat=found.request), caller)
            case _:
                pass
        return await self._inner.answer(operation, caller)

    def _may_offer(self, request: chat.ChatRequest) -> bool:
        """Return True for a request that may get tools of this server, or asks for some."""
        return self._toolbox.active or bool(request.tool_servers or request.approvals)

    async def _offer(self, request: chat.ChatRequest, caller: Caller) -> tuple[str, ToolOffer | None]:
        """Return the model that answers first, and the tools that this server offers it."""
        model = self._first_model(request, caller)
        await self._toolbox.asked(model, request.tool_servers)
        return model, offer(request, model, self._toolbox, caller, self._offered)

    async def _streamed(self, request: chat.ChatRequest, caller: Caller) -> AsyncGenerator[Sequence[chat.Event], None]:
        model, found = await self._offer(request, caller)
        stream = (
            self._inner.events(request if found is None else found.request, caller)
            if found is None or found.empty
            else self._answer(found, caller, model, self._inner.events).events()
        )
        async with aclosing(cast(Any, stream)) as batches:
            async for events in batches:
                yield events

    async def _folded(self, answer: ToolAnswer) -> chat.Answer:
        folded = Fold()
        async with aclosing(answer.events()) as batches:
            async for events in batches:
                for event in events:
                    folded.feed(event)
        return folded.answer

    def _answer(self, found: ToolOffer, caller: Caller, model: str, run_turn: RunTurn) -> ToolAnswer:
        settings = AnswerSettings(
            model=model, context_size=self._inner.context_size(model), seconds=self._toolbox.rules(model).seconds
        )

        async def count(text: str) -> tuple[bytes, ...]:
            return await self._pieces(model, text, caller)

        return ToolAnswer(run_turn, count, self._calls, found, caller, settings)

    async def _whole(self, request: chat.ChatRequest, caller: Caller) -> AsyncGenerator[Sequence[chat.Event], None]:
        """Yield the events of a turn that is not streamed: its worker may die, and the turn is repeated."""
        answer = await self._inner.answer(request, caller)
        if not isinstance(answer, chat.Answer):
            raise Internal("a conversation has another result than an answer")
        yield tuple(unfold(answer))

    async def _pieces(self, model: str, text: str, caller: Caller) -> tuple[bytes, ...]:
        """Return the tokens of a text as bytes."""
        operation = chat.TokenizeRequest(model=model, text=text, parse_special=False, with_pieces=True)
        tokens = await self._inner.answer(operation, replace(caller, models=("*",)))
        if not isinstance(tokens, chat.Tokens):
            raise Internal("a text has another result than tokens")
        return tokens.pieces

    # The operations that have nothing to do with tools.

    def access(self) -> Access:
        return self._inner.access()

    def admit(self, operation: Operation, caller: Caller) -> Admission | None:
        return self._inner.admit(operation, caller)

    def default_model(self, caller: Caller) -> str:
        return self._inner.default_model(caller)

    def context_size(self, model: str) -> int:
        return self._inner.context_size(model)

    def transcribe(
        self, request: TranscriptionRequest, caller: Caller
    ) -> AsyncIterator[Sequence[chat.Started | TranscriptEvent]]:
        return self._inner.transcribe(request, caller)

    def tasks(self, operation: PullModel | CreateModel, caller: Caller) -> AsyncIterator[TaskStatus]:
        return self._inner.tasks(operation, caller)

    def watch(self, caller: Caller) -> AsyncIterator[ModelStateReport]:
        return self._inner.watch(caller)

    async def store(self, stored: StoredObject, caller: Caller) -> None:
        await self._inner.store(stored, caller)

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes], caller: Caller) -> bool:
        return await self._inner.receive_blob(digest, chunks, caller)
