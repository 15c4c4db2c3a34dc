"""Sends damaged images and sounds to a server whose models see and hear, beside questions to another model."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np

from tests.e2e.stack import Stack, serving
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors
from tests.engines.llamacpp.media.test_files import flac, jpeg, mp3, png_of, wav_of

CLIENTS = 4
QUESTION_EACH = 10  # files
ACCEPTED = (200, 400, 413)
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def whole_files() -> dict[str, list[bytes]]:
    """Return small files of each kind, in more formats where their writers are installed."""
    images = [
        projectors.png(40, 24), png_of(5, 3, bytes(3 * (1 + 5 * 6)), bits=16),
        png_of(9, 9, bytes(300), interlace=1), jpeg(3),
    ]  # fmt: skip
    sounds = [
        projectors.wav(0.2, rate=8000), flac(1600), mp3(0.2), wav_of(8000, 1, 400),
        wav_of(8000, 1, 1000, tag=2, block=100, bits=4),
    ]  # fmt: skip
    with contextlib.suppress(ImportError):
        images += _written_images()
    with contextlib.suppress(ImportError):
        sounds += _written_sounds()
    return {"image": images, "audio": sounds}


def _written_images() -> Iterator[bytes]:
    import PIL.Image

    pixels = np.random.default_rng(3).integers(0, 256, (20, 28, 3), np.uint8)
    image, other = PIL.Image.fromarray(pixels), PIL.Image.fromarray(255 - pixels)
    forms: list[tuple[Any, str, dict[str, Any]]] = [
        (image, "JPEG", {}), (image, "JPEG", {"progressive": True}), (image.convert("CMYK"), "JPEG", {}),
        (image, "GIF", {}), (image, "GIF", {"save_all": True, "append_images": [other]}),
        (image, "BMP", {}), (image.convert("P"), "BMP", {}), (image.convert("P"), "PNG", {}),
        (image.convert("RGBA"), "PNG", {}), (image, "WEBP", {}), (image, "WEBP", {"lossless": True}),
        (image, "WEBP", {"save_all": True, "append_images": [other]}),
    ]  # fmt: skip
    for picture, form, options in forms:
        file = io.BytesIO()
        picture.save(file, form, **options)
        yield file.getvalue()


def _written_sounds() -> Iterator[bytes]:
    import soundfile

    wave = 0.4 * np.sin(np.arange(3200) / 5).astype(np.float32)
    for form, subtype in (
        ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW"), ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
    ):  # fmt: skip
        file = io.BytesIO()
        soundfile.write(file, wave, 16000, format=form, subtype=subtype)
        yield file.getvalue()


def damaged_file(number: int, seed: int, files: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """Return the kind and the bytes of a damaged file, the same for the same arguments."""
    random = Random(f"{seed}.{number}")
    kind = random.choice(("image", "image", "audio"))
    data = bytearray(random.choice(files[kind]))
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        _damage(data, random, files[kind])
    return kind, bytes(data)


def _damage(data: bytearray, random: Random, others: list[bytes]) -> None:
    """Change a file by one mutation; most places are in its head, where the sizes are."""
    at = random.randrange(min(len(data), random.choice((24, 64, 4096, len(data)))) or 1) if data else 0
    end = min(len(data), at + random.choice((1, 2, 4, 16, 200)))
    match random.randrange(8):
        case 0 if data:
            data[at] ^= 1 << random.randrange(8)
        case 1:
            data[at:end] = random.randbytes(end - at)
        case 2 | 3:
            form = random.choice(("<B", "<H", ">H", "<I", ">I"))
            value = random.choice(_EXTREMES) & (1 << 8 * struct.calcsize(form)) - 1
            data[at : at + struct.calcsize(form)] = struct.pack(form, value)
        case 4:
            del data[random.randrange(len(data) + 1) :]
        case 5:
            del data[at:end]
        case 6:
            data[at:at] = data[at:end] * random.choice((1, 2, 50))
        case _:
            other = random.choice(others)
            data[at:] = other[random.randrange(len(other)) :]


@dataclass
class Outcomes:
    """The statuses of the answers, and the requests that no client should see fail."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """The number of the file, and the answer."""
    questions: int = 0
    """Answers of the other model."""


@contextlib.contextmanager
def seeing_and_hearing(home: Path) -> Iterator[Stack]:
    """A server with a model that sees, one that hears, and the built-in one."""
    for name, projector in (("eyes", projectors.llava), ("ears", projectors.qwen2a)):
        builders.llama(home / f"{name}.gguf")
        projector(home / f"mmproj-{name}.gguf")
    models: dict[str, Any] = {
        name: {"from": f"./{name}.gguf", "context": {"size": 1024}, "limits": {"parallel": CLIENTS}}
        for name in ("eyes", "ears")
    }
    limits = {"media": {"pixels": 4_000_000, "seconds": 60}}
    with serving(home, {**models, "other": {"from": "builtin:tiny"}}, server={
        "listen": ["127.0.0.1:0"], "limits": limits}) as stack:  # fmt: skip
        yield stack


def send_damaged(url: str, count: int, seed: int = 1) -> Outcomes:
    """Send so many damaged files; another client asks the other model until all are answered."""
    files, outcomes = whole_files(), Outcomes()
    due, over = threading.Semaphore(1), threading.Event()
    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(CLIENTS + 1) as threads:

        def ask(model: str, **more: Any) -> httpx.Response:
            body = {"model": model, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
            return client.post("/api/generate", json={**body, **more})

        def send(number: int) -> tuple[int, int, str]:
            kind, data = damaged_file(number, seed, files)
            image = base64.b64encode(data).decode() or "AA=="
            try:
                answer = ask("eyes" if kind == "image" else "ears", images=[image])
            except httpx.HTTPError as error:
                return number, 0, repr(error)
            return number, answer.status_code, answer.text[:500]

        def question() -> None:
            while due.acquire() and not over.is_set():
                answer = ask("other")
                outcomes.questions += 1
                if answer.status_code != 200:
                    outcomes.failures.append(f"other: {answer.status_code} {answer.text[:500]}")

        asking = threads.submit(question)
        try:
            for number, status, text in threads.map(send, range(count)):
                outcomes.statuses[status] += 1
                if status not in ACCEPTED:
                    outcomes.failures.append(f"{number}: {status} {text}")
                if number % QUESTION_EACH == 0:
                    due.release()
        finally:
            over.set()
            due.release()
        asking.result()
    return outcomes
