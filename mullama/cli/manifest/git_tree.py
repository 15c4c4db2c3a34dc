"""Reads files as they were at a git revision, without touching the working tree."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mullama.errors import Invalid, NotFound

_SECONDS = 30


class GitTree:
    """The files of one commit of the repository that holds `folder`."""

    def __init__(self, folder: Path, reference: str) -> None:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if top is None:
            raise Invalid(f"{folder} is not in a git repository", hint="--base compares with a commit")
        self.top = Path(os.path.realpath(os.fsdecode(top).rstrip("\n")))
        commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
        if commit is None:
            raise NotFound(f"git knows no revision {reference!r}", hint="in CI, fetch it first")
        self.commit = commit.decode().strip()
        self.reference = reference

    def read(self, path: str) -> bytes:
        """The bytes of a file at that commit; `NotFound` where it was not there."""
        inside = self._inside(path)
        body = None if inside is None else _git(self.top, "cat-file", "blob", f"{self.commit}:{inside}")
        if body is None:
            raise NotFound(f"{path} is not in the repository at {self.reference}", name=path)
        return body

    def names(self, folder: str) -> Sequence[str]:
        """The names in a folder at that commit; `NotFound` when it was not there."""
        inside = self._inside(folder)
        listed = None if inside is None else _git(self.top, "ls-tree", "-z", "--name-only", f"{self.commit}:{inside}")
        if listed is None:
            raise NotFound(f"{folder} is not in the repository at {self.reference}", name=folder)
        return [os.fsdecode(name) for name in listed.split(b"\0") if name]

    def _inside(self, path: str) -> str | None:
        """The path as git writes it, None for one outside of the repository. `""` is the top itself."""
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        relative = os.path.relpath(real, self.top)
        if relative in (".", "..") or relative.startswith("../"):
            return "" if relative == "." else None
        return Path(relative).as_posix()


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
