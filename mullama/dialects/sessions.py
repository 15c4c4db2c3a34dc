"""The seam of sessions over a WebSocket: a dialect turns messages and results into actions, and the server runs them.

A session is a pure state machine. It has no clock: the time of sound is counted in its samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mullama.chat.types import ChatRequest, Event
from mullama.dialects.rate_limits import RateReport
from mullama.errors import MullamaError
from mullama.names import JSONValue
from mullama.struct import Struct


class OpenSession(Struct, frozen=True, kw_only=True):
    """Change the connection to a WebSocket and hold a session with the model."""

    model: str
    """Name of the model; "" for the default model, and for a session that transcribes only."""
    transcribes: bool = False
    """The session transcribes sound and gives no answers."""


class Emit(Struct, frozen=True, kw_only=True):
    """Send one message."""

    message: JSONValue


class StartAnswer(Struct, frozen=True, kw_only=True):
    """Generate an answer; its events return by `Session.answered`."""

    id: str
    request: ChatRequest


class CancelAnswer(Struct, frozen=True, kw_only=True):
    """End an answer early. None of its events returns."""

    id: str


class StartTranscript(Struct, frozen=True, kw_only=True):
    """Transcribe a sound; its text returns by `Session.transcribed`."""

    id: str
    """The item that has the sound."""
    model: str
    sound: bytes
    """A WAV file."""
    language: str | None = None
    prompt: str | None = None


SessionAction = Emit | StartAnswer | CancelAnswer | StartTranscript


class Boundary(Struct, frozen=True, kw_only=True):
    """The begin or the end of speech."""

    starts: bool
    at: int
    """Milliseconds since the first sample."""


class SpeechDetector(Protocol):
    """Finds speech in a sound that arrives in pieces."""

    def feed(self, samples: bytes) -> Sequence[Boundary]:
        """Return the boundaries that these samples (16 bit, little-endian, one channel) decide."""
        ...


class SessionFacts(Struct, frozen=True, kw_only=True):
    """The facts about the server that a session needs."""

    id: str
    """At least 96 random bits in hex."""
    model: str
    transcribes: bool
    hears: bool
    """The model reads sound."""
    transcriber: str
    """The model that transcribes unless the client names one; "" for none."""
    most_sound: int
    """Bytes of sound, as 16-bit samples, that one turn may have."""
    longest_turn: float
    """Seconds of sound that one turn may have."""
    detector: Callable[[float, int, int], SpeechDetector]
    """Makes a detector of a threshold (0 to 1), milliseconds of silence that end speech, and samples per second."""


class Session(Protocol):
    """One session. Every method returns the actions that follow, in order; none raises a `MullamaError`."""

    def opened(self) -> Sequence[SessionAction]: ...

    def received(self, message: JSONValue) -> Sequence[SessionAction]:
        """Process a message of the client."""
        ...

    def refused(self, error: MullamaError) -> Sequence[SessionAction]:
        """Report a message that could not be read, or an error of the session itself."""
        ...

    def limited(self, report: RateReport) -> Sequence[SessionAction]:
        """Report what is left of the rate limits."""
        ...

    def answered(self, id: str, events: Sequence[Event]) -> Sequence[SessionAction]:
        """Process events of an answer."""
        ...

    def answer_failed(self, id: str, error: MullamaError) -> Sequence[SessionAction]:
        """End an answer with an error."""
        ...

    def transcribed(self, id: str, text: str, *, done: bool, seconds: float = 0.0) -> Sequence[SessionAction]:
        """Add a piece of a transcript, or end it with its whole text. seconds: duration of the sound."""
        ...

    def transcript_failed(self, id: str, error: MullamaError) -> Sequence[SessionAction]:
        """End a transcript with an error."""
        ...

    @property
    def busy(self) -> bool:
        """True while an answer or a transcript is in progress or wanted."""
        ...

    @property
    def held(self) -> int:
        """The bytes that the session keeps of its client's sounds and texts."""
        ...
