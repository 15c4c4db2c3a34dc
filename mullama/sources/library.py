"""All sources together: where the files behind a text are, and having them here, whole and checked.

What is on this machine already is used before anything is asked: a lock entry names the files by digest, the index
knows what a text stood for when it was fetched, other tools' stores may hold it. Only `refresh` asks again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Final, get_args

from mullama.errors import BadWeights, MullamaError, NotFound, TransferFailed, Unavailable
from mullama.names import AliasRef, BuiltinRef, PathRef, SourceRef, parse_source
from mullama.sources import registry
from mullama.sources.aliases import Alias, Expanded, aliases, expand
from mullama.sources.base import Cancelled, FetchRecord, FileIndex, ForeignStores, Report
from mullama.sources.fetch import FileFetcher, best_effort
from mullama.sources.local_files import hashed, look_into, read_text
from mullama.sources.registry import Wanted
from mullama.sources.settings import Settings
from mullama.weights.facts import WeightFacts
from mullama.weights.layers import TEXTS, read_defaults
from mullama.weights.located import Located, LocatedFile
from mullama.weights.stored import LockEntry, PinnedFile, StoredWeights, set_digest

_SMALL: Final = 64 * 1024**2
_FEW: Final = 5
_HERE: Final = (PathRef, BuiltinRef)
_FIRST_SEEN: Final = "came without a digest; what was received is now held to: pin it with `digest: {}`"


def find_stored(
    source_text: str, index: FileIndex, foreign: ForeignStores, lock_entry: LockEntry | None = None
) -> StoredWeights | None:
    """The weights behind a source text if all their files are on this machine; no network, nothing is hashed.

    Raises `BadWeights` for files that are here and must not be loaded, `Invalid` for a text that is no source.
    """
    library = Library(index, foreign)
    found = library.here(source_text, lock_entry)
    return library.stored(found, source_text) if found else None


class Library:
    """Sources with a store behind them. Safe to use from several threads."""

    def __init__(
        self,
        index: FileIndex,
        foreign: ForeignStores,
        settings: Settings | None = None,
        names: Mapping[str, Alias] | None = None,
    ) -> None:
        self._index, self._foreign = index, foreign
        self._settings = settings or Settings()
        self._presence = FileFetcher(index, foreign, self._settings)
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
        """Where the files are: pinned by the lock entry, else as fetched before, else as the source says now.

        refresh asks the source although the answer is known; if it cannot be reached, what is stored serves,
        with a warning. Offline raises `Unavailable` for what is not here.
        """
        expanded = self._expand(source_text)
        here = self.here(source_text, lock_entry, wanted=wanted)
        if here is not None and (offline or not refresh):
            return here
        if isinstance(expanded.ref, _HERE):
            return registry.locate(expanded.ref, self._settings, cancelled, (), "weights")  # says what is missing
        if offline:
            raise Unavailable(
                f"{source_text} is not on this machine, and --offline asks no network",
                hint=self._what_is_here(),
            )
        if lock_entry is not None and not refresh:
            return self._locked(source_text, lock_entry, cancelled)
        try:
            return self._ask(source_text, expanded, wanted, cancelled)
        except Unavailable as error:
            if here is None:
                hint = f"{error.hint}; {self._what_is_here()}"
                raise Unavailable(error.message, hint=hint, retry_after=error.retry_after) from error
            warning = f"{source_text} could not be asked ({error.message}); what is stored is used"
            return replace(here, warnings=(*here.warnings, warning))

    def here(
        self, source_text: str, lock_entry: LockEntry | None = None, *, wanted: Wanted = "weights"
    ) -> Located | None:
        """The files, if every one of them is on this machine."""
        expanded = self._expand(source_text)
        if isinstance(expanded.ref, _HERE):
            found = self._at_path(source_text, expanded.ref)
            return replace(found, expected=lock_entry.digest) if found and lock_entry else found
        if lock_entry is not None:
            return self._all_here(source_text, lock_entry)
        known = self._index.fetched(_key(expanded, wanted))
        if known is not None:
            fetched = self._all_here(source_text, known)
            if fetched is not None:
                return fetched
        if wanted != "weights" or expanded.projector is not None:
            return None  # other tools' stores are asked for single models only
        elsewhere = self._foreign.by_ref(expanded.ref, expanded.quants)
        return replace(elsewhere, source=source_text) if elsewhere else None

    def ensure(
        self, located: Located, report: Report, cancelled: Cancelled, *, wanted: Wanted = "weights"
    ) -> StoredWeights:
        """Have every file here: fetched and verified, or in place and hashed once; then read the headers.

        Raises `TransferFailed`, `Denied`, `NotFound`, `Refused` (no room), `BadWeights`.
        """
        with self._index.blobs.using():
            present = self._presence.all(located.files, report, cancelled)
            complete = replace(located, files=present)
            stored = self.stored(complete, located.source, wanted=wanted)
            if located.expected and stored.digest != located.expected:
                raise TransferFailed(
                    f"{located.source} moved from {located.expected} to {stored.digest}",
                    hint="the digest is pinned: change it in the manifest if the new file is right",
                )
            expanded = self._expand(located.source)
            if not isinstance(expanded.ref, _HERE):
                with best_effort() if stored.in_place else nullcontext():
                    self._index.remember(replace(stored, source=_key(expanded, wanted)), time.time())
        first_seen = tuple(
            f"{file.name} {_FIRST_SEEN.format(after.digest)}"
            for file, after in zip(located.files, present, strict=True)
            if file.url and file.digest is None
        )
        return replace(stored, warnings=(*stored.warnings, *first_seen))

    def stored(self, located: Located, source_text: str, *, wanted: Wanted = "weights") -> StoredWeights:
        """What lies at the paths of `located`, described by its headers; checks that it is what was wanted."""
        weights = tuple(file for file in located.files if file.role == "weights")
        paths = tuple(file.path or "" for file in weights)
        facts = self._facts(paths, wanted, source_text)
        for file in located.files:
            if file.role in ("projector", "adapter", "draft"):
                self._facts((file.path or "",), file.role, f"{file.name} of {source_text}")
        texts = [(file.role, read_text(file.path or "")) for file in located.files if file.role in TEXTS and file.path]
        defaults = read_defaults(texts, source_text)
        digests = [file.digest or self._index.digest(path) or "" for file, path in zip(weights, paths, strict=True)]
        blobs = self._index.blobs
        return StoredWeights(
            files=paths,
            digest=set_digest(digests),
            size=sum(file.size or 0 for file in weights),
            facts=facts,
            source=source_text,
            resolved=located.resolved,
            revision=located.revision,
            license=located.license or facts.license or (defaults.license[0] if defaults.license else ""),
            pinned=tuple(_pin(file) for file in located.files if file.digest),
            projector=next((file.path for file in located.files if file.role == "projector"), None),
            adapters=tuple(file.path for file in located.files if file.role == "adapter" and file.path),
            defaults=defaults,
            in_place=any(not d or blobs.path(d) != path for d, path in zip(digests, paths, strict=True)),
            warnings=located.warnings,
        )

    def _expand(self, source_text: str) -> Expanded:
        ref = parse_source(source_text)
        if not isinstance(ref, AliasRef):
            return Expanded(ref=ref)
        return expand(ref, aliases() if self._names is None else self._names)

    def _ask(self, source_text: str, expanded: Expanded, wanted: Wanted, cancelled: Cancelled) -> Located:
        found = registry.locate(expanded.ref, self._settings, cancelled, expanded.quants, wanted)
        files = found.files
        if expanded.projector is not None and wanted == "weights":
            beside = registry.locate(expanded.projector, self._settings, cancelled, (), "projector")
            files = (*files, *(replace(file, role="projector") for file in beside.files))
        return replace(found, source=source_text, files=files)

    def _locked(self, source_text: str, entry: LockEntry, cancelled: Cancelled) -> Located:
        """The files that a lock entry names; where they are fetched from follows from its revision."""
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

    def _what_is_here(self) -> str:
        """What can be served without a network, the newest first."""
        here = [entry.source for entry in self._index.all_fetched() if self._all_here(entry.source, entry)]
        if not here:
            return "nothing that was fetched is here; builtin:tiny and files by their path can be served"
        more = f" and {len(here) - _FEW} more (mullama list --all)" if len(here) > _FEW else ""
        return f"what is here can be served: {', '.join(here[:_FEW])}{more}"

    def _at_path(self, source_text: str, ref: SourceRef) -> Located | None:
        try:
            found = registry.locate(ref, self._settings, lambda: False, (), "weights")
        except NotFound:
            return None
        files = tuple(replace(file, digest=self._digest_at(file.path or "", file.size or 0)) for file in found.files)
        return replace(found, source=source_text, files=files)

    def _digest_at(self, path: str, size: int) -> str | None:
        """What is known of a file in place; a small one is read at once, a large one only by `ensure`."""
        known = self._index.digest(path)
        if known is None and size <= _SMALL:
            known = hashed(path, path, lambda progress: None, lambda: False)
            with best_effort():
                self._index.remember_digest(path, known)
        return known

    def _all_here(self, source_text: str, known: FetchRecord) -> Located | None:
        found = []
        for file in known.files:
            path = self._presence.path_of(file.digest, file.size)
            if path is None:
                return None
            found.append(LocatedFile(name=file.name, role=file.role, size=file.size, digest=file.digest, path=path))
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
        """What the headers say, if they say that this is what is wanted."""
        known = self._index.facts(paths)
        if known is None:
            known = replace(look_into(paths), metadata={}, tensors=())
            with best_effort():
                self._index.remember_facts(paths, known)
        if known.role != ("model" if wanted in ("weights", "draft") else wanted):
            raise BadWeights(f"{what} is a {known.role}, not {wanted} as is wanted here")
        return known


def _key(expanded: Expanded, wanted: Wanted) -> str:
    """What the index knows a source by, however it was spelled."""
    wishes = f" as {' or '.join(expanded.quants)}" if expanded.quants else ""
    beside = f" with {expanded.projector}" if expanded.projector else ""
    return f"{expanded.ref}{wishes}{beside}" + ("" if wanted == "weights" else f" ({wanted})")


def _pin(file: LocatedFile) -> PinnedFile:
    return PinnedFile(name=file.name, size=file.size or 0, digest=file.digest or "", role=file.role)


def spellings(source_text: str) -> tuple[str, ...]:
    """What the index may know a source text by: as it stands, and after the alias table; for any kind of file."""
    with suppress(MullamaError):
        ref = parse_source(source_text)
        expanded = expand(ref, aliases()) if isinstance(ref, AliasRef) else Expanded(ref=ref)
        return (source_text, *(_key(expanded, wanted) for wanted in get_args(Wanted)))
    return (source_text,)
