"""The parts that OpenAI's streams share: the end marker, pings, and an error as the last event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from mullama.dialects.base import Frame
from mullama.dialects.openai.errors import envelope
from mullama.errors import MullamaError
from mullama.names import JSONValue

DONE = Frame(data="[DONE]")
_PING = Frame(data="ping", comment=True)


class EventStream:
    """Base of the stream encoders. `_ended` is set with the terminal event."""

    media: Literal["text/event-stream", "application/x-ndjson"] = "text/event-stream"
    whole: JSONValue = None
    _ended = False

    def fail(self, error: MullamaError) -> Iterable[Frame]:
        """Return the frames of an error, unless the stream has ended."""
        if self._ended:
            return ()
        self._ended = True
        return tuple(self._failed(error))

    def _failed(self, error: MullamaError) -> Iterable[Frame]:
        return (Frame(data={"error": envelope(error)}),)

    def ping(self) -> Iterable[Frame]:
        return (_PING,)
