"""What the requests of a context used, kept from one run to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.engines.observed_use import ObservedUse, read_use, use_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return use_path(tmp_path / "new", "sha256:" + "ab" * 32)


def test_the_most_is_written_when_the_context_closes(path: Path) -> None:
    use = ObservedUse(path)
    for tokens in (1000, 1100, 400):
        use.note(tokens)
    assert read_use(path) == 1000, "growth by a quarter is written at once"
    use.save()
    assert read_use(path) == 1100


@pytest.mark.parametrize(
    ("noted", "kept"),
    [([], 1000), ([100], 1000), ([100] * 32, 750), ([900] * 32, 900), ([2000], 2000)],
)
def test_a_lower_use_replaces_a_higher_one_by_degrees(path: Path, noted: list[int], kept: int) -> None:
    path.parent.mkdir()
    path.write_text("1000")
    use = ObservedUse(path)
    for tokens in noted:
        use.note(tokens)
    use.save()
    assert read_use(path) == kept


@pytest.mark.parametrize("text", ["", "many", "-5"])
def test_a_damaged_file_is_no_use(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    assert read_use(path) == 0


def test_a_folder_that_cannot_be_written_costs_nothing(path: Path) -> None:
    path.parent.write_text("a file")
    use = ObservedUse(path)
    use.note(50)
    use.save()
    assert read_use(path) == 0
