"""Reads files of a git revision without changing the working tree."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mullama.errors import Invalid, NotFound

_SECONDS = 30


class GitTree:
    """Files of one commit of the repository that contains `folder`."""

    def __init__(self, folder: Path, reference: str) -> None:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if top is None:
            raise Invalid(f"{folder} is not in a git repository", hint="--base and --ref read a commit")
        self.top = Path(os.path.realpath(os.fsdecode(top).rstrip("\n")))
        commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
        if commit is None:
            raise NotFound(f"git has no commit {reference!r}", hint="in CI, fetch it first")
        self.commit = commit.decode().strip()
        self.reference = reference

    def read(self, path: str, most: int = 0) -> bytes:
        """Return the bytes of a file in the commit, of any size; raise `NotFound` if it is not there."""
        relative = self._relative(path)
        body = None if relative is None else _git(self.top, "cat-file", "blob", f"{self.commit}:{relative}")
        if body is None:
            raise NotFound(f"{path} is not in the repository at {self.reference}", name=path)
        return body

    def names(self, folder: str) -> Sequence[str]:
        """Return the names in a folder of the commit; raise `NotFound` if it is not there."""
        relative = self._relative(folder)
        listed = (
            None if relative is None else _git(self.top, "ls-tree", "-z", "--name-only", f"{self.commit}:{relative}")
        )
        if listed is None:
            raise NotFound(f"{folder} is not in the repository at {self.reference}", name=folder)
        return [os.fsdecode(name) for name in listed.split(b"\0") if name]

    def _relative(self, path: str) -> str | None:
        """Return the path relative to the top of the repository, "" for the top, None for a path outside."""
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        relative = os.path.relpath(real, self.top)
        if relative in (".", "..") or relative.startswith("../"):
            return "" if relative == "." else None
        return Path(relative).as_posix()


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return the output of git, None if it failed. Only reading commands are used: they run no hooks."""
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
