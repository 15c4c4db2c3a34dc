"""The state of files in a lock file."""

from __future__ import annotations

import pytest

from mullama.controller.model_page.stored_files import lock_state, source_rows
from mullama.plan.observed import KnownFiles
from mullama.weights.stored import LockEntry, PinnedFile

HUB, ONE, TWO = "hf:org/m", f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
ENTRY = LockEntry(source=HUB, resolved=HUB, revision=None, files=(PinnedFile(name="m.gguf", size=1, digest=ONE),))


@pytest.mark.parametrize(
    ("source", "digest", "state"),
    [
        (HUB, ONE, "pinned"),
        (HUB, TWO, "differs"),
        (HUB, None, "pinned"),
        ("hf:org/other", ONE, "missing"),
        ("/srv/m.gguf", ONE, "local"),
        ("builtin:tiny", ONE, "local"),
    ],
)
def test_the_state_of_a_source(source: str, digest: str | None, state: str) -> None:
    assert lock_state(source, digest, {HUB: ENTRY}) == state


def test_the_parts_of_a_set_and_a_source_that_is_not_here() -> None:
    paths = ("/srv/m-1.gguf", "/srv/m-2.gguf")
    parts = KnownFiles(source=paths[0], digest=ONE, size=5, stored=True, paths=paths)
    found = list(source_rows("weights", parts, {}, None))
    assert [row["name"] for row in found] == ["m-1.gguf", "m-2.gguf"]
    assert {(row["size"], row["digest"]) for row in found} == {(None, "")}

    (far,) = source_rows("draft", KnownFiles(source="https://h.example.org/m.gguf?sig=word"), {}, ONE)
    assert (far["role"], far["stored"], far["lock"], far["declared"]) == ("draft", False, "missing", ONE)
    assert "word" not in str(far)
