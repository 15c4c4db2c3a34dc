"""Sounds in files, read piece by piece in constant memory. Imported in the process for one sound alone.

WAV needs nothing. soundfile (the extra `mullama[audio]`) reads MP3, FLAC, OGG, and the compressed forms of WAV.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO

import numpy as np

from mullama.audio import Samples
from mullama.chat.media.formats import (
    KINDS,
    OGG_PAGE,
    PLAIN_TAGS,
    ROUGH_END,
    SOUNDS,
    Format,
    after_tag,
    format_of,
    missing_seconds,
    ogg_ends_early,
)
from mullama.chat.media.mpeg import MPEG_HEAD, mpeg_tag
from mullama.errors import Invalid, Unsupported
from mullama.struct import Struct, replace

_BLOCK = 1 << 16  # frames
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_RATES = (1_000, 384_000)
_MOST_CHANNELS = 64
_MOST_CHUNKS = 10_000
_ID3_HEAD = 10  # bytes
_UNKNOWN_FRAMES = 2**62  # libsndfile has more for a stream that states none
_DAMAGED = "send the complete file"


class OpenSound(Struct, eq=False):
    """A sound that is read."""

    rate: int
    """Frames of one second."""
    blocks: Iterator[Samples]
    """Its mono samples."""
    seconds: float = 0.0
    """The duration that the header states; 0 where it states none."""


def open_sound(file: IO[bytes], name: str = "file") -> OpenSound:
    """Begin to read a file.

    Raises `Invalid` for one that is damaged or of no known format, also while its blocks are read, and `Unsupported`
    for a format that cannot be read here.

    name: how errors call the file.
    """
    head = file.read(4096)
    file.seek(0)
    form = format_of(head)
    if form is None or KINDS[form] != "audio":
        raise Invalid(f"{name} is not a sound of a known format", hint=f"send {SOUNDS}", field="file")
    sound = _wav(file, name) if form == "wav" else None
    if sound is None:
        stated = _stream_seconds(file, name) if form in ("mp3", "ogg") else 0.0
        file.seek(0)
        sound = _by_soundfile(file, form, name)
        if form == "mp3":
            sound = replace(sound, seconds=stated)
    if not _RATES[0] <= sound.rate <= _RATES[1]:
        raise Invalid(f"{name} has {sound.rate} samples in a second", hint="send 8000 to 96000", field="file")
    return sound


def _damaged(name: str, reason: str) -> Invalid:
    return Invalid(f"{name} is a damaged sound: {reason}", hint=_DAMAGED, field="file")


class _Form(Struct, frozen=True):
    tag: int
    channels: int
    rate: int
    bits: int
    byte_rate: int
    """Bytes of one second; of a compressed sound by its header, so for errors alone."""


def _wav(file: IO[bytes], place: str) -> OpenSound | None:
    """Return a WAV file of plain samples; None for a compressed one. place: how errors call the file."""
    file.seek(12)
    form: _Form | None = None
    for _ in range(_MOST_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        name, size = struct.unpack("<4sI", header)
        if name == b"data":
            if form is None:
                break
            held = _held(file, form, size, place)
            if not _is_plain(form):
                return None
            return OpenSound(form.rate, _wav_blocks(file, form, size), held / form.byte_rate)
        begin = file.tell()
        if name == b"fmt ":
            form = _form(file.read(min(size, 40)), place)
        file.seek(begin + size + size % 2)
    raise _damaged(place, "it has no samples")


def _held(file: IO[bytes], form: _Form, size: int, place: str) -> int:
    """Return the bytes of the samples that a file has; keep its position. Raises `Invalid` if it ends early.

    size: bytes that it states.
    """
    begin = file.tell()
    held = file.seek(0, os.SEEK_END) - begin
    file.seek(begin)
    stated = size / form.byte_rate
    if (missing := missing_seconds(size, held, stated)) > ROUGH_END:
        raise _damaged(place, f"it states {stated:.1f} s of sound and ends after {stated - missing:.1f} s")
    return min(size, held)


def _stream_seconds(file: IO[bytes], place: str) -> float:
    """Return the duration that the tag of MPEG states, 0 without one.

    Raises `Invalid` for MPEG that is shorter, and for OGG whose last page is not complete.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - OGG_PAGE))
    end = file.read(OGG_PAGE)
    file.seek(0)
    start = file.seek(after_tag(file.read(_ID3_HEAD)))
    head = file.read(MPEG_HEAD)
    if head.startswith(b"OggS"):
        if ogg_ends_early(end):
            raise _damaged(place, "its last page is not complete")
        return 0.0
    tag = mpeg_tag(head)
    if tag is not None and (missing := tag.missing(size - start)) > ROUGH_END:
        raise _damaged(place, f"its header states {missing:.1f} s more than it has")
    return 0.0 if tag is None else tag.seconds


def _form(data: bytes, place: str) -> _Form:
    if len(data) < 16:
        raise _damaged(place, "its header ends early")
    tag, channels, rate, byte_rate, _, bits = struct.unpack_from("<HHIIHH", data)
    if tag == _EXTENSIBLE and len(data) >= 26:
        tag = struct.unpack_from("<H", data, 24)[0]
    if not 0 < channels <= _MOST_CHANNELS:
        raise _damaged(place, f"it has {channels} channels")
    if tag in PLAIN_TAGS:
        byte_rate = rate * channels * bits // 8  # writers leave the field out
    return _Form(tag, channels, rate, bits, max(1, byte_rate))


def _is_plain(form: _Form) -> bool:
    return (form.tag == _PCM and form.bits in (8, 16, 24, 32)) or (form.tag == _FLOAT and form.bits in (32, 64))


def _wav_blocks(file: IO[bytes], form: _Form, size: int) -> Iterator[Samples]:
    """Yield the samples. A stream of unknown length states the largest size, and ends with its file."""
    frame = form.bits // 8 * form.channels
    left = size - size % frame
    while left:
        data = file.read(min(left, _BLOCK * frame))
        left -= len(data)
        if len(data) % frame:
            data, left = data[: len(data) - len(data) % frame], 0
        if not data:
            return
        yield _mono(_decoded(data, form).reshape(-1, form.channels))


def _decoded(data: bytes, form: _Form) -> Samples:
    sound: Samples
    if form.tag == _FLOAT:
        sound = np.frombuffer(data, f"<f{form.bits // 8}").astype(np.float32)
        return np.nan_to_num(sound, nan=0.0, posinf=1.0, neginf=-1.0)
    if form.bits == 8:
        sound = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
        return sound
    if form.bits == 24:
        bytes_ = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
        whole = (bytes_[:, 0] | bytes_[:, 1] << 8 | bytes_[:, 2] << 16) << 8 >> 8
        return whole.astype(np.float32) / np.float32(2**23)
    return np.frombuffer(data, f"<i{form.bits // 8}").astype(np.float32) / np.float32(2 ** (form.bits - 1))


def _mono(frames: Samples) -> Samples:
    """Return the mean of the channels; what is beyond full scale is clipped."""
    sound = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)
    return np.clip(sound, -1, 1)


def _by_soundfile(file: IO[bytes], form: Format, place: str) -> OpenSound:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise Unsupported(
            f"{place} is {form.upper()}, and soundfile, which decodes it, is not installed",
            hint='pip install "mullama[audio]" where sounds are decoded, or send WAV with plain samples', field="file",
        ) from error  # fmt: skip
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
        raise _damaged(place, str(error).partition(": ")[2] or "its header cannot be read") from error
    if sound.channels > _MOST_CHANNELS:
        raise _damaged(place, f"it has {sound.channels} channels")

    def blocks() -> Iterator[Samples]:
        while True:
            try:
                frames = sound.read(_BLOCK, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
                raise _damaged(place, "it cannot be decoded to its end") from error
            if not len(frames):
                return
            yield _mono(np.nan_to_num(frames, nan=0.0, posinf=1.0, neginf=-1.0))

    stated = sound.frames if sound.frames < _UNKNOWN_FRAMES else 0
    return OpenSound(int(sound.samplerate), blocks(), stated / max(1, sound.samplerate))
