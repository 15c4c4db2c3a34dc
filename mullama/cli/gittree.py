"""Reads files as they were at a git revision, without touching the working tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mullama.errors import Invalid, NotFound

_SECONDS = 30


class GitTree:
    """The files of one commit of the repository that holds `folder`."""

    def __init__(self, folder: Path, reference: str) -> None:
        self._folder = folder
        top = _git(folder, "rev-parse", "--show-toplevel")
        if top is None:
            raise Invalid(f"{folder} is not in a git repository", hint="--base compares with a commit")
        self.top = Path(os.fsdecode(top).rstrip("\n"))
        commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
        if commit is None:
            raise NotFound(f"git knows no revision {reference!r}", hint="in CI, fetch it first")
        self.commit = commit.decode().strip()
        self.reference = reference

    def read(self, path: Path) -> bytes:
        """The bytes of a file at that commit; `FileNotFoundError` where it was not there."""
        inside = Path(os.path.relpath(path, os.path.realpath(self.top)))
        if inside.parts[:1] == ("..",):
            inside = Path(os.path.relpath(os.path.realpath(path), os.path.realpath(self.top)))
        if inside.parts[:1] == ("..",):
            raise FileNotFoundError(2, f"outside the repository at {self.reference}", str(path))
        body = _git(self.top, "cat-file", "blob", f"{self.commit}:{inside.as_posix()}")
        if body is None:
            raise FileNotFoundError(2, f"not in the repository at {self.reference}", str(path))
        return body


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git printed, None when it failed. Hooks and prompts stay out of it: these are reading commands."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise NotFound("git is not installed", hint="--base needs it") from error
    return done.stdout if done.returncode == 0 else None
