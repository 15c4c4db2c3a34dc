"""SIGKILL at every system call of a commit: the next read finds the old state or the new one, never a mix."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mullama.store.blobs import Blobs
from mullama.store.records import Records, Revision

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CALLS = ("openat", "write", "fsync", "rename", "ftruncate")
COMMIT = """
import sys, json
from pathlib import Path
from mullama.store.records import Records, Revision
records = Records(Path(sys.argv[1]), "test")
with records.lock("test"):
    records.save_overlay({"new": {"from": "x" * 20000}})
    records.commit(Revision(generation=2, revision="new", manifest={"x": "n" * 20000}, when=2.0, trigger="apply",
        by="", origin={}, summary={}))
"""
BLOB = """
import sys, hashlib
from pathlib import Path
from mullama.store.blobs import Blobs
data = b"w" * 200_000
digest = "sha256:" + hashlib.sha256(data).hexdigest()
blobs = Blobs(Path(sys.argv[1]))
with blobs.receive(digest) as partial:
    partial.restart()
    partial.write(data)
    partial.promote()
"""


def moments(call: str, code: str, folder: Path) -> list[int]:
    """Return the numbers of the calls of this kind that touch files in the folder, counted from the process start."""
    log = folder.with_suffix(".strace")
    command = ["strace", "-qq", "-y", "-o", str(log), "-e", f"trace={call}"]
    subprocess.run([*command, sys.executable, "-c", code, str(folder)], check=True, timeout=60)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(f"{call}(")]
    return [number for number, line in enumerate(lines, 1) if str(folder) in line]


def kill_at(call: str, number: int, code: str, folder: Path) -> None:
    """Run the code and kill it at that call."""
    command = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    inject = ["-e", f"inject={call}:signal=SIGKILL:when={number}"]
    done = subprocess.run(
        [*command, *inject, sys.executable, "-c", code, str(folder)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode in (137, -9), done.stderr


def generation(number: int, revision: str) -> Revision:
    return Revision(
        generation=number, revision=revision, manifest={"x": revision}, when=1.0, trigger="apply", by="", origin={},
        summary={},
    )  # fmt: skip


def prepared(root: Path) -> Records:
    records = Records(root, "test")
    records.save_overlay({"old": {}})
    records.commit(generation(1, "old"))
    return records


@pytest.mark.parametrize("call", CALLS)
def test_a_commit_that_is_killed_leaves_the_old_generation_or_the_new(tmp_path: Path, call: str) -> None:
    prepared(tmp_path / "dry")
    numbers = moments(call, COMMIT, tmp_path / "dry")
    assert numbers
    found = set()
    for number in numbers:
        root = tmp_path / str(number)
        records = prepared(root)

        kill_at(call, number, COMMIT, root)

        last = records.last()
        assert last is not None
        state = (last.revision, *records.overlay())
        assert state in (("old", "old"), ("old", "new"), ("new", "new"))
        assert not list(root.rglob("*.corrupt"))
        found.add(state)
        records.commit(generation(3, "next"))
        assert not list(root.rglob("generations/.*"))
    assert ("old", "old") in found


@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename"])
def test_a_blob_that_is_killed_while_it_is_promoted_is_there_whole_or_not(tmp_path: Path, call: str) -> None:
    data = b"w" * 200_000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    dry = tmp_path / "dry"
    dry.mkdir()
    numbers = moments(call, BLOB, dry)
    assert numbers
    for number in numbers:
        root = tmp_path / str(number)
        root.mkdir()

        kill_at(call, number, BLOB, root)

        blobs = Blobs(root)
        if blobs.has(digest):
            assert Path(blobs.path(digest)).read_bytes() == data
        subprocess.run([sys.executable, "-c", BLOB, str(root)], check=True, timeout=60)
        assert Path(blobs.path(digest)).read_bytes() == data


def test_the_state_is_json_that_other_tools_can_read(tmp_path: Path) -> None:
    records = Records(tmp_path, "test")
    records.commit(generation(1, "one"))
    (path,) = tmp_path.rglob("00000001.json")

    assert json.loads(json.loads(path.read_text())["body"])["revision"] == "one"
