"""What tokens say: bytes to whole characters, up to a stop string, each looked at once."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from mullama.chat.stops import StopMatcher
from mullama.chat.types import TokenLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedText:
    """Text that is certain by now, how many tokens led to it, and their logprobs."""

    text: str
    count: int
    logprobs: tuple[TokenLogprob, ...]


class Detokenizer:
    """The text of one answer as it grows; bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = StopMatcher(stops)
        self._parts: list[str] = []
        self._count = 0
        self._logprobs: list[TokenLogprob] = []
        self.stop: str | None = None

    def add(self, piece: bytes, logprob: TokenLogprob | None = None) -> bool:
        """Take a token's bytes; True when a stop string was met, which ends the text."""
        self._count += 1
        if logprob is not None:
            self._logprobs.append(logprob)
        self._feed(self._decoder.decode(piece))
        return self.stop is not None

    def _feed(self, text: str) -> None:
        if text and self.stop is None:
            certain, self.stop = self._stops.feed(text)
            if certain:
                self._parts.append(certain)

    def take(self) -> DecodedText | None:
        """What can be said since the last time, None when there is nothing."""
        return self._said() if self._parts else None

    def finish(self) -> DecodedText | None:
        """All that is left, once no more tokens will come."""
        self._feed(self._decoder.decode(b"", True))
        if self.stop is None:
            self._parts.append(self._stops.flush())
        return self._said() if self._count or any(self._parts) else None

    def _said(self) -> DecodedText:
        said = DecodedText(text="".join(self._parts), count=self._count, logprobs=tuple(self._logprobs))
        self._parts, self._count, self._logprobs = [], 0, []
        return said
