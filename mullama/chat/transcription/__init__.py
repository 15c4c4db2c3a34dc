"""Speech to text: the values of a request and its answer."""

from __future__ import annotations

from typing import Any

from mullama.chat.types import TextDelta, TokenLogprob, Usage
from mullama.struct import Struct, repr_without


class SoundFile(Struct, frozen=True, kw_only=True):
    """A sound that a client sent, on disk."""

    file: Any
    """A binary file with a descriptor. It belongs to the request."""
    size: int
    head: bytes
    """The first bytes, which show the format."""
    name: str = ""

    __repr__ = repr_without("file", "head")


class VoiceOverrides(Struct, frozen=True, kw_only=True):
    """Settings of voice activity that a request changes; None for those of the model. Durations in seconds."""

    threshold: float | None = None
    silence: float | None = None
    pad: float | None = None


class TranscriptionRequest(Struct, frozen=True, kw_only=True):
    """Write down the speech of a sound, or translate it into English."""

    model: str
    sound: SoundFile
    translate: bool = False
    language: str | None = None
    """Language of the speech: a code of ISO 639-1; None for the one that the model hears."""
    prompt: str = ""
    """Names and words that may occur."""
    temperature: float | None = None
    logprobs: bool = False
    """Report the tokens with their probabilities."""
    timed: bool = False
    """The answer shows times, so pauses end segments sooner."""
    voice: VoiceOverrides = VoiceOverrides()
    stream: bool = False
    keep_alive: float | None = None
    """As of a `TextRequest`."""
    warnings: tuple[str, ...] = ()


class Segment(Struct, frozen=True, kw_only=True):
    """The text of a stretch of speech. Times in seconds from the beginning of the sound."""

    index: int
    start: float
    end: float
    text: str
    tokens: tuple[TokenLogprob, ...] = ()
    temperature: float = 0.0
    voice: float = 1.0
    """How certain the detector of voices is, from 0 to 1."""

    @property
    def mean_logprob(self) -> float:
        """Mean logarithm of the probabilities of the tokens; 0 without any."""
        return sum(token.logprob for token in self.tokens) / len(self.tokens) if self.tokens else 0.0


class SegmentFinished(Struct, frozen=True, kw_only=True):
    """An event: a segment is complete. Its text came before, in events of its own."""

    segment: Segment
    heard: float
    """Seconds of the sound up to its end."""
    usage: Usage


class Transcript(Struct, frozen=True, kw_only=True):
    """The complete answer."""

    text: str
    segments: tuple[Segment, ...]
    duration: float
    """Of the sound, in seconds."""
    language: str = ""
    """Name of the language in English; "" if it is not known."""
    usage: Usage = Usage()
    warnings: tuple[str, ...] = ()
    answered_by: str = ""
    """Name of the model."""


class Transcribed(Struct, frozen=True, kw_only=True):
    """The last event."""

    transcript: Transcript

    @property
    def usage(self) -> Usage:
        return self.transcript.usage


TranscriptEvent = TextDelta | SegmentFinished | Transcribed
