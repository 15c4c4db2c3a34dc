"""Files that were found but are perhaps not here yet: what sources answer and foreign stores too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mullama.weights.stored import FileRole


@dataclass(frozen=True, slots=True)
class Credential:
    """Headers that prove who asks, and where they were looked for; neither value is ever shown."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    looked: str = "nowhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedFile:
    """One file: either `path`, which is used in place, or `url`, which is fetched.

    name: as the source calls it. size: bytes, None if the source does not say. digest: `sha256:…`, None where
    only the bytes can tell. expected: whether the digest was pinned, so that another one means that it moved.
    """

    name: str
    role: FileRole = "weights"
    size: int | None = None
    digest: str | None = None
    path: str | None = None
    url: str | None = None
    credential: Credential = field(default_factory=Credential)
    pinned: bool = False

    @property
    def identity(self) -> str:
        """What an interrupted download is found again by: the content where it is known, else the address."""
        return self.digest or f"{self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """All files behind one source text. resolved: the text after aliases, with what was chosen.

    revision: commit or registry digest. warnings: what a person should know, such as a hub that was not
    reached while the files are here already. expected: the digest that the whole set must have.
    """

    source: str
    resolved: str
    files: tuple[LocatedFile, ...]
    revision: str | None = None
    license: str = ""
    expected: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files whose size is known."""
        return sum(file.size or 0 for file in self.files)


def expecting(located: Located, digest: str | None) -> Located:
    """`located`, to be refused when its weights turn out to have another digest than the manifest says."""
    if digest is None:
        return located
    weights = [file for file in located.files if file.role == "weights"]
    if len(weights) != 1 or weights[0].path is not None:
        return replace(located, expected=digest)
    pinned = replace(weights[0], digest=digest, pinned=True)
    return replace(
        located, expected=digest, files=tuple(pinned if file is weights[0] else file for file in located.files)
    )
