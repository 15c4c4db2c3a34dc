"""Loads a manifest with the files that it refers to: the only effect in this package."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mullama.errors import Denied, Invalid, ManifestError, MullamaError, NotFound
from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.layers import WrittenManifest
from mullama.manifest.load.document import DocumentBudget, read_document
from mullama.manifest.load.files import MOST_FRAGMENTS, Disk, FileRead, FileSystem, Reading
from mullama.manifest.load.remote import PREFIX, RemoteFiles, check_trusted, parse_spec, sources_of
from mullama.manifest.nodes import Leaf, Node
from mullama.manifest.parse import included, parse
from mullama.manifest.spec import Manifest
from mullama.problems import Location, Problem
from mullama.struct import Struct

__all__ = ["Disk", "FileRead", "FileSystem", "LoadedManifest", "RemoteFiles", "load", "load_text"]


class LoadedManifest(Struct, frozen=True, kw_only=True):
    """A resolved manifest with its files.

    path: absolute path of the manifest; None for other text. places: the place of each dotted path. files: the files
    that were read. folders: the folders where a change can matter. digest: SHA-256 of all files in hex; equal digests,
    profiles and environments give equal manifests.
    """

    manifest: Manifest
    path: str | None
    profiles: tuple[str, ...]
    places: Mapping[str, Location]
    files: tuple[FileRead, ...]
    folders: tuple[str, ...]
    digest: str
    warnings: tuple[Problem, ...] = ()
    remote: tuple[str, ...] = ()
    """The remote files of `include`."""
    declared_profiles: tuple[str, ...] = ()
    """The names of all profiles."""
    written: WrittenManifest | None = None
    """The tree before its layers were merged, for `manifest.provenance`; None without a text."""


def load(
    path: str, *, profiles: Iterable[str] = (), env: Mapping[str, str], remote: RemoteFiles | None = None
) -> LoadedManifest:
    """Load the manifest at `path` from the disk. remote: the source of remote files; None refuses them.

    Raises `NotFound` or `Denied` for an unreadable file, and `ManifestError` with all mistakes.
    """
    try:
        data = Disk().read(path)
    except NotFound as error:
        raise NotFound(
            f"there is no manifest {path}", hint="check the path; mullama init writes a new one", name=path
        ) from error
    except Denied:
        raise
    except MullamaError as error:
        raise ManifestError((Problem("", Location(path, 1, 1), error.message, error.hint),)) from error
    return _load(data, path, os.path.abspath(path), Disk(), tuple(profiles), env, remote)


def load_text(
    text: str | bytes,
    *,
    name: str,
    base_dir: str,
    profiles: Iterable[str] = (),
    env: Mapping[str, str],
    files: FileSystem | None = None,
    path: str | None = None,
    remote: RemoteFiles | None = None,
) -> LoadedManifest:
    """Load a manifest from text: standard input, or a commit of a repository.

    name: the file name in places. base_dir: absolute folder of relative paths. files: source of includes and templates
    (default: the disk). remote: see `load`.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return _load(data, name, path, files or Disk(), tuple(profiles), env, remote, base_dir)


def _load(
    data: bytes,
    name: str,
    path: str | None,
    files: FileSystem,
    profiles: tuple[str, ...],
    env: Mapping[str, str],
    remote: RemoteFiles | None,
    base_dir: str | None = None,
) -> LoadedManifest:
    reading = Reading(files, env)
    folder = base_dir if base_dir is not None else os.path.dirname(path or "")
    reading.register(name, folder)
    reading.note(path or os.path.join(folder, name), data)
    report, allowance = Diagnostics(), DocumentBudget()
    document = read_document(data, name, allowance)
    report.extend(document.problems)
    patterns = included(document.root, reading.env, report)
    far = {str(leaf.value): leaf.place for leaf in patterns if str(leaf.value).startswith(PREFIX)}
    near = [leaf for leaf in patterns if str(leaf.value) not in far]
    fragments = [
        *_fragments(near, name, path, reading, allowance, report),
        *_remote_fragments(far, document.root, name, reading, allowance, report, remote),
    ]
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
        remote=tuple(far),
        declared_profiles=parsed.profiles,
        written=parsed.written,
    )


def _remote_fragments(
    far: Mapping[str, Location],
    root: Node,
    name: str,
    reading: Reading,
    allowance: DocumentBudget,
    report: Diagnostics,
    remote: RemoteFiles | None,
) -> Iterator[Node]:
    """Yield the trees of the remote files, as far as they are trusted."""
    for spec, place in far.items():
        try:
            parse_spec(spec)
            lock = reading.lock(name)
            if remote is None:
                raise Invalid(f"{spec[:120]} is a remote file, which only the manifest of a server can include")
            data = remote.read(spec, sources_of(root, reading), lock)
            reading.register_remote(spec, data)
            document = read_document(data, spec, allowance)
        except ManifestError as error:
            report.extend(error.problems)
        except MullamaError as error:
            report.add("include", place, error.message, error.hint)
        else:
            report.extend(document.problems)
            yield check_trusted(document.root, report)


def _fragments(
    patterns: Sequence[Leaf],
    name: str,
    path: str | None,
    reading: Reading,
    allowance: DocumentBudget,
    report: Diagnostics,
) -> Sequence[Node]:
    """Return the trees of the included files, each once, in the order of patterns and names."""
    found: dict[str, Location] = {}
    for pattern in patterns:
        try:
            matches = reading.matches(str(pattern.value), name)
        except MullamaError as error:
            report.add("include", pattern.place, error.message, error.hint)
            continue
        if not matches:
            report.add("include", pattern.place, f"no file matches {pattern.value}", "check the name of the folder")
        for match in matches:
            found.setdefault(match, pattern.place)
    if len(found) > MOST_FRAGMENTS:
        first = next(iter(found.values()))
        report.add("include", first, f"{len(found)} files are included", f"the limit is {MOST_FRAGMENTS}")
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
    """Return the tree of an included file; its name in places is relative like that of the manifest."""
    base = reading.absolute(".", main)
    name = os.path.join(os.path.dirname(main), os.path.relpath(path, base))
    reading.register(name, os.path.dirname(path))
    document = read_document(reading.read(path), name, allowance)
    report.extend(document.problems)
    return document.root
