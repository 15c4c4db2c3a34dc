"""All sources together: finds the files of a source text, and makes them present and verified.

Files on this machine are used first: those that a lock entry names by digest, those of an earlier download by the
index, and those of other tools' stores. Only `refresh` asks the source again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from typing import Final, get_args

from mullama.errors import BadWeights, MullamaError, NotFound, TransferFailed, Unavailable, masked
from mullama.names import AliasRef, BuiltinRef, PathRef, SourceRef, parse_source
from mullama.sources import registry
from mullama.sources.aliases import Alias, Expanded, aliases, expand, unknown
from mullama.sources.base import Cancelled, FetchRecord, FileIndex, ForeignStores, Report
from mullama.sources.fetch import HASHED_AT_ONCE, DamagedCopy, FileFetcher, best_effort
from mullama.sources.local_files import look_into, read_text
from mullama.sources.registry import Wanted
from mullama.sources.settings import Settings
from mullama.struct import replace
from mullama.weights.facts import ProjectorFacts, WeightFacts
from mullama.weights.located import Located, LocatedFile
from mullama.weights.registry_manifest import TEXTS, read_defaults
from mullama.weights.stored import LockEntry, PinnedFile, ProjectorFile, StoredWeights, set_digest

_MAX_LISTED: Final = 5
_LOCAL: Final = (PathRef, BuiltinRef)
_NO_DIGEST: Final = (
    "has no digest at its source; the digest of the downloaded file is required from now on: pin it with `digest: {}`"
)


def find_stored(
    source_text: str, index: FileIndex, foreign: ForeignStores, lock_entry: LockEntry | None = None,
    wanted: Wanted = "weights",
) -> StoredWeights | None:  # fmt: skip
    """Return the weights of a source text; None unless all their files are on this machine. Uses no network.

    Raises `BadWeights` for files that must not be loaded, `Invalid` for text that is no source.
    """
    library = Library(index, foreign)
    found = library.here(source_text, lock_entry, wanted=wanted, planning=True)
    return library.stored(found, source_text, wanted=wanted) if found else None


class Library:
    """Finds and downloads weights with all sources and one store. Safe for several threads."""

    def __init__(
        self,
        index: FileIndex,
        foreign: ForeignStores,
        settings: Settings | None = None,
        names: Mapping[str, Alias] | None = None,
    ) -> None:
        self._index, self._foreign = index, foreign
        self._settings = settings or Settings()
        self._fetcher = FileFetcher(index, foreign, self._settings)
        self._names = names

    def locate(
        self,
        source_text: str,
        lock_entry: LockEntry | None = None,
        offline: bool = False,
        *,
        wanted: Wanted = "weights",
        refresh: bool = False,
        cancelled: Cancelled = lambda: False,
    ) -> Located:
        """Return the files: those of the lock entry, else those of the last download, else those of the source now.

        offline: raise `Unavailable` for files that are not on this machine. wanted: the kind of file. refresh: ask the
        source in any case; if it cannot be reached, return the stored files with a warning.
        """
        expanded = self._expand(source_text)
        here = self.here(source_text, lock_entry, wanted=wanted)
        if here is not None and (offline or not refresh):
            return here
        if isinstance(expanded.ref, _LOCAL):
            return registry.locate(expanded.ref, self._settings, cancelled, (), wanted)  # raises `NotFound`
        if offline:
            if expanded.guessed:
                raise self._unknown(source_text, "Ollama's registry was not asked, because --offline uses no network")
            raise Unavailable(
                f"{source_text} is not on this machine, and --offline uses no network",
                hint=self._stored_hint(),
            )
        if lock_entry is not None and not refresh:
            return self._locked(source_text, lock_entry, cancelled)
        try:
            return self._ask(source_text, expanded, wanted, cancelled)
        except NotFound as error:
            if not expanded.guessed:
                raise
            raise self._unknown(source_text, f"Ollama's registry does not have it ({error.message})") from error
        except Unavailable as error:
            if here is None and expanded.guessed:
                tried = f"Ollama's registry could not be asked ({error.message})"
                raise self._unknown(source_text, tried) from error
            if here is None:
                hint = f"{error.hint}; {self._stored_hint()}"
                raise Unavailable(error.message, hint=hint, retry_after=error.retry_after) from error
            warning = f"{masked(source_text)} could not be reached ({error.message}); the stored files are used"
            return replace(here, warnings=(*here.warnings, warning))

    def at_source(self, source_text: str, *, wanted: Wanted = "weights") -> Located:
        """Return the files that the source has now, whatever is stored. Raises what `Source.locate` does."""
        return self._ask(source_text, self._expand(source_text), wanted, lambda: False)

    def fetched(self, source_text: str, *, wanted: Wanted = "weights") -> FetchRecord | None:
        """Return the last download of a source; None without one."""
        return self._index.fetched(_key(self._expand(source_text), wanted))

    def here(
        self, source_text: str, lock_entry: LockEntry | None = None, *, wanted: Wanted = "weights",
        planning: bool = False,
    ) -> Located | None:  # fmt: skip
        """Return the files of a source text; None unless all of them are on this machine.

        planning: see `FileFetcher.copies`.
        """
        expanded = self._expand(source_text)
        if isinstance(expanded.ref, _LOCAL):
            found = self._at_path(source_text, expanded.ref, wanted)
            return replace(found, expected=lock_entry.digest) if found and lock_entry else found
        text = wanted == "text"
        if lock_entry is not None:
            return self._stored_files(source_text, lock_entry, planning, text=text)
        for kind in dict.fromkeys((wanted, *(("weights",) if text else ()))):
            known = self._index.fetched(_key(expanded, kind))
            if known is not None and (fetched := self._stored_files(source_text, known, planning, text=text)):
                return fetched
        if wanted not in ("weights", "text") or (expanded.projector is not None and not text):
            return None  # stores of other tools are not read for an adapter or a projector, or for a named projector
        elsewhere = self._foreign.by_ref(expanded.ref, expanded.quants)
        if elsewhere is None:
            return None
        if text:
            elsewhere = registry.without_projector(elsewhere)
        usable = [self._undamaged(file, planning) for file in elsewhere.files]
        files = tuple(file for file in usable if file is not None)
        return replace(elsewhere, source=source_text, files=files) if len(files) == len(usable) else None

    def _undamaged(self, file: LocatedFile, planning: bool) -> LocatedFile | None:
        """Return a file of another tool with a copy of it that is not known to be damaged; None without one."""
        if not file.digest:
            digest, stamp = self._fetcher.digest_at(file.path or "", most=HASHED_AT_ONCE)
            return replace(file, digest=digest, stamp=stamp)
        copy = self._fetcher.find(file.digest, file.size, planning=planning)
        return replace(file, path=copy.path, stamp=copy.stamp) if copy else None

    def ensure(
        self, located: Located, report: Report, cancelled: Cancelled, *, wanted: Wanted = "weights",
        offline: bool = False,
    ) -> StoredWeights:  # fmt: skip
        """Make every file present, downloaded and verified or hashed in place, and return the described weights.

        A stored file that is damaged is downloaded again, unless `offline`.

        Raises `TransferFailed`, `Denied`, `NotFound`, `BadWeights`, and `Refused` where the disk is too small.
        """
        with self._index.blobs.using():
            # `using` keeps a sweep from the files until the index refers to them.
            try:
                present = self._fetcher.all(located.files, report, cancelled)
            except DamagedCopy:
                if offline or isinstance(self._expand(located.source).ref, _LOCAL):
                    raise
                located = self._at_source(located, cancelled)
                present = self._fetcher.all(located.files, report, cancelled)
            stored = self.stored(replace(located, files=present), located.source, wanted=wanted)
            require_digest(located.source, located.expected, stored.digest)
            expanded = self._expand(located.source)
            if not isinstance(expanded.ref, _LOCAL):
                with best_effort() if stored.in_place else nullcontext():
                    self._index.remember(replace(stored, source=_key(expanded, wanted)), time.time())
        undigested = tuple(
            f"{file.name} {_NO_DIGEST.format(after.digest)}"
            for file, after in zip(located.files, present, strict=True)
            if file.url and file.digest is None
        )
        return replace(stored, warnings=(*stored.warnings, *undigested))

    def stored(self, located: Located, source_text: str, *, wanted: Wanted = "weights") -> StoredWeights:
        """Describe located files that all have a path, by their headers and texts.

        Raises `BadWeights` for a file that must not be loaded, or that has another role than its place says.
        """
        of_role: dict[str, list[LocatedFile]] = {}
        for file in located.files:
            of_role.setdefault(file.role, []).append(file)
        weights = of_role.get("weights", [])
        paths = _paths(weights)
        facts = self._facts(paths, wanted, source_text)
        # A file next to the weights is read as carefully: a broken projector ends the process that loads it.
        for role in ("projector", "adapter", "draft"):
            for file in of_role.get(role, []):
                self._facts(_paths([file]), role, f"{file.name} of {source_text}")
        texts = [(file.role, read_text(file.path)) for file in located.files if file.role in TEXTS and file.path]
        defaults = read_defaults(texts, source_text)
        unchecked = any(file.digest and not file.stamp for file in weights)
        digests = [file.digest or "" for file in weights]
        return StoredWeights(
            files=paths,
            digest="" if unchecked else set_digest(digests),
            size=sum(file.size or 0 for file in weights),
            facts=facts,
            source=source_text,
            resolved=located.resolved,
            revision=located.revision,
            license=located.license or facts.license or next(iter(defaults.license), ""),
            pinned=tuple(_pin(file) for file in located.files if file.digest),
            projector=self._projector(of_role.get("projector", [])),
            adapters=_paths(of_role.get("adapter", [])),
            defaults=defaults,
            stamps={path: file.stamp or self._index.stamp(path) for file, path in zip(weights, paths, strict=True)},
            in_place=not all(map(self._is_blob, digests, paths)),
            warnings=located.warnings,
        )

    def _projector(self, files: list[LocatedFile]) -> ProjectorFile | None:
        """Return the first of these files of weights; their headers were read before."""
        if not files or not files[0].path:
            return None
        [path] = _paths(files[:1])
        facts = self._facts((path,), "projector", files[0].name)
        stamp = files[0].stamp or self._index.stamp(path)
        unchecked = bool(files[0].digest and not files[0].stamp)
        return ProjectorFile(
            path=path, digest="" if unchecked else files[0].digest or "", size=files[0].size or facts.size_bytes,
            facts=facts.projector or ProjectorFacts(), stamp=stamp,
        )  # fmt: skip

    def _is_blob(self, digest: str, path: str) -> bool:
        """Return True for a file of our store, False for one that is used in place."""
        return digest != "" and self._index.blobs.path(digest) == path

    def _expand(self, source_text: str) -> Expanded:
        ref = parse_source(source_text)
        if not isinstance(ref, AliasRef):
            return Expanded(ref=ref)
        return expand(ref, self._table)

    @property
    def _table(self) -> Mapping[str, Alias]:
        return aliases() if self._names is None else self._names

    def _unknown(self, source_text: str, tried: str) -> NotFound:
        return unknown(source_text, self._table, tried)

    def _ask(self, source_text: str, expanded: Expanded, wanted: Wanted, cancelled: Cancelled) -> Located:
        named = expanded.projector is not None and wanted == "weights"
        kind = "text" if named else wanted
        found = registry.locate(expanded.ref, self._settings, cancelled, expanded.quants, kind)
        files = found.files
        if expanded.projector is not None and wanted == "weights":
            projector = registry.locate(expanded.projector, self._settings, cancelled, (), "projector")
            files = (*files, *(replace(file, role="projector") for file in projector.files))
        return replace(found, source=source_text, files=files)

    def _at_source(self, located: Located, cancelled: Cancelled) -> Located:
        """Return the same files with their addresses, for a download in place of a damaged file."""
        entry = LockEntry(
            source=located.source, resolved=located.resolved, revision=located.revision,
            files=tuple(_pin(file) for file in located.files if file.digest), license=located.license,
        )  # fmt: skip
        found = self._locked(located.source, entry, cancelled)
        # The size is that of the damaged file, where another tool's store does not list it.
        files = tuple(replace(file, size=None, pinned=False) for file in found.files)
        return replace(found, files=files, expected=located.expected)

    def _locked(self, source_text: str, entry: LockEntry, cancelled: Cancelled) -> Located:
        """Return the files of a lock entry with their addresses, which follow from its revision."""
        addresses = registry.addresses(parse_source(entry.resolved), entry, self._settings, cancelled)
        files = tuple(
            replace(address, name=file.name, size=file.size, digest=file.digest, role=file.role, pinned=True)
            for file, address in zip(entry.files, addresses, strict=True)
        )
        return Located(
            source=source_text,
            resolved=entry.resolved,
            files=files,
            revision=entry.revision,
            license=entry.license,
        )

    def _stored_hint(self) -> str:
        """Return a hint with the models that can be served without a network, newest first."""
        here = [
            entry.source
            for entry in self._index.all_fetched()
            if self._stored_files(entry.source, entry, planning=True)
        ]
        if not here:
            return "no download is stored; builtin:tiny and files by their path can be served"
        more = f" and {len(here) - _MAX_LISTED} more (mullama list --all)" if len(here) > _MAX_LISTED else ""
        return f"stored models can be served: {', '.join(here[:_MAX_LISTED])}{more}"

    def _at_path(self, source_text: str, ref: SourceRef, wanted: Wanted) -> Located | None:
        try:
            found = registry.locate(ref, self._settings, lambda: False, (), wanted)
        except NotFound:
            return None
        files = []
        for file in found.files:
            digest, stamp = self._fetcher.digest_at(file.path or "", most=HASHED_AT_ONCE)
            files.append(replace(file, digest=digest, stamp=stamp))
        return replace(found, source=source_text, files=tuple(files))

    def _stored_files(
        self, source_text: str, known: FetchRecord, planning: bool = False, *, text: bool = False
    ) -> Located | None:
        """Return stored files; None unless all are there. text: without their projector."""
        found = []
        for file in known.files:
            if text and file.role == "projector":
                continue
            copy = self._fetcher.find(file.digest, file.size, planning=planning)
            if copy is None:
                return None
            found.append(
                LocatedFile(
                    name=file.name, role=file.role, size=file.size, digest=file.digest, path=copy.path,
                    stamp=copy.stamp,
                )
            )  # fmt: skip
        if not found:
            return None
        return Located(
            source=source_text,
            resolved=known.resolved,
            files=tuple(found),
            revision=known.revision,
            license=known.license,
        )

    def _facts(self, paths: tuple[str, ...], wanted: str, what: str) -> WeightFacts:
        """Return the facts of files; raise `BadWeights` when they are of another kind than wanted."""
        known = self._index.facts(paths)
        if known is None:
            stamps = tuple(map(self._index.stamp, paths))
            known = replace(look_into(paths), metadata={}, tensors=())
            with best_effort():
                self._index.remember_facts(paths, known, stamps)
        if known.role != ("model" if wanted in ("weights", "text", "draft") else wanted):
            raise BadWeights(f"{what} is a {known.role}, not {wanted}")
        return known


def require_digest(source: str, expected: str | None, digest: str) -> None:
    """Raise `TransferFailed` for weights with another digest than the expected one."""
    if expected and digest != expected:
        raise TransferFailed(
            f"{source} changed from {expected} to {digest}",
            hint="the digest is pinned: change it in the manifest if the new file is expected",
        )


def _key(expanded: Expanded, wanted: Wanted) -> str:
    """Return the key of a source in the index, which is the same for every spelling of it."""
    quants = f" as {' or '.join(expanded.quants)}" if expanded.quants else ""
    projector = f" with {expanded.projector}" if expanded.projector and wanted == "weights" else ""
    return f"{expanded.ref}{quants}{projector}" + ("" if wanted == "weights" else f" ({wanted})")


def _paths(files: Iterable[LocatedFile]) -> tuple[str, ...]:
    return tuple(file.path for file in files if file.path)


def _pin(file: LocatedFile) -> PinnedFile:
    return PinnedFile(name=file.name, size=file.size or 0, digest=file.digest or "", role=file.role)


def spellings(source_text: str) -> tuple[str, ...]:
    """Return the possible keys of a source text in the index: for itself and for every kind of file."""
    with suppress(MullamaError):
        ref = parse_source(source_text)
        expanded = expand(ref, aliases()) if isinstance(ref, AliasRef) else Expanded(ref=ref)
        return (source_text, *(_key(expanded, wanted) for wanted in get_args(Wanted)))
    return (source_text,)
