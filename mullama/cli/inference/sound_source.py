"""Sound for `listen`: a file, raw samples from a pipe, or the microphone."""

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
_HEADS = (b"RIFF", b"fLaC", b"OggS", b"ID3")
"""Beginnings of files that are no samples."""
_BEHIND = 20  # pieces of the microphone that wait to be sent, before the oldest are lost


class SoundSource(Struct, frozen=True, kw_only=True):
    """Samples of 16 bit, little-endian, one channel."""

    rate: int
    """Samples of one second."""
    pieces: Iterator[bytes]
    paced: bool = False
    """The next piece waits for the answer to the speech so far: the sound is a recording."""


def file_source(path: Path, resources: ExitStack) -> SoundSource:
    """Return the sound of a file. WAV with plain samples needs no package; others need the extra `mullama[audio]`.

    Raises `NotFound`, `Unavailable` for a file that cannot be read, `Invalid` for one that is no sound or damaged, also
    while its pieces are read, and `Unsupported` for a format that cannot be decoded here.
    """
    try:
        file = resources.enter_context(path.open("rb"))
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist", name=str(path)) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    try:
        sound = resources.enter_context(wave.open(file, "rb"))  # noqa: SIM115 - the stack closes it
    except (wave.Error, EOFError):
        return _decoded_source(path, file)
    return SoundSource(rate=sound.getframerate(), pieces=_wav_pieces(sound), paced=True)


def _decoded_source(path: Path, file: BinaryIO) -> SoundSource:
    try:
        from mullama.audio import RATE
        from mullama.audio.pcm import to_pcm
        from mullama.audio.resample import Resampler
        from mullama.runtime.sound.files import open_sound
    except ImportError as error:
        raise Unsupported(
            f"{path} is no WAV file with plain samples, and the packages that read others are not installed: {error}",
            hint=f'pip install "mullama[audio]", or convert it: ffmpeg -i {path.name} sound.wav',
        ) from error
    file.seek(0)
    sound = open_sound(file, str(path))

    def pieces() -> Iterator[bytes]:
        resampler = Resampler(sound.rate)
        size, rest = 2 * int(RATE * PIECE), b""
        for block in sound.blocks:
            rest += to_pcm(resampler.feed(block))
            whole = len(rest) // size * size
            yield from (rest[at : at + size] for at in range(0, whole, size))
            rest = rest[whole:]
        if rest := rest + to_pcm(resampler.end()):
            yield rest

    return SoundSource(rate=RATE, pieces=pieces(), paced=True)


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
    """Return the samples of a pipe, no faster than they are spoken. Raises `Invalid` for a file with a header."""

    def pieces() -> Iterator[bytes]:
        size, begin, sent, rest = 2 * int(rate * PIECE), clock(), 0.0, b""
        while data := source.read(size):
            if not sent and data.startswith(_HEADS):
                raise Invalid(
                    "the pipe has a file with a header, and raw samples are expected",
                    hint=f"send samples without a header ({_RECORDER}), or name the file",
                )
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
