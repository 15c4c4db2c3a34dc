"""Sound for `listen`: a WAV file, raw samples from a pipe, or the microphone."""

from __future__ import annotations

import queue
import sys
import time
import wave
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from mullama.errors import Invalid, NotFound, Unavailable, Unsupported
from mullama.struct import Struct

PIECE = 0.1  # seconds
_RECORDER = "arecord -q -t raw -f S16_LE -r 16000 -c 1 | mullama listen -"
_BEHIND = 20  # pieces of the microphone that wait to be sent, before the oldest are lost


class SoundSource(Struct, frozen=True, kw_only=True):
    """Samples of 16 bit, little-endian, one channel."""

    rate: int
    """Samples of one second."""
    pieces: Iterator[bytes]
    paced: bool = False
    """The next piece waits for the answer to the speech so far: the sound is a recording."""


def wav_source(path: Path, resources: ExitStack) -> SoundSource:
    """Return the sound of a WAV file. Raises `NotFound`, `Unavailable`, or `Unsupported` for another format."""
    try:
        file = wave.open(str(path), "rb")  # noqa: SIM115 - it stays open
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist", name=str(path)) from error
    except (wave.Error, EOFError) as error:
        raise Unsupported(
            f"{path} is no WAV file with plain samples: {error}", hint=f"convert it: ffmpeg -i {path.name} sound.wav"
        ) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    resources.enter_context(file)
    return SoundSource(rate=file.getframerate(), pieces=_wav_pieces(file), paced=True)


def _wav_pieces(file: wave.Wave_read) -> Iterator[bytes]:
    width, channels, frames = file.getsampwidth(), file.getnchannels(), max(1, int(file.getframerate() * PIECE))
    while data := file.readframes(frames):
        yield mono(data, width, channels)


def mono(data: bytes, width: int, channels: int) -> bytes:
    """Return samples of 16 bit and one channel, of the mean of all channels.

    width: bytes of a sample; samples of one byte have no sign, as in WAV files.
    """
    if width == 1:
        samples = array("h", ((byte - 128) << 8 for byte in data))
    else:  # the two highest bytes of each sample
        high = bytearray(len(data) // width * 2)
        high[0::2], high[1::2] = data[width - 2 :: width], data[width - 1 :: width]
        samples = array("h", bytes(high))
        if sys.byteorder == "big":
            samples.byteswap()
    if channels > 1:
        parts = [samples[channel::channels] for channel in range(channels)]
        samples = array("h", (sum(frame) // channels for frame in zip(*parts, strict=True)))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def raw_source(
    source: BinaryIO,
    rate: int,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> SoundSource:
    """Return the samples of a pipe, no faster than they are spoken."""

    def pieces() -> Iterator[bytes]:
        size, begin, sent, rest = 2 * int(rate * PIECE), clock(), 0.0, b""
        while data := source.read(size):
            data = rest + data
            whole = len(data) // 2 * 2
            rest = data[whole:]
            if (early := sent - (clock() - begin)) > PIECE:
                sleep(early - PIECE)
            sent += whole / 2 / rate
            yield data[:whole]

    return SoundSource(rate=rate, pieces=pieces())


def microphone(rate: int, resources: ExitStack) -> SoundSource:
    """Return the sound of the default microphone.

    Raises `Unsupported` without the package `sounddevice`, `Unavailable` without a microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the library of the system is missing
        raise Unsupported(
            f"the microphone needs the package sounddevice and PortAudio: {error}",
            hint=f"install mullama[audio], or pipe the sound in: {_RECORDER}",
        ) from error
    heard: queue.Queue[bytes] = queue.Queue(_BEHIND)

    def take(data: Any, *_: object) -> None:
        if heard.full():
            heard.get_nowait()
        heard.put_nowait(bytes(data))

    try:
        resources.enter_context(
            sounddevice.RawInputStream(
                samplerate=rate, channels=1, dtype="int16", blocksize=int(rate * PIECE), callback=take
            )
        )
    except sounddevice.PortAudioError as error:
        raise Unavailable(f"the microphone cannot be used: {error}", hint=f"pipe the sound in: {_RECORDER}") from error
    return SoundSource(rate=rate, pieces=iter(heard.get, b""))


def check_rate(rate: int) -> None:
    """Raise `Invalid` for a rate that the server does not take."""
    if not 8_000 <= rate <= 96_000:
        raise Invalid(f"{rate} samples of one second are not between 8000 and 96000", hint="convert the sound")
