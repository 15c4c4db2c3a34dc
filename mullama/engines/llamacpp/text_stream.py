"""Decodes tokens to text: complete characters, up to a stop string, in linear time."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from mullama.chat.stops import StopMatcher
from mullama.chat.types import TokenLogprob
from mullama.struct import Struct, replace


class DecodedText(Struct, frozen=True, kw_only=True):
    """A final part of the text."""

    text: str
    count: int
    """Tokens of this part."""
    logprobs: tuple[TokenLogprob, ...]
    """One for each token, if they were added. Their texts form `text`.

    A token that only begins a character has an empty text; the token that completes it has the character. A stop string
    has no tokens here, and a token that it shares with the text has the text's part.
    """


class Detokenizer:
    """Decodes the text of one answer; bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._begun = b""  # of a character
        self._stops = StopMatcher(stops)
        self._plain = not any(stops)
        self._parts: list[str] = []
        self._count = 0
        self._logprobs: list[TokenLogprob] = []
        self.stop: str | None = None

    @property
    def within_character(self) -> bool:
        """True while the last bytes only begin a character."""
        return bool(self._begun)

    def add_text(self, text: str, logprob: TokenLogprob | None = None) -> bool:
        """Do what `add` does for a token of complete characters, which are the text of `logprob`."""
        if self._begun:
            return self.add(text.encode(), logprob)
        self._count += 1
        if logprob is not None:
            self._logprobs.append(logprob)
        if self._plain:
            self._parts.append(text)
            return False
        self._feed(text)
        return self.stop is not None

    def add(self, piece: bytes, logprob: TokenLogprob | None = None) -> bool:
        """Add a token's bytes; return True when a stop string ends the text."""
        self._count += 1
        text = self._decode(self._begun + piece)
        if logprob is not None:
            self._logprobs.append(_with_text(logprob, text))
        self._feed(text)
        return self.stop is not None

    def _decode(self, octets: bytes, *, end: bool = False) -> str:
        text, used = codecs.utf_8_decode(octets, "replace", end)
        self._begun = octets[used:]
        return text

    def _feed(self, text: str) -> None:
        if text and self.stop is None:
            certain, self.stop = self._stops.feed(text)
            if certain:
                self._parts.append(certain)

    def take(self) -> DecodedText | None:
        """Return the final text since the last call, None if there is none.

        Tokens with logprobs wait until their whole text is final, so that the texts of a part's tokens form its text.
        """
        return self._flush() if self._ready else None

    def take_text(self) -> tuple[str, int, tuple[TokenLogprob, ...]] | None:
        """Return the fields of what `take` returns while no stop string was found."""
        if not self._ready:
            return None
        text = self._parts[0] if len(self._parts) == 1 else "".join(self._parts)
        count, self._count, self._parts = self._count, 0, []
        if not self._logprobs:
            return text, count, ()
        logprobs, self._logprobs = tuple(self._logprobs), []
        return text, count, logprobs

    @property
    def _ready(self) -> bool:
        return bool(self._parts) and not (self._logprobs and (self._stops.holds or self._begun))

    def finish(self) -> DecodedText | None:
        """Return the rest of the text. Call it once, after the last token."""
        rest = self._decode(self._begun, end=True)
        if rest and self._logprobs:
            self._logprobs[-1] = _with_text(self._logprobs[-1], self._logprobs[-1].text + rest)
        self._feed(rest)
        if self.stop is None:
            self._parts.append(self._stops.flush())
        return self._flush() if self._count or any(self._parts) else None

    def _flush(self) -> DecodedText:
        text = "".join(self._parts)
        logprobs = self._logprobs if self.stop is None else _within(self._logprobs, len(text))
        part = DecodedText(text=text, count=self._count, logprobs=tuple(logprobs))
        self._parts, self._count, self._logprobs = [], 0, []
        return part


def _with_text(logprob: TokenLogprob, text: str) -> TokenLogprob:
    """Return the entry with this text, which its own alternative has too."""
    if logprob.text == text:
        return logprob
    top = tuple(replace(other, text=text) if other.id == logprob.id else other for other in logprob.top)
    return replace(logprob, text=text, top=top)


def _within(logprobs: Sequence[TokenLogprob], length: int) -> list[TokenLogprob]:
    """Return the tokens of the first `length` characters, the last one without what follows these."""
    kept: list[TokenLogprob] = []
    for logprob in logprobs:
        if length <= 0:
            break
        kept.append(_with_text(logprob, logprob.text[:length]))
        length -= len(logprob.text)
    return kept
