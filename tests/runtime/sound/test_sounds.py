"""Sounds of files: formats, rates, damage, limits, and memory that does not grow with the length."""

from __future__ import annotations

import io
import os
import random
import struct
import tempfile
from contextlib import aclosing, suppress
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from mullama.audio import RATE, Samples
from mullama.audio.pcm import to_pcm
from mullama.chat.media.wav import wav_file
from mullama.errors import Invalid, MullamaError, TooLarge, Unsupported
from mullama.runtime.sound.files import open_sound
from mullama.runtime.sound.process import HeardWindow, sound_windows
from mullama.runtime.sound.protocol import SoundSettings
from tests.audio.sounds import noise, spoken

SETTINGS = SoundSettings(detector="energy")


def read(data: bytes) -> tuple[int, Samples]:
    sound = open_sound(io.BytesIO(data))
    return sound.rate, np.concatenate([*sound.blocks, np.zeros(0, np.float32)])


def wav(samples: bytes, *, tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (wav(struct.pack("<3h", 0, 16384, -32768)), [0, 0.5, -1]),
        (wav(bytes([128, 192, 0]), bits=8), [0, 0.5, -1]),
        (wav(b"\0\0\0" + b"\0\0\x40" + b"\0\0\x80", bits=24), [0, 0.5, -1]),
        (wav(struct.pack("<2i", 2**30, -(2**31)), bits=32), [0.5, -1]),
        (wav(struct.pack("<4f", 0.5, 2.0, float("nan"), float("-inf")), tag=3, bits=32), [0.5, 1, 0, -1]),
        (wav(struct.pack("<1d", 0.25), tag=3, bits=64), [0.25]),
        (wav(struct.pack("<4h", 0, 16384, 16384, 16384), channels=2), [0.25, 0.5]),
        (wav(struct.pack("<2h", 1, 2))[:-1], [1 / 32768]),  # cut off inside a sample
        (wav(b""), []),
    ],
)
def test_forms_of_wav(data: bytes, expected: list[float]) -> None:
    rate, sound = read(data)
    assert rate == 8000
    assert sound == pytest.approx(expected, abs=1e-6)


def test_a_stream_of_unknown_length_is_read_to_its_end() -> None:
    data = wav_file(to_pcm(spoken(1)))
    assert len(read(data[:40] + b"\xff" * 4 + data[44:])[1]) == RATE


@pytest.mark.parametrize("format", ["FLAC", "MP3", "OGG", "WAV"])
def test_formats_by_soundfile(format: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    subtype = {"WAV": "IMA_ADPCM"}.get(format)
    soundfile.write(buffer, np.stack([spoken(2)] * 2, axis=1), RATE, format=format, subtype=subtype)
    rate, sound = read(buffer.getvalue())
    assert rate == RATE
    assert len(sound) == pytest.approx(2 * RATE, abs=4000)
    assert np.sqrt((sound**2).mean()) == pytest.approx(np.sqrt((spoken(2) ** 2).mean()), rel=0.1)


@pytest.mark.parametrize(
    ("format", "subtype", "message"),
    [
        ("FLAC", "PCM_16", "cannot be decoded to its end"),
        ("MP3", "MPEG_LAYER_III", r"states 0\.8 s more"),
        ("OGG", "VORBIS", "its last page is not complete"),
        ("OGG", "OPUS", "its last page is not complete"),
        ("WAV", "IMA_ADPCM", "it states 2.0 s of sound and ends after 1.2 s"),
    ],
)
def test_a_file_of_soundfile_that_ends_early(format: str, subtype: str, message: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, spoken(2), RATE, format=format, subtype=subtype)
    whole = buffer.getvalue()
    with pytest.raises(Invalid, match=message):
        read(whole[: len(whole) * 6 // 10])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a sound of a known format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a sound of a known format"),
        (b"hello world, this is text", "not a sound of a known format"),
        (b"RIFF\0\0\0\0WAVE", "no samples"),
        (wav(b"\0\0")[:30], "header ends early"),
        (wav(b"\0\0", channels=0), "0 channels"),
        (wav(b"\0\0", rate=0), "0 samples in a second"),
        (wav(b"\0\0", rate=999_999), "999999 samples in a second"),
        (wav(bytes(16000))[:-4000], "it states 1.0 s of sound and ends after 0.8 s"),
        (wav(bytes(16000), tag=7, bits=8)[:-4000], "it states 2.0 s of sound and ends after 1.5 s"),
        (b"fLaC" + bytes(100), "damaged sound"),
        (b"OggS" + bytes(100), "damaged sound"),
        (b"ID3" + bytes(100), "damaged sound"),
    ],
)
def test_damaged_files(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read(data)


def test_damage_at_random_is_an_error_or_a_sound() -> None:
    soundfile = pytest.importorskip("soundfile")
    chance, good = random.Random(5), [wav_file(to_pcm(spoken(0.2)))]
    for format in ("FLAC", "MP3", "OGG"):
        buffer = io.BytesIO()
        soundfile.write(buffer, spoken(0.2), RATE, format=format)
        good.append(buffer.getvalue())
    for number in range(400):
        data = bytearray(good[number % len(good)])
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with suppress(MullamaError):
            read(bytes(data[: chance.randrange(len(data))] if number % 3 == 0 else data))


def test_without_soundfile_other_formats_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(Unsupported, match="FLAC"):
        read(b"fLaC" + bytes(100))
    assert len(read(wav_file(to_pcm(spoken(1))))[1]) == RATE


def on_disk(*parts: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    for part in parts:
        file.write(part)
    file.flush()
    return file


async def heard(file: IO[bytes], settings: SoundSettings = SETTINGS) -> list[HeardWindow]:
    with file:
        return [window async for window in sound_windows(file, settings)]


@pytest.mark.anyio
async def test_windows_of_a_file() -> None:
    sound = np.concatenate([noise(1, -80), spoken(2), noise(2, -80), spoken(1), noise(1, -80)])
    found = await heard(on_disk(wav_file(to_pcm(sound))), SoundSettings(detector="energy", enough=1.0))
    assert [bool(window.pcm) for window in found] == [True, True, False]
    assert [window.line.start / RATE for window in found[:2]] == pytest.approx([0.8, 4.8], abs=0.1)
    assert found[0].pcm == to_pcm(sound)[found[0].line.start * 2 :][: len(found[0].pcm)]
    assert found[-1].line.length == len(sound)


@pytest.mark.anyio
async def test_silence_has_no_windows() -> None:
    (last,) = await heard(on_disk(wav_file(bytes(2 * RATE))))
    assert last.line.length == RATE


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("data", "settings", "error", "message"),
    [
        (b"nothing", SETTINGS, Invalid, "known format"),
        (wav_file(b""), SETTINGS, Invalid, "no samples"),
        (wav_file(bytes(4 * RATE)), SoundSettings(detector="energy", seconds=1), TooLarge, "more than 1 s"),
    ],
)
async def test_errors_of_the_process(
    data: bytes, settings: SoundSettings, error: type[MullamaError], message: str
) -> None:
    with pytest.raises(error, match=message):
        await heard(on_disk(data), settings)


@pytest.mark.anyio
@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
async def test_a_length_that_a_header_states_is_refused_before_any_window(format: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate([spoken(2), noise(2, -80)] * 3), RATE, format=format)
    settings = SoundSettings(detector="energy", enough=1.0, seconds=10)
    with on_disk(buffer.getvalue()) as file, pytest.raises(TooLarge, match="more than 10 s"):
        async with aclosing(sound_windows(file, settings)) as windows:
            await anext(windows)


@pytest.mark.anyio
async def test_a_process_that_dies_is_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mullama.runtime.sound.process.to_tree", lambda _: {"most": "no number"})
    with pytest.raises(Invalid, match="cannot be decoded"):
        await heard(on_disk(wav_file(bytes(2 * RATE))))


@pytest.mark.anyio
async def test_closing_the_windows_ends_the_process() -> None:
    part, others = to_pcm(np.concatenate([spoken(25), noise(1, -80)])), children()
    with on_disk(wav_file(part * 20)) as file:
        async with aclosing(sound_windows(file, SETTINGS)) as windows:
            await anext(windows)
            (process,) = set(children()) - set(others)
        assert process not in children()
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.anyio
async def test_ten_minutes_need_the_memory_of_one() -> None:
    part = to_pcm(np.concatenate([spoken(7), noise(1, -80)]))

    async def most(repeats: int) -> int:
        peak, others = 0, children()
        header = wav_file(part)[:40] + b"\xff" * 4
        with on_disk(header, *[part] * repeats) as file:
            async for _ in sound_windows(file, SETTINGS):
                peak = max(peak, *(resident(pid) for pid in children() if pid not in others), 0)
        return peak

    short, long = await most(8), await most(75)
    assert long < short + 8 * 2**20


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
