"""Repeats a request that fails before the first text of its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from mullama.chat import types as chat
from mullama.errors import MullamaError

_E = TypeVar("_E")

_ONCE = chat.Started | chat.PromptText
_BEFORE_TEXT = _ONCE | chat.PromptProgress


async def events_until_text(
    attempt: Callable[[], AsyncGenerator[Sequence[_E], None]], again: Callable[[MullamaError, bool], bool]
) -> AsyncGenerator[Sequence[_E], None]:
    """Yield the events of an attempt; of the next one where it fails before its text and `again` returns True.

    The beginning of the answer is sent once. again: receives the failure, and True if a beginning was sent.
    """
    started = begun = failed = False
    while True:
        try:
            async with aclosing(attempt()) as stream:
                async for events in stream:
                    new = [event for event in events if not (failed and started and isinstance(event, _ONCE))]
                    begun = begun or not all(isinstance(event, _BEFORE_TEXT) for event in new)
                    started = started or bool(new)
                    if new:
                        yield new
            return
        except MullamaError as error:
            failed = True
            if begun or not again(error, started):
                raise
