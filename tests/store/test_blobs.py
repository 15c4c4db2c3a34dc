"""The store of checked files: nothing wrong under a final name, nothing swept that is in use, nothing through links."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullama.errors import Invalid, MullamaError, Refused, Unavailable
from mullama.store import disk
from mullama.store.blobs import Blobs

DATA = b"0123456789" * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
NONE = "sha256:" + "0" * 64


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "store")


def put(blobs: Blobs, data: bytes = DATA) -> str:
    with blobs.receive("x") as partial:
        partial.write(data)
        return partial.promote()


def test_looking_creates_nothing(blobs: Blobs) -> None:
    assert not blobs.has(DIGEST)
    assert (blobs.listed(), blobs.fetched("x"), blobs.free() > 0) == ((), 0, True)
    assert not blobs.root.exists()


def test_a_promoted_file_has_its_digest_as_name_and_nothing_is_left(blobs: Blobs) -> None:
    assert put(blobs) == DIGEST
    assert blobs.has(DIGEST)
    assert Path(blobs.path(DIGEST)).read_bytes() == DATA
    assert [entry[:2] for entry in blobs.listed()] == [(DIGEST, len(DATA))]
    assert list((blobs.root / "partial").iterdir()) == []
    assert blobs.verify(DIGEST)


def test_what_was_not_promoted_is_never_visible_and_is_continued(blobs: Blobs) -> None:
    with blobs.receive("x") as partial:
        partial.write(DATA[:6000])
        partial.remember('"v1"', len(DATA))
    assert blobs.listed() == ()
    assert blobs.fetched("x") == 6000
    with blobs.receive("x") as partial:
        assert (partial.offset, partial.validator) == (6000, '"v1"')
        partial.write(DATA[6000:])
        assert partial.promote() == DIGEST


def test_another_source_begins_its_own_file(blobs: Blobs) -> None:
    with blobs.receive("x") as partial:
        partial.write(DATA)
    with blobs.receive("y") as other:
        assert other.offset == 0


def test_two_writers_at_once_never_share_a_file(blobs: Blobs) -> None:
    with blobs.receive("x") as first:
        first.write(DATA[:100])
        with blobs.receive("x") as second:
            assert second.offset == 0
            second.write(DATA)
            assert second.promote() == DIGEST
        first.write(DATA[100:])
        assert first.promote() == DIGEST
    assert blobs.verify(DIGEST)


def test_a_restart_throws_away_what_was_there(blobs: Blobs) -> None:
    with blobs.receive("x") as partial:
        partial.write(b"wrong" * 5000)
        partial.restart()
        assert (partial.offset, partial.validator) == (0, "")
        partial.write(DATA)
        assert partial.promote() == DIGEST


def test_a_file_that_was_replaced_behind_our_back_is_not_promoted(blobs: Blobs) -> None:
    with blobs.receive("x") as partial:
        partial.write(DATA)
        (path,) = (p for p in (blobs.root / "partial").iterdir() if p.suffix != ".json")
        path.unlink()
        path.write_bytes(b"evil")
        with pytest.raises(Unavailable, match="was replaced"):
            partial.promote()
    assert blobs.listed() == ()


def test_a_damaged_or_missing_note_costs_only_time(blobs: Blobs) -> None:
    for text in ("", "{", "[]", '{"pid": "x"}', '{"nope": 1}'):
        with blobs.receive("x") as partial:
            partial.restart()
            partial.write(DATA[:100])
        (note,) = (p for p in (blobs.root / "partial").iterdir() if p.suffix == ".json")
        note.write_text(text)
        with blobs.receive("x") as partial:
            partial.write(DATA[partial.offset :])
            assert partial.promote() == DIGEST
        for path in (blobs.root / "partial").iterdir():
            path.unlink()


def test_a_note_of_an_earlier_version_is_read(blobs: Blobs) -> None:
    with blobs.receive("x") as partial:
        partial.write(DATA[:100])
        partial.remember('"v1"', len(DATA))
    (note,) = (p for p in (blobs.root / "partial").iterdir() if p.suffix == ".json")
    note.write_text(note.read_text().replace('"boot_id"', '"boot"').replace('"start_time"', '"born"'))
    with blobs.receive("x") as partial:
        assert (partial.offset, partial.validator) == (100, '"v1"')


def test_after_a_power_cut_only_what_was_synced_counts(blobs: Blobs) -> None:
    """The note says which start of the machine wrote it; after another one unsynced bytes may be anything."""
    with blobs.receive("x") as partial:
        partial.write(DATA)
    (note,) = (p for p in (blobs.root / "partial").iterdir() if p.suffix == ".json")
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        pytest.skip("this system does not tell its starts apart")
    note.write_text(note.read_text().replace(boot.read_text().strip(), "another-boot"))
    with blobs.receive("x") as partial:
        assert partial.offset == 0


@pytest.mark.parametrize("make", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_is_no_blob(blobs: Blobs, tmp_path: Path, make: str) -> None:
    put(blobs, b"other")
    path = Path(blobs.path(DIGEST))
    if make == "link":
        target = tmp_path / "target"
        target.write_bytes(DATA)
        path.symlink_to(target)
    elif make == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert not blobs.has(DIGEST)
    with pytest.raises(MullamaError):
        os.close(blobs.open(DIGEST))


def test_a_store_folder_that_is_a_link_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    blobs.root.mkdir()
    (blobs.root / "blobs").symlink_to(elsewhere)
    with pytest.raises(MullamaError):
        put(blobs)
    assert list(elsewhere.iterdir()) == []


@given(st.text(max_size=90))
def test_only_a_digest_becomes_a_path(text: str) -> None:
    blobs = Blobs("/store")
    if text.startswith("sha256:") and len(text) == 71 and set(text[7:]) <= set("0123456789abcdef"):
        return
    for use in (blobs.path, blobs.has, blobs.open):
        with pytest.raises(Invalid, match="is not a digest"):
            use(text)


def test_a_damaged_blob_is_found_and_set_aside(blobs: Blobs) -> None:
    put(blobs)
    Path(blobs.path(DIGEST)).write_bytes(b"damaged")
    assert not blobs.verify(DIGEST)
    assert not blobs.has(DIGEST)
    assert blobs.listed() == ()
    assert len(list((blobs.root / "blobs").iterdir())) == 1
    assert blobs.sweep(frozenset(), grace=0, now=time.time() + 60) == ()
    assert list((blobs.root / "blobs").iterdir()) == []


def test_room_is_told_with_both_numbers(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs.check_room(1)
    monkeypatch.setattr(blobs, "free", lambda: 2 * 2**30)
    with pytest.raises(Refused, match=r"4 GiB are needed and 2 GiB are free"):
        blobs.check_room(4 * 2**30)


class TestSweep:
    OLD = 10 * 86400.0

    def age(self, blobs: Blobs, digest: str) -> None:
        before = time.time() - self.OLD
        os.utime(blobs.path(digest), (before, before))

    def test_only_what_is_old_and_unreferenced_goes(self, blobs: Blobs) -> None:
        kept, old, young = put(blobs, b"kept"), put(blobs, b"old"), put(blobs, b"young")
        self.age(blobs, kept)
        self.age(blobs, old)
        assert blobs.swept(frozenset([kept]), grace=3600) == ((old, 3),)
        assert blobs.sweep(frozenset([kept]), grace=3600) == (old,)
        assert [blobs.has(digest) for digest in (kept, old, young)] == [True, False, True]

    def test_nothing_goes_while_somebody_uses_the_store(self, blobs: Blobs) -> None:
        old = put(blobs, b"old")
        self.age(blobs, old)
        with blobs.using():
            assert blobs.sweep(frozenset(), grace=0) == ()
        assert blobs.sweep(frozenset(), grace=0) == (old,)

    def test_finding_a_file_makes_it_young(self, blobs: Blobs) -> None:
        old = put(blobs, b"old")
        self.age(blobs, old)
        assert blobs.has(old)
        assert blobs.sweep(frozenset(), grace=3600) == ()

    def test_a_clock_that_jumps_back_deletes_nothing(self, blobs: Blobs) -> None:
        digest = put(blobs)
        assert blobs.sweep(frozenset(), grace=3600, now=time.time() - self.OLD) == ()
        assert blobs.has(digest)

    def test_old_partial_files_go_and_those_being_written_stay(self, blobs: Blobs) -> None:
        with blobs.receive("left") as partial:
            partial.write(b"left")
        with blobs.receive("living") as living:
            living.write(b"living")
            before = time.time() - self.OLD
            for path in (blobs.root / "partial").iterdir():
                os.utime(path, (before, before))
            blobs.sweep(frozenset(), grace=3600)
            assert (blobs.fetched("left"), blobs.fetched("living")) == (0, 6)


def test_one_fetch_per_digest_and_the_others_wait(blobs: Blobs) -> None:
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with blobs.only_one("x", lambda: False, lambda: None):
            inside.set()
            leave.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with blobs.only_one("x", lambda: False, leave.set):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("system_has_locks", [True, False])
def test_where_locks_do_not_work_nobody_waits(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, system_has_locks: bool
) -> None:
    import fcntl

    def broken(*_: object) -> None:
        raise OSError(37, "No locks available")

    if system_has_locks:
        monkeypatch.setattr(fcntl, "flock", broken)
    else:
        monkeypatch.setattr(disk, "fcntl", None)
    with blobs.only_one("x", lambda: False, lambda: None), blobs.only_one("x", lambda: False, lambda: None):
        assert put(blobs) == DIGEST


def test_locks_that_always_succeed_duplicate_work_and_corrupt_nothing(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with blobs.receive("x") as first:
        first.write(DATA[:5000])
        with blobs.receive("x") as second:
            assert second.offset == 0  # its writer lives, whatever the lock says
            second.write(DATA)
            assert second.promote() == DIGEST
        first.write(DATA[5000:])
        assert first.promote() == DIGEST
    assert blobs.verify(DIGEST)


def test_a_full_disk_keeps_what_was_written_and_says_so(blobs: Blobs) -> None:
    code = (
        "import resource, sys; from mullama.store.blobs import Blobs; from mullama.errors import TransferFailed\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "b = Blobs(sys.argv[1])\n"
        "with b.receive('x') as p:\n"
        "    p.write(b'a' * 15000)\n"
        "    try: p.write(b'a' * 15000)\n"
        "    except Exception as e: print(type(e).__name__, e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(blobs.root)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "File too large" in done.stdout
    assert blobs.fetched("x") == 20000
    with blobs.receive("x") as partial:
        assert partial.offset == 20000


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["write", "restart", "reopen", "promote"]), st.binary(max_size=50))))
def test_any_order_of_operations_keeps_names_and_contents_equal(
    tmp_path: Path, operations: list[tuple[str, bytes]]
) -> None:
    blobs = Blobs(tmp_path / "store")
    content = b"".join([])
    with blobs.receive("first") as partial:
        partial.restart()
    for operation, data in operations:
        with blobs.receive("x") as partial:
            assert partial.offset == len(content)
            if operation == "write":
                partial.write(data)
                content += data
            elif operation == "restart":
                partial.restart()
                content = b""
            elif operation == "promote" and content:
                assert partial.promote() == "sha256:" + hashlib.sha256(content).hexdigest()
                content = b""
    for digest, _, _ in blobs.listed():
        assert "sha256:" + hashlib.sha256(Path(blobs.path(digest)).read_bytes()).hexdigest() == digest
    with blobs.receive("x") as partial:
        partial.restart()


def test_promotion_is_durable_in_the_right_order(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the bytes are on the disk, then the name changes, then the folder is on the disk."""
    done: list[str] = []
    for name in ("pwrite", "fsync", "rename"):
        real = getattr(os, name)

        def noted(*args: object, _name: str = name, _real: object = real) -> object:
            is_folder = _name == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}")
            done.append(f"{_name} folder" if is_folder else _name)
            return _real(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, noted)
    put(blobs)
    assert done == ["pwrite", "fsync", "rename", "fsync folder"]
