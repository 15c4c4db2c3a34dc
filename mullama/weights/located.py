"""Files that a source or a store of another tool has found: on this machine, or at an address."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.struct import Struct, field, replace, repr_without
from mullama.weights.stored import FileRole


class Credential(Struct, frozen=True):
    """Headers of a request with a token."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Secret: no message contains them."""
    looked: str = "nowhere"
    """The places where a token was looked for, for messages."""

    __repr__ = repr_without("headers")


class LocatedFile(Struct, frozen=True, kw_only=True):
    """One file, with a `path` where it is used in place, or a `url` from which it is downloaded."""

    name: str
    """The name at the source."""
    role: FileRole = "weights"
    size: int | None = None
    """Bytes; None if the source gives no size."""
    digest: str | None = None
    """`sha256:…`; None if the source gives no digest."""
    path: str | None = None
    stamp: str = ""
    """The state of the file at `path` for which `digest` holds; "" if the digest is not checked."""
    url: str | None = None
    credential: Credential = Credential()
    pinned: bool = False
    """True if the digest is from a lock file or the manifest. Another digest then means that the file moved."""

    @property
    def identity(self) -> str:
        """The key by which a later try finds the partial download: the digest, or the address without one."""
        return self.digest or f"{self.url}"


class Located(Struct, frozen=True, kw_only=True):
    """All files of one source."""

    source: str
    resolved: str
    """The source after aliases, with the file and the revision that were chosen."""
    files: tuple[LocatedFile, ...]
    revision: str | None = None
    """A commit or the digest of a registry's manifest."""
    license: str = ""
    expected: str | None = None
    """The digest that the set must have."""
    warnings: tuple[str, ...] = ()
    """Messages for the user, such as a hub that cannot be reached while the files are stored."""

    @property
    def size(self) -> int:
        """The bytes of all files with a known size."""
        return sum(file.size or 0 for file in self.files)


def expecting(located: Located, digest: str | None) -> Located:
    """Return located files that must have the digest of the manifest."""
    if digest is None:
        return located
    weights = [file for file in located.files if file.role == "weights"]
    if len(weights) != 1 or weights[0].path is not None:
        return replace(located, expected=digest)
    pinned = replace(weights[0], digest=digest, pinned=True)
    return replace(
        located, expected=digest, files=tuple(pinned if file is weights[0] else file for file in located.files)
    )
