"""A path: a GGUF file, a part of a split set, or a folder with one model. The files are used in place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mullama.errors import Denied, Invalid, NotFound, Unavailable
from mullama.names import PathRef, require_utf8, suggest
from mullama.sources.base import Cancelled
from mullama.sources.local_files import file_role
from mullama.weights.choose import choose, models_of, projector_beside, role, sets_of
from mullama.weights.located import Located, LocatedFile
from mullama.weights.split import split_name


class PathSource:
    """Finds the files of a path."""

    def __init__(self, *, projector: bool = False) -> None:
        """projector: add the projector beside the weights."""
        self._projector = projector

    def locate(self, ref: PathRef, cancelled: Cancelled) -> Located:
        path = Path(ref.path).expanduser()
        paths = _in_folder(path) if path.is_dir() else _parts(path)
        files = tuple(LocatedFile(name=part.name, path=str(part), size=_size(part)) for part in paths)
        beside = projector_file(paths[0]) if self._projector else None
        if beside is not None:
            files = (*files, LocatedFile(name=beside.name, path=str(beside), size=_size(beside), role="projector"))
        return Located(source=str(ref), resolved=str(path), files=files)


def _parts(path: Path) -> tuple[Path, ...]:
    parts = tuple(path.with_name(name) for name in split_name(path.name))
    for part in parts:
        if not part.exists():
            raise _missing(part, len(parts))
    return parts


def _missing(path: Path, parts: int) -> NotFound:
    if parts > 1:
        return NotFound(f"{path} is missing", hint=f"it is one of the {parts} parts of the model", name=str(path))
    try:
        names = [name for name in _files_of(path.parent) if role(name) == "weights"]
    except OSError:
        return NotFound(f"{path} does not exist", hint=f"{path.parent} cannot be read either", name=str(path))
    if path.is_symlink():
        return NotFound(f"{path} is a link to {path.readlink()}, which does not exist", name=str(path))
    return NotFound(f"{path} does not exist", name=str(path), near=suggest(path.name, names))


def projector_file(weights: Path) -> Path | None:
    """Return the projector in the folder of weights: the only model of the folder, or the one that its name names."""
    try:
        names = tuple(_files_of(weights.parent))
    except OSError:
        return None
    found = projector_beside(weights.name, names)
    return weights.with_name(found) if found else None


def _files_of(folder: Path) -> list[str]:
    """Return the names of the regular files in a folder, sorted. A link that leads nowhere or in a circle is none.

    Raises `OSError` for a folder that cannot be read.
    """

    def regular(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_file()
        except OSError:
            return False

    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if regular(entry))


def _in_folder(folder: Path) -> tuple[Path, ...]:
    """Return the files of the one model in a folder; raise `Invalid` for more than one."""
    try:
        names = _files_of(folder)
    except OSError as error:
        raise Denied(f"{folder}: {error.strerror}") from error
    for name in names:
        if name.lower().endswith(".gguf"):
            require_utf8(name)
    ggufs = [name for name in names if role(name) == "weights"]
    by_header = {name: file_role(str(folder / name)) for name in ggufs} if len(ggufs) > 1 else {}
    models = models_of(sets_of(tuple(names)), str(folder), by_header)
    if len(models) > 1:
        raise Invalid(f"{folder} has {len(models)} GGUF files", hint=f"name one, for example {models[0].files[0]}")
    choice = choose(names, repo=str(folder), by_header=by_header)
    return tuple(folder / name for name in choice.files)


def _size(path: Path) -> int:
    """Return the size of a readable regular file; raise for anything else, before it is opened."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise Invalid(f"{path} is not a regular file")
    if not os.access(path, os.R_OK):
        raise Denied(f"{path} cannot be read", hint="check who owns it")
    return found.st_size
