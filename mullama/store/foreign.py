"""Stores of other tools: the Hugging Face cache, an Ollama store, folders of GGUF files. They are read, never written.

Links are followed only to regular files inside the same store. A store that cannot be read is skipped and listed in
`problems`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from mullama.errors import Invalid, MullamaError
from mullama.names import Digest, HubRef, JSONValue, RegistryRef, SourceRef, require_utf8
from mullama.store.disk import NOFOLLOW
from mullama.struct import Struct, replace
from mullama.weights.choose import choose, projector_beside, role
from mullama.weights.located import Located, LocatedFile
from mullama.weights.registry_manifest import read_manifest

MAX_MANIFEST: Final = 4 * 1024**2
MAX_DEPTH: Final = 6
MAX_ENTRIES: Final = 100_000
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


class Roots(Struct, frozen=True, kw_only=True):
    """The folders of the stores, most trusted first."""

    huggingface: tuple[str, ...] = ()
    ollama: tuple[str, ...] = ()
    gguf: tuple[str, ...] = ()


def usual_roots(
    env: Mapping[str, str], *, huggingface: str = "auto", ollama: str = "auto", gguf: tuple[str, ...] = ()
) -> Roots:
    """Return the folders of the stores: those of the tools for `auto`, none for `never`, else the path."""
    home = Path(env.get("HOME") or Path.home())
    cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    hub = env.get("HF_HUB_CACHE") or str(Path(env.get("HF_HOME") or cache / "huggingface") / "hub")
    models = [env["OLLAMA_MODELS"]] if env.get("OLLAMA_MODELS") else []
    usual = [*models, str(home / ".ollama" / "models"), "/usr/share/ollama/.ollama/models"]
    return Roots(
        huggingface=_folders(huggingface, [hub]),
        ollama=_folders(ollama, usual),
        gguf=tuple(str(Path(folder).expanduser()) for folder in gguf),
    )


def _folders(setting: str, usual: list[str]) -> tuple[str, ...]:
    if setting == "never":
        return ()
    return tuple(usual) if setting == "auto" else (str(Path(setting).expanduser()),)


class Foreign:
    """Reads all stores of other tools."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self.problems: dict[str, str] = {}

    def by_digest(self, digest: str, size: int | None) -> Iterator[str]:
        """Yield the files that the stores have under this digest, of the right size where it is known.

        The digest is not computed: the caller checks the file before it is used.
        """
        name = Digest.parse(digest).hex
        for candidate in self._candidates(name):
            found = self._usable(candidate)
            if found and (size is None or os.path.getsize(found) == size):
                yield found

    def declares(self, path: str) -> bool:
        """Return True for a usable GGUF file below one of the plain folders."""
        found = self._usable(Path(path))
        return found is not None and any(Path(path).is_relative_to(root) for root in self._roots.gguf)

    def by_ref(self, ref: SourceRef, quants: tuple[str, ...] = ()) -> Located | None:
        """Return the files of a hub or registry reference that another tool has downloaded completely; None for none.

        quants: the preferred quantisations, best first, for a reference without one.
        """
        if isinstance(ref, HubRef):
            return self._hub(ref, (ref.quant,) if ref.quant else quants)
        if isinstance(ref, RegistryRef):
            return self._registry(ref)
        return None

    def ggufs(self) -> tuple[tuple[str, int], ...]:
        """Return the paths and sizes of the GGUF files of the plain folders."""
        found = {}
        for root in self._roots.gguf:
            for path in _walk(Path(root), self.problems):
                usable = self._usable(path)
                if usable and role(path.name) != "other":
                    found[str(path)] = os.path.getsize(usable)
        return tuple(sorted(found.items()))

    def of_size(self, size: int) -> tuple[str, ...]:
        """Return the files of the plain folders with exactly this size, which may be the file that is needed."""
        return tuple(path for path, found in self.ggufs() if found == size)

    def registry_models(self) -> tuple[RegistryRef, ...]:
        """Return the models of the Ollama stores."""
        found = {}
        for root in self._roots.ollama:
            for path in sorted((Path(root) / "manifests").glob("*/*/*/*")):
                ref = RegistryRef(*path.parts[-4:])
                if not path.name.startswith(".") and path.is_file():
                    found[str(ref)] = ref
        return tuple(found.values())

    def registry_config(self, ref: RegistryRef) -> Mapping[str, JSONValue]:
        """Return the config of a model in an Ollama store; empty where it cannot be read."""
        for root in map(Path, self._roots.ollama):
            raw = self._small(root / "manifests" / ref.host / ref.namespace / ref.model / ref.tag, root)
            config = read_manifest(raw, str(ref)).config if raw is not None else None
            path = self._blob(root, config.digest, config.size) if config else None
            text = self._small(Path(path), root) if path else None
            with suppress(ValueError, RecursionError):
                tree = json.loads(text or b"{}")
                if isinstance(tree, dict) and tree:
                    return tree
        return {}

    def _candidates(self, name: str) -> Iterator[Path]:
        for root in self._roots.ollama:
            yield Path(root) / "blobs" / f"sha256-{name}"
        for root in self._roots.huggingface:
            try:
                repositories = sorted(os.listdir(root))
            except OSError as error:
                self._note(root, error)
                continue
            for repository in repositories:
                if repository.startswith("models--"):
                    yield Path(root) / repository / "blobs" / name

    def _hub(self, ref: HubRef, quants: tuple[str, ...]) -> Located | None:
        for root in self._roots.huggingface:
            repository = Path(root) / f"models--{ref.repo.replace('/', '--')}"
            commit = _commit(repository, ref.revision)
            if commit is None:
                continue
            snapshot = repository / "snapshots" / commit
            names = [path.relative_to(snapshot).as_posix() for path in _walk(snapshot, self.problems)]
            try:
                choice = choose(names, repo=f"hf:{ref.repo}", file=ref.file, quants=quants, complete=False)
            except MullamaError:
                continue  # this cache lacks the wanted file
            files = tuple(self._cached(repository, snapshot, name) for name in choice.files)
            beside = projector_beside(choice.files[0], names)
            projector = self._cached(repository, snapshot, beside) if beside else None
            complete = tuple(file for file in files if file is not None)
            if len(complete) == len(files):
                resolved = HubRef(ref.repo, choice.files[0], None, commit)
                if projector is not None:
                    complete = (*complete, replace(projector, role="projector"))
                return Located(source=str(ref), resolved=str(resolved), files=complete, revision=commit)
        return None

    def _cached(self, repository: Path, snapshot: Path, name: str) -> LocatedFile | None:
        """Return a file of a snapshot: a link to a blob of the repository, named by its SHA-256 for large files."""
        found = self._usable(snapshot / name, inside=repository)
        if found is None:
            return None
        blob = Path(found).name
        digest = f"sha256:{blob}" if re.fullmatch(r"[0-9a-f]{64}", blob) else None
        return LocatedFile(name=name, path=found, size=os.path.getsize(found), digest=digest)

    def _registry(self, ref: RegistryRef) -> Located | None:
        for root in self._roots.ollama:
            path = Path(root) / "manifests" / ref.host / ref.namespace / ref.model / ref.tag
            raw = self._small(path, Path(root))
            if raw is None:
                continue
            listing = read_manifest(raw, str(ref))
            files = tuple(
                LocatedFile(
                    name=f"{layer.role} {layer.digest[:19]}", role=layer.role, size=layer.size, digest=layer.digest,
                    path=self._blob(Path(root), layer.digest, layer.size),
                )
                for layer in listing.layers
            )  # fmt: skip
            if all(file.path for file in files):
                return Located(source=str(ref), resolved=str(ref), files=files, revision=listing.digest)
        return None

    def _blob(self, root: Path, digest: str, size: int) -> str | None:
        found = self._usable(root / "blobs" / f"sha256-{Digest.parse(digest).hex}", inside=root)
        return found if found and os.path.getsize(found) == size else None

    def _small(self, path: Path, root: Path) -> bytes | None:
        found = self._usable(path, inside=root)
        if found is None or os.path.getsize(found) > MAX_MANIFEST:
            return None
        try:
            with open(found, "rb") as file:
                return file.read(MAX_MANIFEST)
        except OSError as error:
            self._note(str(root), error)
            return None

    def _usable(self, path: Path, inside: Path | None = None) -> str | None:
        """Return the real path of a readable regular file inside a store; None for anything else."""
        try:
            real = path.resolve(strict=True)
            kind = os.stat(real).st_mode
            readable = os.access(real, os.R_OK)
        except PermissionError as error:
            self._note(str(path.parent), error)
            return None
        except (OSError, RuntimeError):
            return None
        if inside is not None and not real.is_relative_to(inside.resolve()):
            return None
        return str(real) if stat.S_ISREG(kind) and readable else None

    def _note(self, root: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self.problems[root] = error.strerror or str(error)


def _commit(repository: Path, revision: str | None) -> str | None:
    """Return the commit that a revision names in this cache."""
    if revision and _COMMIT.fullmatch(revision):
        return revision if (repository / "snapshots" / revision).is_dir() else None
    name = revision or "main"
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise Invalid(f"{name!r} is not a revision")
    try:
        descriptor = os.open(repository / "refs" / name, os.O_RDONLY | os.O_NONBLOCK | NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(64).decode("ascii", "replace").strip()
    return text if _COMMIT.fullmatch(text) else None


def _walk(folder: Path, problems: dict[str, str]) -> Iterator[Path]:
    """Yield the GGUF files below a folder, to a bounded depth and number."""
    waiting, seen = [(folder, 0)], 0
    while waiting:
        here, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                problems[str(here)] = error.strerror or str(error)
            continue
        for entry in entries:
            seen += 1
            if seen > MAX_ENTRIES:
                problems[str(folder)] = f"more than {MAX_ENTRIES} entries: the rest was not read"
                return
            if entry.is_dir(follow_symlinks=False) and depth < MAX_DEPTH and not entry.name.startswith("."):
                waiting.append((Path(entry.path), depth + 1))
            elif entry.name.lower().endswith(".gguf"):
                if not _is_utf8(entry.path):
                    problems[str(folder)] = f"{entry.name!r} is not UTF-8 and is left out"
                    continue
                yield Path(entry.path)


def _is_utf8(path: str) -> bool:
    try:
        require_utf8(path)
    except Invalid:
        return False
    return True
