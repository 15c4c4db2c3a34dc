"""Weights on this machine, and weights that a lock file pins: values of both the store and the sources."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from mullama.chat.media import MediumKind
from mullama.names import JSONValue
from mullama.struct import Struct, field
from mullama.weights.facts import ProjectorFacts, WeightFacts

FileRole = Literal[
    "weights", "projector", "adapter", "template", "system", "parameters", "messages", "license", "draft"
]
"""The role of a file of a source. Registries have small texts next to GGUF files, which become defaults."""


class Defaults(Struct, frozen=True, kw_only=True):
    """The defaults of a registry's model, which the manifest overrides."""

    template: str = ""
    """A Go template."""
    system: str = ""
    parameters: Mapping[str, JSONValue] = field(default_factory=dict)
    """Values by the names of a Modelfile."""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, content) of each message."""
    license: tuple[str, ...] = ()


class PinnedFile(Struct, frozen=True, kw_only=True):
    """One file in a lock file or an index."""

    name: str
    size: int
    """Bytes."""
    digest: str
    """`sha256:…`."""
    role: FileRole = "weights"


class ProjectorFile(Struct, frozen=True, kw_only=True):
    """The projector of weights: a file that is stored, or that a lock entry pins."""

    path: str = ""
    """"" for a file that is not stored."""
    digest: str = ""
    """"" for a file in place that was not hashed yet."""
    size: int = 0
    """Bytes."""
    facts: ProjectorFacts
    stamp: str = ""
    """The state of the file (see `store.index.stamp`) for which the digest holds."""

    @property
    def kinds(self) -> tuple[MediumKind, ...]:
        """The kinds of media that it reads."""
        return tuple(kind for kind, able in _abilities(self.facts) if able)


def _abilities(facts: ProjectorFacts) -> tuple[tuple[MediumKind, bool], ...]:
    return ("image", facts.vision), ("audio", facts.audio)


class LockEntry(Struct, frozen=True, kw_only=True):
    """The files of a source at the time of the lock."""

    source: str
    resolved: str
    """The source after aliases, with a revision that does not move."""
    revision: str | None
    """A commit, the digest of a registry's manifest, or None."""
    files: tuple[PinnedFile, ...]
    facts: WeightFacts | None = None
    """The facts for memory arithmetic; see `record.for_lock`."""
    license: str = ""
    projector: ProjectorFacts | None = None
    """The abilities of the projector among the files; None without one."""

    @property
    def digest(self) -> str:
        return set_digest([file.digest for file in self.files if file.role == "weights"])


class StoredWeights(Struct, frozen=True, kw_only=True):
    """Weights that can be loaded now."""

    files: tuple[str, ...]
    """The paths of all parts, in order."""
    digest: str
    """The digest of the set (see `set_digest`); "" for files in place that were not hashed yet."""
    size: int
    """The bytes of all parts."""
    facts: WeightFacts
    source: str
    resolved: str = ""
    """The source after aliases, with the file and the revision that were chosen."""
    revision: str | None = None
    """A commit or the digest of a registry's manifest."""
    license: str = ""
    pinned: tuple[PinnedFile, ...] = ()
    """The files for a lock file."""
    projector: ProjectorFile | None = None
    adapters: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    stamps: Mapping[str, str] = field(default_factory=dict)
    """The state (see `store.index.stamp`) of each file of the set for which `digest` and `facts` hold, by path."""
    in_place: bool = False
    """True for files of the user or of another tool, which are never deleted."""
    warnings: tuple[str, ...] = ()

    def lock_entry(self, facts: WeightFacts) -> LockEntry:
        """Return the entry for a lock file. facts: the facts to keep; see `record.for_lock`."""
        return LockEntry(
            source=self.source, resolved=self.resolved, revision=self.revision, files=self.pinned, facts=facts,
            license=self.license, projector=self.projector.facts if self.projector else None,
        )  # fmt: skip


def set_digest(digests: Sequence[str]) -> str:
    """Return the digest of a set: that of a single file, or the SHA-256 of the digests of several, one a line."""
    if len(digests) == 1:
        return digests[0]
    if not all(digests):
        return ""
    return "sha256:" + hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()
