"""The pins of a lock file as a block of the manifest. An apply of a fleet writes it for its hosts."""

from typing import Annotated

from pydantic import Field

from mullama.manifest.spec.values import AnyValue, Block, Source, Text, Whole

Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class LockedFile(Block):
    """One file of a source."""

    name: Text = Field(max_length=1024, examples=["model.gguf"])
    """Name at the source."""
    size: Whole = Field(ge=0, le=2**50 - 1)
    """Size in bytes."""
    digest: Sha256
    """SHA-256 of the file."""
    role: Text = Field(default="weights", max_length=64)
    """Use of the file: `weights`, `projector`, `adapter`, or a text of a registry."""


class LockedSource(Block):
    """The files that a source stands for."""

    resolved: Source
    """Complete name of the source."""
    revision: Text | None = None
    """Commit or digest at the source."""
    files: tuple[LockedFile, ...] = Field(min_length=1, max_length=4096)
    """Files, the weights first."""
    license: str = ""
    """License of the files."""
    facts: dict[str, AnyValue] = Field(default={}, max_length=1000)
    """Facts of the header of the weights, for their memory before the download."""
    projector: dict[str, AnyValue] = Field(default={}, max_length=1000)
    """Facts of the header of the projector beside the weights."""


class ManifestLock(Block):
    """Pins, as a lock file has them."""

    sources: dict[str, LockedSource] = Field(default={}, max_length=10_000)
    """Files by the source, as a model or an adapter names it."""
    tools: dict[str, dict[str, Sha256]] = Field(default={}, max_length=64)
    """Digests of tools by the name of their server and their own."""
