"""How fast a pull is, beside the hub's own client and a plain download of the same bytes in the same run."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ggufs
from tests.sources.place import Place, place_of
from tests.stub_hub import StubHub

pytestmark = pytest.mark.bench

ROUNDS = 5
SIZE = 400 * 2**20


def _serve(connection: Any) -> None:
    """The stub in a process of its own, so that it does not share the interpreter with what is measured."""
    data = random.Random(1).randbytes(34 * 2**20) * 12
    file = ggufs.model().with_tensor("filler", ggufs.Stored((32, 12 * 2**20), 8, data)).bytes()
    with StubHub() as hub:
        hub.repo("org/m", {"big-Q8_0.gguf": file})
        hub.files["/big.gguf"] = file
        connection.send(hub.url)
        connection.recv()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    yield here.recv()
    here.send("end")
    process.join()


def plain(url: str, path: Path) -> None:
    request = urllib.request.Request(f"{url}/big.gguf", headers={"Range": "bytes=0-"})
    with urllib.request.urlopen(request) as answer, path.open("wb") as file:
        while piece := answer.read(2**20):
            file.write(piece)


def timed(work: Any, *arguments: Any) -> float:
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun


def test_a_pull_with_hashing_keeps_up_with_downloads_without(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    stub = StubHub()
    stub.url = url
    ours, hub, other = [], [], []
    for number in range(ROUNDS):
        place: Place = place_of(tmp_path / f"ours{number}", stub)
        ours.append(timed(place.pull, "hf:org/m"))
        cache = str(tmp_path / f"hub{number}")
        hub.append(timed(lambda: hf_hub_download("org/m", "big-Q8_0.gguf", endpoint=url, cache_dir=cache)))  # noqa: B023
        other.append(timed(plain, url, tmp_path / f"plain{number}"))
    stub.close()
    best = min(ours)
    sys.stdout.write(
        f"\npull of {SIZE >> 20} MiB from loopback, best of {ROUNDS}: ours {best:.2f} s with hashing and fsync, "
        f"hf_hub_download {min(hub):.2f} s, plain {min(other):.2f} s; "
        f"ratio {min(hub) / best:.2f} and {min(other) / best:.2f}\n"
    )
    assert min(hub) / best >= 0.9


PEAK = """
import runpy, sys
puller, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(puller, run_name="__main__")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_a_pull_needs_little_memory(url: str, tmp_path: Path) -> None:
    puller = Path(__file__).with_name("puller.py")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(puller), str(tmp_path / "store"), f"{url}/big.gguf"],
        check=True,
        capture_output=True,
        text=True,
    )
    peak = int(done.stdout.split()[-1]) >> 10
    sys.stdout.write(f"\npeak memory of a pull of {SIZE >> 20} MiB: {peak} MiB\n")
    assert peak < 100
