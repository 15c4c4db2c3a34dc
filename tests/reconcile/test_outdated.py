"""The files of a source against those that it has now."""

from __future__ import annotations

import pytest

from mullama.reconcile.outdated import compare
from mullama.weights.located import Located, LocatedFile
from mullama.weights.stored import LockEntry, PinnedFile

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def entry(revision: str = "old", **files: str) -> LockEntry:
    pins = tuple(PinnedFile(name=name, size=5, digest=digest, role="weights") for name, digest in files.items())
    return LockEntry(source="s", resolved="s", revision=revision, files=pins)


def located(revision: str = "new", **files: str | None) -> Located:
    found = tuple(LocatedFile(name=name, size=7, digest=digest) for name, digest in files.items())
    return Located(source="s", resolved="s", revision=revision, files=found)


@pytest.mark.parametrize(
    ("before", "now", "state", "changed"),
    [
        (entry(w=A), located(w=A), "current", []),
        (entry("same", w=A), located("same", w=A), "current", []),
        (entry(w=A), located(w=B), "outdated", ["w"]),
        (entry(w=A), located(w=A, p=B), "outdated", ["p"]),
        (entry(w=A, p=B), located(w=A), "outdated", ["p"]),
        (entry(one=A), located(two=A), "outdated", ["one", "two"]),
        (None, located(w=A), "unlocked", ["w"]),
        (entry(w=A), located(w=None), "unknown", ["w"]),
    ],
)
def test_a_source_is_outdated_if_a_file_has_other_bytes(
    before: LockEntry | None, now: Located, state: str, changed: list[str]
) -> None:
    found = compare(before, now)
    assert found.state == state
    assert [change.name for change in found.changed] == changed
