"""Reads a manifest and everything it refers to: the only effect in this package."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mullama.errors import Denied, Location, ManifestError, MullamaError, NotFound, Problem
from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.load.document import DocumentBudget, read_document
from mullama.manifest.load.files import MOST_FRAGMENTS, Disk, FileRead, FileSystem, Reading
from mullama.manifest.nodes import Node
from mullama.manifest.parse import included, parse
from mullama.manifest.spec import Manifest

__all__ = ["Disk", "FileRead", "FileSystem", "LoadedManifest", "load", "load_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedManifest:
    """A resolved manifest and what it was made of.

    path: the manifest's absolute path, None for text from elsewhere. places: where every dotted path stands.
    files: what was read. folders: where a change may matter. digest: SHA-256 in hex over all files; equal
    digests, profiles and environment mean an equal manifest.
    """

    manifest: Manifest
    path: str | None
    profiles: tuple[str, ...]
    places: Mapping[str, Location]
    files: tuple[FileRead, ...]
    folders: tuple[str, ...]
    digest: str
    warnings: tuple[Problem, ...] = ()


def load(path: str, *, profiles: Iterable[str] = (), env: Mapping[str, str]) -> LoadedManifest:
    """Reads the manifest at `path` from the disk.

    `NotFound` or `Denied` when it cannot be read, `ManifestError` with every mistake when it is wrong.
    """
    try:
        data = Disk().read(path)
    except NotFound as error:
        raise NotFound(f"there is no manifest {path}", hint="`mullama init` writes one", name=path) from error
    except Denied:
        raise
    except MullamaError as error:
        raise ManifestError((Problem("", Location(path, 1, 1), error.message, error.hint),)) from error
    return _load(data, path, os.path.abspath(path), Disk(), tuple(profiles), env)


def load_text(
    text: str | bytes,
    *,
    name: str,
    base_dir: str,
    profiles: Iterable[str] = (),
    env: Mapping[str, str],
    files: FileSystem | None = None,
    path: str | None = None,
) -> LoadedManifest:
    """Reads a manifest that is at hand: standard input, or another revision of a repository.

    `name` is the file in places, `base_dir` the absolute folder that its paths are relative to, `files` where
    includes and templates are read from (the disk unless said otherwise).
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return _load(data, name, path, files or Disk(), tuple(profiles), env, base_dir)


def _load(
    data: bytes,
    name: str,
    path: str | None,
    files: FileSystem,
    profiles: tuple[str, ...],
    env: Mapping[str, str],
    base_dir: str | None = None,
) -> LoadedManifest:
    reading = Reading(files, env)
    folder = base_dir if base_dir is not None else os.path.dirname(path or "")
    reading.register(name, folder)
    reading.note(path or os.path.join(folder, name), data)
    report, allowance = Diagnostics(), DocumentBudget()
    document = read_document(data, name, allowance)
    report.extend(document.problems)
    fragments = _fragments(document.root, name, path, reading, allowance, report)
    parsed = parse(document.root, fragments, profiles=profiles, world=reading, report=report)
    return LoadedManifest(
        manifest=parsed.manifest,
        path=path,
        profiles=profiles,
        places=parsed.places,
        files=reading.files,
        folders=reading.folders,
        digest=reading.digest,
        warnings=parsed.warnings,
    )


def _fragments(
    root: Node,
    name: str,
    path: str | None,
    reading: Reading,
    allowance: DocumentBudget,
    report: Diagnostics,
) -> Sequence[Node]:
    """The trees of every included file, each file once, in the order of patterns and names."""
    found: dict[str, Location] = {}
    for pattern in included(root, reading.env, report):
        try:
            matches = reading.matches(str(pattern.value), name)
        except MullamaError as error:
            report.add("include", pattern.place, error.message, error.hint)
            continue
        if not matches:
            report.add("include", pattern.place, f"no file matches {pattern.value}", "check the folder's name")
        for match in matches:
            found.setdefault(match, pattern.place)
    if len(found) > MOST_FRAGMENTS:
        first = next(iter(found.values()))
        report.add("include", first, f"{len(found)} files are included", f"at most {MOST_FRAGMENTS}")
        return ()
    found.pop(path or "", None)
    trees = []
    for match, place in found.items():
        try:
            trees.append(_fragment(match, name, reading, allowance, report))
        except ManifestError as error:
            report.extend(error.problems)
        except MullamaError as error:
            report.add("include", place, error.message, error.hint)
    return trees


def _fragment(path: str, main: str, reading: Reading, allowance: DocumentBudget, report: Diagnostics) -> Node:
    """One included file, called in places as its path looks from where the manifest is called."""
    base = reading.absolute(".", main)
    name = os.path.join(os.path.dirname(main), os.path.relpath(path, base))
    reading.register(name, os.path.dirname(path))
    document = read_document(reading.read(path), name, allowance)
    report.extend(document.problems)
    return document.root
