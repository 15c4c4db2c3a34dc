"""Reads manifests from text, with files that exist only in memory."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.errors import ManifestError, NotFound
from mullama.manifest.load import LoadedManifest, load_text
from mullama.manifest.load.document import DocumentBudget, read_document
from mullama.manifest.nodes import Fields, Items, Leaf, Node
from mullama.manifest.spec import Model

HEAD = "mullama: v1\n"
BASE = "/srv/app"


class MemoryFiles:
    """A file system of absolute paths; it counts how often each file is read."""

    def __init__(self, files: Mapping[str, str | bytes]) -> None:
        self.files = {posixpath.join(BASE, path): text for path, text in files.items()}
        self.reads: list[str] = []

    def read(self, path: str, most: int = 0) -> bytes:
        self.reads.append(path)
        if path not in self.files:
            raise NotFound(f"{path} does not exist", name=path)
        text = self.files[path]
        return text if isinstance(text, bytes) else text.encode()

    def names(self, folder: str) -> Sequence[str]:
        inside = [path[len(folder) + 1 :] for path in self.files if path.startswith(folder + "/")]
        if not inside:
            raise NotFound(f"{folder} does not exist", name=folder)
        return sorted({name.split("/")[0] for name in inside})


def read(
    text: str | bytes,
    *,
    env: Mapping[str, str] | None = None,
    profiles: Sequence[str] = (),
    files: Mapping[str, str | bytes] | MemoryFiles | None = None,
) -> LoadedManifest:
    """The manifest `m.yaml` in /srv/app; the first line is put before text that lacks it."""
    if isinstance(text, str) and "mullama:" not in text:
        text = HEAD + text
    system = files if isinstance(files, MemoryFiles) else MemoryFiles(files or {})
    return load_text(text, name="m.yaml", base_dir=BASE, env=env or {}, profiles=profiles, files=system)


def problems(text: str | bytes, **options: Any) -> list[str]:
    """Every mistake as a line, empty for a manifest that is right."""
    try:
        read(text, **options)
    except ManifestError as error:
        return [str(problem) for problem in error.problems]
    return []


def one(text: str, **options: Any) -> Model:
    """The model `a` of a manifest."""
    return read(text, **options).manifest.models["a"]


def document(text: str | bytes, allowance: DocumentBudget | None = None) -> Any:
    """Plain values of a document; its collected problems are raised."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    done = read_document(data, "m.yaml", allowance or DocumentBudget())
    if done.problems:
        raise ManifestError(tuple(done.problems))
    return plain(done.root)


def plain(node: Node) -> Any:
    match node:
        case Leaf(value):
            return value
        case Items(items):
            return [plain(item) for item in items]
        case Fields(entries):
            return {key: plain(child) for key, child in entries.items()}
