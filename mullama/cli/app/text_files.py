"""Texts that a user's options name: read whole, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from mullama.errors import Invalid


def read_text(path: Path) -> str:
    """Return the text of a file; raise `Invalid` for one that is not UTF-8, and `OSError` with its path."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8 at its byte {error.start}", hint="name a text file in UTF-8") from error


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    """Write a file, or leave it as it was and raise `OSError` with its path. new: raise `FileExistsError` if it exists.

    A failed write, such as on a full disk, has no path in its own error, and may have written a part.
    """
    path = path.resolve()
    private = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if new:
            path.open("xb").close()
        private.write_text(text, encoding="utf-8")
        private.replace(path)
    except FileExistsError:
        raise
    except OSError as error:
        private.unlink(missing_ok=True)
        if new:
            path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
