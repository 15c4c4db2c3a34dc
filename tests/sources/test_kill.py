"""A pull that is killed at any moment is continued by the next one, and nothing wrong is ever visible."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from mullama.store.partial import Partial
from tests import ggufs
from tests.stub_hub import StubHub, sha256

PULLER = Path(__file__).with_name("puller.py")
AGAIN = 16 * 2**20


@cache
def big() -> bytes:
    """A file of 136 MiB, made when it is used first."""
    filler = ggufs.Stored((32, 4 * 2**20), 8, random.Random(1).randbytes(34 * 2**20) * 4)
    return ggufs.model().with_tensor("filler", filler).bytes()


def start(store: Path, hub: StubHub) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(PULLER), str(store), f"{hub.url}/big.gguf"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wrong_blobs(store: Path) -> list[str]:
    folder = store / "blobs"
    names = list(folder.iterdir()) if folder.exists() else []
    return [path.name for path in names if path.name != f"sha256-{sha256(path.read_bytes())}"]


def kill_after(store: Path, hub: StubHub, count: int) -> None:
    """Start a pull and kill it with SIGKILL once `count` more bytes went out, or let it end before."""
    child = start(store, hub)
    try:
        hub.wait_sent(hub.sent + count, timeout=5)
    finally:
        child.kill()
        child.communicate()
    assert wrong_blobs(store) == []


def killed_and_continued(tmp_path: Path, kills: int, seed: int) -> int:
    """The most bytes that went out for one request: a pull that always begins anew shows where this is over AGAIN."""
    store, chance = tmp_path / "store", random.Random(seed)
    digest = f"sha256:{sha256(big())}"
    with StubHub() as hub:
        hub.files["/big.gguf"] = big()
        for _ in range(kills):
            kill_after(store, hub, chance.randrange(1, len(big()) // kills))
        child = start(store, hub)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out.strip(), err) == (0, digest, "")
        requests = len(hub.requests)
        assert start(store, hub).communicate(timeout=60)[0].strip() == digest
        assert len(hub.requests) == requests
    # Closed, so that all that was sent is counted: what the killed process had not read yet is fetched again, too.
    asked = [request for request in hub.requests if request.sent]
    for before, after in pairwise(asked):
        assert after.first <= before.first + before.sent <= after.first + AGAIN
    assert asked[-1].first + asked[-1].sent == len(big())
    assert wrong_blobs(store) == []
    # What a kill between two steps left of a note goes with the next sweep; the file itself never stays.
    assert [p.name for p in (store / "partial").iterdir() if ".json" not in p.name] == []
    Partial.sweep(store / "partial", before=time.time() + 60)
    assert list((store / "partial").iterdir()) == []
    return max(request.sent for request in asked)


def test_a_pull_that_is_killed_five_times_is_continued_each_time(tmp_path: Path) -> None:
    assert killed_and_continued(tmp_path, kills=5, seed=7) > AGAIN


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(40))
def test_a_pull_that_is_killed_at_any_of_200_moments_is_continued(tmp_path: Path, seed: int) -> None:
    killed_and_continued(tmp_path, kills=5, seed=seed)
