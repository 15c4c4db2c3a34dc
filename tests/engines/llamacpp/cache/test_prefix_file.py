"""Computed prefixes on disk: found by key and tokens, bounded in size."""

from __future__ import annotations

import os
from pathlib import Path

from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles


def test_a_full_disk_costs_only_the_next_start(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    files = PrefixFiles(str(blocked / "below"), "key", most_bytes=2**20)
    files.save([1, 2], b"state")
    files.discard([1, 2])
    assert files.load([1, 2]) is None


def test_a_prefix_is_found_only_by_its_key_and_tokens(tmp_path: Path) -> None:
    files = PrefixFiles(str(tmp_path), "key", most_bytes=2**20)
    files.save([1, 2, 3], b"state")
    assert files.load([1, 2, 3]) == b"state"
    assert files.load([1, 2]) is None
    assert PrefixFiles(str(tmp_path), "other", most_bytes=2**20).load([1, 2, 3]) is None
    assert not list(tmp_path.glob("*.partial"))


def test_prefixes_unused_for_longest_make_room_for_new_ones(tmp_path: Path) -> None:
    files = PrefixFiles(str(tmp_path), "key", most_bytes=2**20)
    for number in range(3):
        files.save([number], bytes(1000))
        os.utime(files._path([number]), ns=(number, number))
    assert files.load([0]) is not None, "used just now"
    PrefixFiles(str(tmp_path), "key", most_bytes=2500).save([3], bytes(1000))
    assert [files.load([number]) is not None for number in range(4)] == [True, False, False, True]


def test_a_state_that_exceeds_the_bound_is_not_kept_and_drops_nothing(tmp_path: Path) -> None:
    files = PrefixFiles(str(tmp_path), "key", most_bytes=2000)
    files.save([1], bytes(1000))
    files.save([2], bytes(2000))
    assert files.load([1]) is not None
    assert files.load([2]) is None
