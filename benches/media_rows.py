"""The rows of requests with images: both sides have the same weights and the same projector, with random weights.

Pictures are noise, and each row and round has its own, so that nothing is known before the first question.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path

from benches.projector import ENCODERS, write_projector
from benches.rows import Pairs, Row, Setup, alternating, paired
from benches.servers import Server, llama_server, mullama
from mullama.cli.inference.load_test import quantile
from mullama.sources.local_files import look_into

_CLIENTS = 8
_SIZE = 2048
_STREAM = 250  # tokens of a text beside images


def media(setup: Setup, encoder: str = "base") -> Iterator[Row]:
    """One new image, a second question about it, eight clients with one image, and a text beside images."""
    with _both(setup, encoder) as sides:
        yield paired(
            f"one image ({encoder}): time to first token", 1 / 1.05, "s",
            *alternating(setup, sides, lambda server, number: _first(server, number, 0)), less=True,
        )  # fmt: skip
        yield paired(
            f"second question about it ({encoder}): time to first token", 2.0, "s",
            *alternating(setup, sides, lambda server, number: _first(server, number, 1)), less=True,
        )  # fmt: skip
        shared = alternating(setup, sides, _shared)
        alone = alternating(setup, sides, _separate)[0]
        yield paired(f"{_CLIENTS} clients, one image ({encoder}): all first tokens", 1.0, "s", *shared, less=True)
        yield paired(
            f"the same, against {_CLIENTS} images in mullama ({encoder})", 5.0, "s",
            _against_own(shared[0], alone), less=True,
        )  # fmt: skip
        yield paired(
            f"a text beside requests with images ({encoder}): p99 gap", 1.0, "s",
            *alternating(setup, sides, _gap), less=True,
        )  # fmt: skip


def media_large(setup: Setup) -> Iterator[Row]:
    """The same with the encoder of LLaVA 1.5."""
    return media(setup, "large")


def _against_own(shared: Pairs, alone: Pairs) -> Pairs:
    """Return (one shared image, separate images) of mullama in each round."""
    return [(ours, separate) for (ours, _), (separate, _) in zip(shared, alone, strict=True)]


@contextmanager
def _both(setup: Setup, encoder: str) -> Iterator[tuple[Server, Server]]:
    projector = _projector(setup.model, encoder)
    model = {
        "from": str(setup.model), "mmproj": str(projector), "context": {"size": _SIZE, "threads": setup.threads},
        "limits": {"parallel": _CLIENTS},
    }  # fmt: skip
    with (
        mullama({"bench": model}) as ours,
        llama_server(
            setup.peer, setup.model, threads=setup.threads, size=_SIZE, parallel=_CLIENTS,
            extra=("--mmproj", str(projector), "--no-mmproj-offload"),
        ) as theirs,
    ):  # fmt: skip
        for server in (ours, theirs):
            _ask(server, "Warm up.", [_picture("warm up")], 1)
        yield ours, theirs


def _projector(model: Path, encoder: str) -> Path:
    """Return the projector for these weights beside them; make it if it does not exist."""
    width = look_into((str(model),)).embedding_length
    target = model.parent / f"projector-{encoder}-{width}.gguf"
    if not target.exists():
        partial = target.with_suffix(".part")
        write_projector(partial, width, ENCODERS[encoder])
        partial.rename(target)
    return target


def _first(server: Server, number: int, question: int) -> float:
    """Return the seconds to the first token of a question about the image of a round."""
    text = ("What is in this picture?", "Which colours does it have, and where?")[question]
    return _ask(server, text, [_picture(f"one {number}")], 4)[0]


def _shared(server: Server, number: int) -> float:
    return _together(server, [_picture(f"shared {number}")] * _CLIENTS)


def _separate(server: Server, number: int) -> float:
    return _together(server, [_picture(f"separate {number} {client}") for client in range(_CLIENTS)])


def _together(server: Server, pictures: list[str]) -> float:
    """Return the seconds until each of these questions, sent at once, has its first token."""
    with ThreadPoolExecutor(len(pictures)) as threads:
        asked = [
            threads.submit(_ask, server, f"Question {n}: what is in this picture?", [picture], 4)
            for n, picture in enumerate(pictures)
        ]
        return max(future.result()[0] for future in asked)


def _gap(server: Server, number: int) -> float:
    """Return the p99 gap of a text that is written while another client asks about new images."""
    written, over = threading.Event(), threading.Event()

    def images() -> None:
        written.wait()
        asked = 0
        while not over.is_set():
            _ask(server, "What is this?", [_picture(f"beside {number} {asked}")], 1)
            asked += 1

    with ThreadPoolExecutor(1) as threads:
        beside = threads.submit(images)
        try:
            _, gaps = _ask(server, f"Story {number}: once upon a time", [], _STREAM, written.set)
        finally:
            written.set()
            over.set()
        beside.result()
    return quantile(gaps, 0.99)


def _ask(
    server: Server, text: str, pictures: list[str], tokens: int, started: Callable[[], None] = lambda: None
) -> tuple[float, list[float]]:
    """Return the seconds to the first token of an answer, and those between its tokens. started: at the first one."""
    marks = f"{_marker(server.url)}\n" * len(pictures)
    prompt = f"<|im_start|>user\n{marks}{text}<|im_end|>\n<|im_start|>assistant\n"
    body = {
        "model": "bench", "prompt": {"prompt_string": prompt, "multimodal_data": pictures} if pictures else prompt,
        "n_predict": tokens, "ignore_eos": True, "stream": True, "top_k": 1, "cache_prompt": True,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{server.url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    begun, times = time.perf_counter(), []
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if line.startswith(b"data: {") and not json.loads(line[6:]).get("stop"):
                times.append(time.perf_counter())
                if len(times) == 1:
                    started()
    return times[0] - begun, [after - before for before, after in pairwise(times)]


@cache
def _marker(url: str) -> str:
    """Return the text that stands for an image in prompts: llama-server draws one at each start."""
    with urllib.request.urlopen(f"{url}/props?model=bench", timeout=60) as answer:
        return str(json.load(answer)["media_marker"])


def _picture(seed: str) -> str:
    """Return a picture of coarse noise as PNG in base64, 512 x 384 pixels."""
    rng, width, height = random.Random(seed), 512, 384
    rows = [b"\0" + b"".join(rng.randbytes(3) * 32 for _ in range(width // 32)) for _ in range(height // 32)]
    raw = b"".join(row * 32 for row in rows)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


MEDIA_ROWS = {"media": media, "media_large": media_large}
