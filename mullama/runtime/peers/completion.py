"""A completion that a peer generates: its events, its metrics and its end, as those of a model of this server."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from mullama.chat import types as chat
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.runtime.base import Caller
from mullama.runtime.metering import Meter, Metered, RequestResult
from mullama.runtime.metrics import ModelMetrics
from mullama.runtime.peers.answer_stream import AnswerStream
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.peers.request_form import as_chat, chat_body, completion_body

_REST = 0.5
"""Seconds for which an answer may stay open after its last event."""


class PeerCompletion:
    """One attempt to answer a request of a route that leads to a peer. `model` is `MODEL@PEER`."""

    def __init__(
        self,
        book: PeerBook,
        request: chat.ChatRequest | chat.CompletionRequest,
        caller: Caller,
        metrics: ModelMetrics,
        meter: Meter,
    ) -> None:
        self._book, self._request, self._caller, self._metrics, self._meter = book, request, caller, metrics, meter
        self._arrived = time.monotonic()
        self._first: float | None = None
        name = request.model.rpartition(PEER_SIGN)[2]
        self._answer = AnswerStream(name, lambda: f"call_{secrets.token_hex(12)}")
        self.model = request.model
        self.prompt, self.lease = "", None
        self.counted = False

    @property
    def spent(self) -> chat.Usage:
        """The tokens so far; estimated until the peer reports them."""
        return self._answer.usage

    async def events(self) -> AsyncGenerator[Sequence[chat.Event], None]:
        """See `runtime.base.Service.events`."""
        result: RequestResult = "error"
        model = self.model.rpartition(PEER_SIGN)[0]
        path, body = _form(self._request, model)
        try:
            async with self._book.stream(self.model, path, body, self._caller.hops) as pieces:
                while not self._answer.done and (piece := await anext(pieces, None)) is not None:
                    if events := self._named(self._answer.feed(piece)):
                        self._note(events)
                        yield events
                with suppress(TimeoutError):  # a connection whose answer is read to its end is used again
                    async with asyncio.timeout(_REST):
                        while await anext(pieces, None) is not None:
                            pass
                last = self._answer.end(self._timings())
                self._metrics.add_answers(self._answer.usage, self._timings(), ())
                self.counted = True
                yield self._named(last)
            result = "ok"
        except (GeneratorExit, asyncio.CancelledError):
            result = "cancelled"
            raise
        finally:
            self._end(result)

    def _named(self, events: Sequence[chat.Event]) -> Sequence[chat.Event]:
        """Return the events with the name of the model in the first, for the header of the answer."""
        if not any(isinstance(event, chat.Started) for event in events):
            return events
        effective = chat.Effective(
            model=self.model, context_size=0, sampling=self._request.sampling.over(chat.DEFAULT_SAMPLING),
            max_tokens=self._request.max_tokens, stop=self._request.stop,
        )  # fmt: skip
        return [
            chat.Started(prompt_tokens=0, effective=effective) if isinstance(e, chat.Started) else e for e in events
        ]

    def _note(self, events: Sequence[chat.Event]) -> None:
        if self._first is None and any(isinstance(event, chat.TextDelta | chat.ThinkingDelta) for event in events):
            self._first = time.monotonic()
            self._metrics.add_first_token(self._first - self._arrived)

    def _timings(self) -> chat.Timings:
        now = time.monotonic()
        first = self._first if self._first is not None else now
        return chat.Timings(total=now - self._arrived, prompt=first - self._arrived, decode=now - first)

    def _end(self, result: RequestResult) -> None:
        seconds = time.monotonic() - self._arrived
        self._metrics.add_end(result, seconds)
        if not self.counted:
            self._metrics.add_unfinished(self.spent)
            self.counted = True
        self._meter(
            Metered(
                key=self._caller.key, route=self._caller.route or self._request.model, model=self.model,
                usage=self.spent, seconds=seconds, result=result, follows=self._caller.turn > 0,
            )
        )  # fmt: skip


def _form(request: chat.ChatRequest | chat.CompletionRequest, model: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the body of a request to a peer."""
    conversation = request if isinstance(request, chat.ChatRequest) else as_chat(request)
    if conversation is not None:
        return "/v1/chat/completions", chat_body(conversation, model)
    assert isinstance(request, chat.CompletionRequest)
    return "/v1/completions", completion_body(request, model)
