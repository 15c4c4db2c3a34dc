"""The messages between the server and the process for one sound.

The process gets its settings as JSON on its command line and the file as its standard input. It writes lines of JSON;
PCM follows a line of a window.
"""

from __future__ import annotations

from mullama.struct import Struct


class SoundSettings(Struct, frozen=True, kw_only=True):
    """How a sound is cut. Durations in seconds."""

    detector: str = "auto"
    """Name of the detector of voices: auto, energy or silero."""
    threshold: float = 0.5
    speech: float = 0.1
    silence: float = 0.5
    pad: float = 0.2
    most: float = 30.0
    enough: float = 20.0
    overlap: float = 2.0
    seconds: float = 10_800.0
    """A longer sound is refused."""


class SoundLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A window, the end of the sound, or an error. Places in samples at 16 kHz."""

    start: int = 0
    overlap: int = 0
    cut: bool = False
    voice: float = 1.0
    bytes: int = 0
    """Length of the PCM that follows, 16-bit mono; 0 for no window."""
    length: int = -1
    """At the end: samples of the whole sound."""
    error: str = ""
    """Kind of an error."""
    message: str = ""
    hint: str = ""
