"""Time of commands with models that are stored already: nothing is hashed again."""

from __future__ import annotations

import sqlite3
import sys
import time
from typing import Any

import psutil
import pytest

from mullama.store.index import Fetched, Index
from mullama.weights.stored import PinnedFile
from tests import ggufs
from tests.e2e.stack import Stack
from tests.stub_hub import StubHub

pytestmark = pytest.mark.bench

LIMIT = 0.3
ROUNDS = 7
FILLER = ggufs.Stored((32, 2**17), 8, bytes(34 * 2**17))
"""Some 4.5 MB, so that hashing them would show."""


def fastest(stack: Stack, *arguments: str) -> float:
    """Seconds of the fastest run of a command, from its start to its end."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        stack.run(*arguments)
        times.append(time.perf_counter() - begun)
    return min(times)


def report(name: str, seconds: float) -> None:
    sys.stdout.write(f"\n{name}: {seconds * 1000:.0f} ms (limit {LIMIT * 1000:.0f} ms)\n")


def read_by(pid: int) -> int:
    """Bytes that a process has read, wherever from."""
    counters: Any = psutil.Process(pid).io_counters()
    return int(counters.read_chars)


def test_a_second_apply_of_twenty_stored_models_hashes_nothing(stack: Stack, hub: StubHub) -> None:
    files = {f"m{n}-Q8_0.gguf": ggufs.model(layers=1 + n).with_tensor("filler", FILLER).bytes() for n in range(20)}
    hub.repo("org/many", files)
    on_demand = {"load": "on_demand"}
    models = {f"m{n}": {"from": f"hf:org/many:m{n}-Q8_0.gguf", "residency": on_demand} for n in range(20)}
    stack.write(models, sources={"hf": {"endpoint": hub.url}})
    stack.apply()
    sent, before = hub.sent, read_by(stack.record["pid"])

    seconds = fastest(stack, "apply", "-f", stack.name, "--yes")

    read = (read_by(stack.record["pid"]) - before) / ROUNDS
    report(f"a second apply of 20 stored models, {sum(map(len, files.values())) >> 20} MiB", seconds)
    assert hub.sent == sent
    assert read < min(map(len, files.values()))
    assert seconds < LIMIT


@pytest.fixture
def thousand(stack: Stack) -> dict[str, Any]:
    """A store of a thousand fetched models; their tree in a manifest."""
    root = stack.home / "data" / "mullama"
    index = Index(root)
    digests = [f"sha256:{number:064x}" for number in range(1000)]
    file = PinnedFile(name="m.gguf", size=5, digest=digests[0])
    index.remember_fetched(Fetched(source="hf:org/m0", resolved="hf:org/m0", revision=None, files=(file,)))
    index.close()
    with sqlite3.connect(root / "index.sqlite") as table:
        (row,) = table.execute("SELECT * FROM fetched").fetchall()
        for number, digest in enumerate(digests[1:], 1):
            source = f"hf:org/m{number}"
            values = (source, source, row[2], row[3].replace(digests[0], digest), *row[4:])
            table.execute(f"INSERT INTO fetched VALUES ({','.join('?' * len(values))})", values)
    table.close()
    (root / "blobs").mkdir()
    for digest in digests:
        (root / "blobs" / digest.replace(":", "-")).write_bytes(b"GGUF.")
    return {f"m{number}": {"from": f"hf:org/m{number}"} for number in range(1000)}


def test_a_thousand_stored_models_are_listed_at_once(stack: Stack, thousand: dict[str, Any]) -> None:
    stack.write({})
    listed = stack.json("list", "--all", "--json")

    seconds = fastest(stack, "list", "--all")

    report(f"list of {listed['total_count']} stored models", seconds)
    report("cache list of as many", fastest(stack, "cache", "list"))
    assert listed["total_count"] == len(thousand)
    assert seconds < LIMIT
