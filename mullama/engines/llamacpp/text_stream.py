"""Decodes tokens to text: complete characters, up to a stop string, in linear time."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from mullama.chat.stops import StopMatcher
from mullama.chat.types import TokenLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedText:
    """A final part of the text."""

    text: str
    count: int
    """Tokens of this part."""
    logprobs: tuple[TokenLogprob, ...]
    """One for each token, if they were added."""


class Detokenizer:
    """Decodes the text of one answer; bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = StopMatcher(stops)
        self._parts: list[str] = []
        self._count = 0
        self._logprobs: list[TokenLogprob] = []
        self.stop: str | None = None

    def add(self, piece: bytes, logprob: TokenLogprob | None = None) -> bool:
        """Add a token's bytes; return True when a stop string ends the text."""
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
        """Return the final text since the last call, None if there is none."""
        return self._flush() if self._parts else None

    def finish(self) -> DecodedText | None:
        """Return the rest of the text. Call it once, after the last token."""
        self._feed(self._decoder.decode(b"", True))
        if self.stop is None:
            self._parts.append(self._stops.flush())
        return self._flush() if self._count or any(self._parts) else None

    def _flush(self) -> DecodedText:
        part = DecodedText(text="".join(self._parts), count=self._count, logprobs=tuple(self._logprobs))
        self._parts, self._count, self._logprobs = [], 0, []
        return part
