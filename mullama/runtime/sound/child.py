"""The process for one sound: decodes it, changes its rate, and cuts it at pauses.

It holds some seconds of sound, however long the file is. A file that ends the process, or makes it ask for too much
memory, fails its request and nothing else.
"""

from __future__ import annotations

import json
import sys
from typing import IO

from mullama.audio import RATE
from mullama.audio.pcm import to_pcm
from mullama.audio.resample import Resampler
from mullama.audio.silero import detector
from mullama.audio.voice import VoiceSettings
from mullama.audio.windows import SoundWindow, WindowCutter, WindowLimits
from mullama.codec import from_tree, to_tree
from mullama.errors import Invalid, MullamaError, TooLarge, Unsupported
from mullama.runtime.sound.files import open_sound
from mullama.runtime.sound.protocol import SoundLine, SoundSettings

_MEMORY = 3 * 2**30
"""Address space, most of which is libraries."""
_SECONDS = 900
"""Processor time; three hours of sound take about two minutes."""


def main() -> None:
    """Read the sound on standard input; argument: the settings as JSON."""
    _limit()
    settings = from_tree(SoundSettings, json.loads(sys.argv[1]), "settings")
    out = sys.stdout.buffer
    try:
        _write(out, SoundLine(length=_cut(sys.stdin.buffer, settings, out)))
    except MullamaError as error:
        kind = "unsupported" if isinstance(error, Unsupported) else error.kind.value
        _write(out, SoundLine(error=kind, message=error.message, hint=error.hint or ""))
    except MemoryError:
        _write(out, SoundLine(error="invalid", message="file needs too much memory to decode"))


def _cut(file: IO[bytes], settings: SoundSettings, out: IO[bytes]) -> int:
    """Write the windows of a file; return its length in samples at 16 kHz."""
    sound = open_sound(file)
    cutter = WindowCutter(
        WindowLimits(most=settings.most, enough=settings.enough, overlap=settings.overlap),
        VoiceSettings(
            threshold=settings.threshold, speech=settings.speech, silence=settings.silence, pad=settings.pad
        ),
        detector(settings.detector),
    )  # fmt: skip
    if sound.seconds > settings.seconds:
        raise _too_long(settings)
    resampler, length = Resampler(sound.rate), 0
    for block in sound.blocks:
        piece = resampler.feed(block)
        length += len(piece)
        if length > settings.seconds * RATE:
            raise _too_long(settings)
        for window in cutter.feed(piece):
            _send(out, window)
    rest = resampler.end()
    length += len(rest)
    if not length:
        raise Invalid("file has no samples", hint="send the complete file", field="file")
    for window in (*cutter.feed(rest), *cutter.end()):
        _send(out, window)
    return length


def _too_long(settings: SoundSettings) -> TooLarge:
    return TooLarge(
        f"file has more than {settings.seconds:g} s of sound",
        hint="send a shorter one, or raise server.limits.media.seconds in the manifest",
    )


def _send(out: IO[bytes], window: SoundWindow) -> None:
    pcm = to_pcm(window.samples)
    line = SoundLine(
        start=window.start, overlap=window.overlap, cut=window.cut, voice=window.voice, bytes=len(pcm)
    )  # fmt: skip
    _write(out, line, pcm)


def _write(out: IO[bytes], line: SoundLine, pcm: bytes = b"") -> None:
    out.write(json.dumps(to_tree(line)).encode() + b"\n" + pcm)
    out.flush()


def _limit() -> None:
    """Bound the memory and the time that a hostile file can take, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, most in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _SECONDS), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError):
            continue


if __name__ == "__main__":
    main()
