"""A hash that runs beside the writing is the hash of what was written."""

from __future__ import annotations

import hashlib
import threading

from hypothesis import given
from hypothesis import strategies as st

from mullama.store.hashing import RunningHash


@given(st.lists(st.binary(max_size=5000), max_size=200), st.integers(0, 200))
def test_it_is_the_hash_of_all_pieces_and_may_be_asked_in_between(pieces: list[bytes], ask: int) -> None:
    running, expected = RunningHash(), hashlib.sha256()
    for number, piece in enumerate(pieces):
        running.update(memoryview(piece))
        expected.update(piece)
        if number == ask:
            assert running.hexdigest() == expected.hexdigest()
    assert running.hexdigest() == expected.hexdigest()


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    running = RunningHash()
    running.close()
    running.update(b"x")
    running.close()
    running.close()
    assert threading.active_count() == before
