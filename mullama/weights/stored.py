"""Weights that lie on this machine, and weights that a lock file pins: the values that store and sources share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mullama.names import JSONValue
from mullama.weights.facts import Capability, WeightFacts

FileRole = Literal[
    "weights", "projector", "adapter", "template", "system", "parameters", "messages", "license", "draft"
]
"""What a file of a source is for. Beside GGUF files, registries keep small texts that become defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What came along with the weights and holds unless the manifest says otherwise.

    template: a Modelfile's Go template. parameters: Modelfile names. messages: (role, content). license: texts.
    """

    template: str = ""
    system: str = ""
    parameters: Mapping[str, JSONValue] = field(default_factory=dict)
    messages: tuple[tuple[str, str], ...] = ()
    license: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """One file as a lock file or an index knows it: size in bytes, digest `sha256:…`."""

    name: str
    size: int
    digest: str
    role: FileRole = "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """What a source text stood for when it was locked: revision is a commit, a registry digest, or None.

    resolved: the source text after aliases, without a moving revision. facts: enough for memory arithmetic.
    """

    source: str
    resolved: str
    revision: str | None
    files: tuple[PinnedFile, ...]
    facts: WeightFacts | None = None
    license: str = ""

    @property
    def digest(self) -> str:
        return set_digest([file.digest for file in self.files if file.role == "weights"])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """Weights that can be loaded now.

    files: paths of all parts, in order. digest: of the whole set (see `set_digest`), "" while files that are
    used in place have not been read through yet. size: bytes of all parts. source: the text that asked for
    them. revision: commit or registry digest where there is one. pinned: what a lock file would hold.
    in_place: the files belong to the user or to another tool, and are never deleted by us.
    """

    files: tuple[str, ...]
    digest: str
    size: int
    facts: WeightFacts
    source: str
    resolved: str = ""
    revision: str | None = None
    license: str = ""
    pinned: tuple[PinnedFile, ...] = ()
    projector: str | None = None
    adapters: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    in_place: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What the weights can do, with vision where a projector came along."""
        return (*self.facts.capabilities, "vision") if self.projector else self.facts.capabilities

    def lock_entry(self, facts: WeightFacts) -> LockEntry:
        """What pins this; `facts` are those to keep (see `record.for_lock`)."""
        return LockEntry(
            source=self.source, resolved=self.resolved, revision=self.revision, files=self.pinned, facts=facts,
            license=self.license,
        )  # fmt: skip


def set_digest(digests: Sequence[str]) -> str:
    """The digest of a set: of a single file its own, of several the SHA-256 of their digests, one per line."""
    if len(digests) == 1:
        return digests[0]
    if not all(digests):
        return ""
    return "sha256:" + hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()
