"""kill -9 at the n-th system call of every write that counts: the next read finds the old or the new, never a mix."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mullama.store.records import Generation, Records

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

CALLS = ("openat", "write", "fsync", "rename", "unlink", "ftruncate")
COMMIT = """
import sys, json
from pathlib import Path
from mullama.store.records import Records, Generation
records = Records(Path(sys.argv[1]), "test")
with records.lock("test"):
    records.save_overlay({"new": {"from": "x" * 20000}})
    records.commit(Generation(generation=2, revision="new", manifest={"x": "n" * 20000}, when=2.0, trigger="apply",
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


def killed_at(call: str, number: int, code: str, folder: Path) -> bool:
    """Run the code and kill it at that call; whether it lived long enough to be killed."""
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(folder), "-e", f"trace={call}",
         "-e", f"inject={call}:signal=SIGKILL:when={number}", sys.executable, "-c", code, str(folder)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode in (0, 137, -9), done.stderr
    return done.returncode != 0


def generation(number: int, revision: str) -> Generation:
    return Generation(
        generation=number, revision=revision, manifest={"x": revision}, when=1.0, trigger="apply", by="", origin={},
        summary={},
    )  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_commit_that_is_killed_leaves_the_old_generation_or_the_new(tmp_path: Path, call: str) -> None:
    killed = 0
    for number in range(1, 200):
        root = tmp_path / str(number)
        records = Records(root, "test")
        records.save_overlay({"old": {}})
        records.commit(generation(1, "old"))
        # Calls of the interpreter itself are counted too, so the first many change nothing: they are cheap to try.
        was_killed = killed_at(call, number, COMMIT, root)
        last = records.last()
        assert last is not None
        assert last.revision in ("old", "new")
        assert set(records.overlay()) in ({"old"}, {"new"})
        if last.revision == "new":
            assert set(records.overlay()) == {"new"}
        assert not list(root.rglob("*.corrupt"))
        records.commit(generation(3, "next"))
        assert not list(root.rglob("generations/.*"))
        killed += was_killed
        if not was_killed:
            break
    assert killed or call in ("unlink", "ftruncate")


@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename"])
def test_a_blob_that_is_killed_while_it_is_promoted_is_there_whole_or_not(tmp_path: Path, call: str) -> None:
    import hashlib

    from mullama.store.blobs import Blobs

    data = b"w" * 200_000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    for number in range(1, 200):
        root = tmp_path / str(number)
        root.mkdir()
        was_killed = killed_at(call, number, BLOB, root)
        blobs = Blobs(root)
        if blobs.has(digest):
            assert Path(blobs.path(digest)).read_bytes() == data
        if not was_killed:
            assert blobs.has(digest)
            break


def test_the_state_is_json_that_other_tools_can_read(tmp_path: Path) -> None:
    records = Records(tmp_path, "test")
    records.commit(generation(1, "one"))
    (path,) = tmp_path.rglob("00000001.json")

    assert json.loads(json.loads(path.read_text())["body"])["revision"] == "one"
