"""How fast a pull is, beside the hub's own client and a plain download of the same bytes in the same run."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ggufs
from tests.sources.source_fixture import source_fixture
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


def plain(url: str, path: Path, hashing: bool) -> None:
    """One ranged request to a file, and nothing else; where it is hashed, then piece by piece as it comes."""
    request = urllib.request.Request(f"{url}/big.gguf", headers={"Range": "bytes=0-"})
    digest = hashlib.sha256()
    with urllib.request.urlopen(request) as answer, path.open("wb") as file:
        while piece := answer.read(2**20):
            if hashing:
                digest.update(piece)
            file.write(piece)


def timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def test_a_pull_keeps_up_with_other_downloads(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours looks the file up, hashes it and makes it durable; the hub's client does the first, plain ones neither."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    stub = StubHub()
    stub.url = url

    def once(folder: Path) -> dict[str, float]:
        sources = source_fixture(folder / "ours", stub)
        hub = {"endpoint": url, "cache_dir": str(folder / "hub")}
        return {
            "ours": timed(lambda: sources.pull("hf:org/m")),
            "hub": timed(lambda: hf_hub_download("org/m", "big-Q8_0.gguf", **hub)),
            "hashed": timed(lambda: plain(url, folder / "hashed", True)),
            "plain": timed(lambda: plain(url, folder / "plain", False)),
        }

    runs = []
    for number in range(ROUNDS):
        (folder := tmp_path / str(number)).mkdir()
        runs.append(once(folder))
        shutil.rmtree(folder)
    stub.close()
    best = {name: min(run[name] for run in runs) for name in runs[0]}
    ratio = {name: seconds / best["ours"] for name, seconds in best.items()}
    sys.stdout.write(
        f"\npull of {SIZE >> 20} MiB from loopback, best of {ROUNDS}: "
        f"ours {best['ours']:.2f} s with hashing and fsync; "
        f"hf_hub_download {best['hub']:.2f} s ({ratio['hub']:.2f}); plain with hashing {best['hashed']:.2f} s "
        f"({ratio['hashed']:.2f}); plain without {best['plain']:.2f} s ({ratio['plain']:.2f})\n"
    )
    assert ratio["hub"] >= 0.9
    assert ratio["hashed"] >= 0.9


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
