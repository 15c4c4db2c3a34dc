"""A hash that follows a growing file is the hash of what was written."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.store.hashing import RunningHash


@given(st.lists(st.binary(max_size=5000), max_size=50), st.integers(0, 50), st.sampled_from([1, 700, 2**20]))
def test_it_is_the_hash_of_all_pieces_and_may_be_asked_in_between(pieces: list[bytes], ask: int, size: int) -> None:
    with tempfile.TemporaryFile() as file:
        running, expected, end = RunningHash(file.fileno(), piece=size), hashlib.sha256(), 0
        for number, piece in enumerate(pieces):
            end += os.pwrite(file.fileno(), piece, end)
            running.reaches(end)
            expected.update(piece)
            if number == ask:
                assert running.hexdigest() == expected.hexdigest()
        assert running.hexdigest() == expected.hexdigest()
        running.close()


def test_what_was_hashed_is_made_durable_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with tempfile.TemporaryFile() as file:
        running = RunningHash(file.fileno(), piece=10, sync_every=100)
        os.pwrite(file.fileno(), bytes(250), 0)
        running.reaches(250)
        running.hexdigest()
        running.close()
        assert (synced, running.synced) == ([file.fileno()] * 2, 200)


def test_a_file_that_is_shorter_than_what_was_written_is_an_error() -> None:
    with tempfile.TemporaryFile() as file:
        running = RunningHash(file.fileno())
        os.pwrite(file.fileno(), bytes(50), 0)
        running.reaches(100)
        for _ in range(2):
            with pytest.raises(OSError, match="ends at 50 bytes, 100 were written"):
                running.hexdigest()
        with pytest.raises(OSError, match="ends at 50 bytes"):
            running.reaches(101)
        running.close()


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())  # which may end during the test
    with tempfile.TemporaryFile() as file:
        running = RunningHash(file.fileno())
        running.close()
        running.reaches(0)
        os.pwrite(file.fileno(), b"x", 0)
        running = RunningHash(file.fileno())
        running.reaches(1)
        running.close()
        running.close()
    assert set(threading.enumerate()) <= before
