"""Files that llama.cpp does not decode are read by the libraries of the extra, and refused by name without them."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.media.formats import header_of
from mullama.engines.base import ContextOptions, Projector, Prompt
from mullama.engines.llamacpp.binding import media as binding
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.media.conversion import CONVERTED, converted
from mullama.engines.llamacpp.media.encoder import MediaEncoder
from mullama.engines.llamacpp.media.files import checked, readable
from mullama.errors import Invalid, TooLarge, Unsupported
from tests.chat.media.test_formats import LOSSY, VORBIS
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors
from tests.engines.llamacpp.media.projectors import png

LIMITS = MediaLimits(seconds=10.0)


@pytest.fixture(scope="module")
def images() -> Any:
    return pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def sounds() -> Any:
    return pytest.importorskip("soundfile")


def image_of(images: Any, form: str, **options: Any) -> bytes:
    """Two pixels of red above two of blue, in a format of Pillow."""
    file = io.BytesIO()
    pixels = np.array([[[255, 0, 0]] * 8] * 4 + [[[0, 0, 255]] * 8] * 4, np.uint8)
    images.fromarray(pixels).convert(options.pop("mode", "RGB")).save(file, form, **options)
    return file.getvalue()


def tone(rate: int, seconds: float = 1.0, channels: int = 1) -> np.ndarray[Any, Any]:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def sound_of(sounds: Any, form: str, subtype: str, rate: int, channels: int = 1, seconds: float = 1.0) -> bytes:
    file = io.BytesIO()
    sounds.write(file, tone(rate, seconds, channels), rate, format=form, subtype=subtype)
    return file.getvalue()


def conversion(kind: Any, data: bytes, limits: MediaLimits = LIMITS) -> tuple[bytes, float]:
    medium = Medium.of(kind, data)
    found = converted(medium, checked(medium, limits, 2), limits, 2)
    assert found is not None
    return found.data, found.seconds


@pytest.fixture
def encoder(load: Callable[..., LlamaEngine], tmp_path: Path) -> Callable[[str], MediaEncoder]:
    """Return a function that loads small weights with a projector of a kind."""

    def one(kind: str) -> MediaEncoder:
        weights, path = tmp_path / "m.gguf", tmp_path / "mmproj.gguf"
        builders.llama(weights)
        getattr(projectors, kind)(path)
        engine = load("llamacpp", str(weights))
        projector = Projector(path=str(path), gpu=False)
        engine.open_context("main", ContextOptions(size=1024, threads=1, projector=projector))
        (made,) = engine._encoders.values()
        return made

    return one


def heard(encoder: MediaEncoder, data: bytes) -> tuple[int, float]:
    """Return the samples that libmtmd reads from a file at its rate of 16 kHz, and their strongest frequency."""
    medium = Medium.of("audio", data)
    header = checked(medium, LIMITS, 1)
    assert header.seconds == pytest.approx(1.0, abs=0.5)  # of MPEG an upper bound
    if header.format in CONVERTED:
        other = converted(medium, header, LIMITS, 1)
        assert other is not None
        data = other.data
    data = readable(data, header)
    native: Any = encoder._native
    with native._bitmap(data, count_only=False) as bitmap:
        assert bitmap is not None
        count = int(binding.m.mtmd_bitmap_get_n_bytes(bitmap))
        read = np.ctypeslib.as_array(binding.m.mtmd_bitmap_get_data(bitmap), shape=(count,)).view(np.float32).copy()
    return len(read), float(np.argmax(np.abs(np.fft.rfft(read))) * 16000 / len(read))


FORMS = [
    *(("WAV", f) for f in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")),
    *(("FLAC", form) for form in ("PCM_S8", "PCM_16", "PCM_24")),
    *(("OGG", form) for form in ("VORBIS", "OPUS")),
    ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip
RATES = {"OPUS": (8000, 16000, 48000), "MPEG_LAYER_III": (8000, 22050, 44100, 48000)}


def test_sounds_of_all_forms_rates_and_channels_are_heard(sounds: Any, encoder: Callable[[str], MediaEncoder]) -> None:
    hears, wrong = encoder("qwen2a"), []
    for form, subtype in FORMS:
        for rate in RATES.get(subtype, (8000, 11025, 22050, 44100, 48000, 96000)):
            for channels in (1, 2):
                count, hertz = heard(hears, sound_of(sounds, form, subtype, rate, channels))
                # Coders of frames have up to some frames more.
                if not 15_900 <= count <= 18_000 or abs(hertz - 440) > 3:
                    wrong.append((form, subtype, rate, channels, count, hertz))
    assert not wrong


def test_a_flac_file_that_ends_in_its_last_frame_is_refused(
    sounds: Any, encoder: Callable[[str], MediaEncoder]
) -> None:
    hears, data = encoder("qwen2a"), sound_of(sounds, "FLAC", "PCM_16", 16_000)
    for sound, refused in ((data, False), (data[:-10], True)):
        prompt = Prompt(context="main", prompt="\ue001?", marker="\ue001", media=(Medium.of("audio", sound),))
        with pytest.raises(Invalid, match="medium 1 of the request is a damaged sound") if refused else nullcontext():
            assert hears.count(prompt)


def test_a_model_sees_and_counts_webp_and_a_compressed_bmp(images: Any, encoder: Callable[[str], MediaEncoder]) -> None:
    sees = encoder("llava")
    run_length = struct.pack("<2sIHHI", b"BM", 14 + 40 + 1024 + 34, 0, 0, 14 + 40 + 1024)
    run_length += struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 34, 0, 0, 256, 0) + bytes(1024)
    run_length += b"\x08\x05\x00\x00" * 8 + b"\0\1"
    for data in (image_of(images, "WEBP"), run_length):
        prompt = Prompt(context="main", prompt="\ue001?", marker="\ue001", media=(Medium.of("image", data),))
        assert sees.count(prompt) >= 16


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 90}, {"lossless": True, "mode": "RGBA"}])
def test_webp_is_read_as_bmp(images: Any, options: dict[str, Any]) -> None:
    data, _ = conversion("image", image_of(images, "WEBP", **options))
    pixels = np.asarray(images.open(io.BytesIO(data), formats=["BMP"]))
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_allclose(pixels[0, 0], (255, 0, 0), atol=30)
    np.testing.assert_allclose(pixels[7, 7], (0, 0, 255), atol=30)


def test_the_first_picture_of_an_animation_is_read(images: Any) -> None:
    others = [images.new("RGB", (8, 8), "green")]
    data, _ = conversion("image", image_of(images, "WEBP", lossless=True, save_all=True, append_images=others))
    assert images.open(io.BytesIO(data)).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("channels", [1, 2])
def test_ogg_is_read_as_wav(sounds: Any, subtype: str, channels: int) -> None:
    file = sound_of(sounds, "OGG", subtype, 48000, channels)
    stated = header_of(file)
    data, seconds = conversion("audio", file)
    assert stated is not None
    assert stated.seconds == pytest.approx(1.0, abs=0.01)
    assert seconds == pytest.approx(1.0, abs=0.01)
    read, rate = sounds.read(io.BytesIO(data))
    assert (rate, read.ndim) == (48000, 1)
    spectrum = np.abs(np.fft.rfft(read))
    assert np.argmax(spectrum) * rate / len(read) == pytest.approx(440, abs=2)
    assert np.abs(read).mean() == pytest.approx(0.5 * 2 / np.pi, abs=0.05)


def test_a_sound_that_understates_its_length_is_refused_as_it_is_decoded(sounds: Any) -> None:
    file = bytearray(sound_of(sounds, "OGG", "VORBIS", 8000, seconds=12.0))
    stated = header_of(bytes(file))
    assert stated is not None
    with pytest.raises(TooLarge, match="medium 2 of the request has 12 s"):
        checked(Medium.of("audio", bytes(file)), LIMITS, 2)
    medium = Medium.of("audio", bytes(file))
    with pytest.raises(TooLarge, match=r"medium 2 of the request has 1. s, and 10 s is the most"):
        converted(medium, stated, LIMITS, 2)


@pytest.mark.parametrize(("kind", "data"), [("image", LOSSY), ("audio", VORBIS), ("audio", b"OggS" + bytes(60))])
def test_damaged_files_are_errors_of_the_request(images: Any, sounds: Any, kind: Any, data: bytes) -> None:
    with pytest.raises(Invalid, match="medium 2 of the request is a damaged"):
        conversion(kind, data)


@pytest.mark.parametrize(
    ("kind", "data", "library", "words"),
    [
        ("image", LOSSY, "PIL", "medium 1 of the request is WebP, and the extra `media`"),
        ("audio", VORBIS, "soundfile", "medium 1 of the request is OGG, and the extra `media`"),
    ],
)
def test_without_the_extra_the_refusal_names_it(
    kind: Any, data: bytes, library: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"{library}.Image", raising=False)
    medium = Medium.of(kind, data)
    with pytest.raises(Unsupported, match=words) as refused:
        converted(medium, checked(medium, LIMITS, 1), LIMITS, 1)
    assert refused.value.hint
    assert "pip install 'mullama[media]'" in refused.value.hint


def test_without_the_extra_a_damaged_png_stays_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    medium = Medium.of("image", png(4, 4))
    assert converted(medium, checked(medium, LIMITS, 1), LIMITS, 1) is None
