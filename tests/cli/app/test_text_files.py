"""Texts that options name: errors name the file, and a failed write leaves no part."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mullama.cli.app.text_files import read_text, write_text
from mullama.errors import Invalid


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"ab\xff")
    with pytest.raises(Invalid, match="key is not UTF-8 at its byte 2"):
        read_text(file)


@pytest.mark.parametrize("before", [None, "old"])
def test_a_text_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    file = tmp_path / "m.yaml"
    if before is not None:
        file.write_text(before)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match="No space left") as caught:
            write_text(file, "new", new=before is None)
    assert caught.value.filename == str(file)
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["m.yaml"])
    assert before is None or file.read_text() == before

    write_text(file, "new")
    assert file.read_text() == "new"
    with pytest.raises(FileExistsError):
        write_text(file, "newer", new=True)
    assert file.read_text() == "new"
