"""A store in a temporary folder, with sources that repeat failed requests at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mullama.names import Digest
from mullama.sources.base import DownloadProgress
from mullama.sources.library import Library
from mullama.sources.settings import HubSettings, RetryPolicy, Settings, Timeouts
from mullama.store.foreign import Foreign, Roots
from mullama.store.index import Index
from mullama.struct import replace
from mullama.weights.stored import LockEntry, StoredWeights
from tests import ggufs
from tests.stub_hub import StubHub, sha256

DATA = ggufs.model().bytes()
"""A valid model of about 370 kB."""

QUICK = Settings(
    patience=RetryPolicy(tries=4, first=0.001, longest=0.002, longest_asked=5),
    waits=Timeouts(connect=60, headers=60, idle=60),
)
"""Time limits are long, because a busy machine may delay the hub. Tests of hubs that hang have limits of their own."""


@dataclass
class SourceFixture:
    """Pulls into one store and keeps the progress in `seen`."""

    root: Path
    settings: Settings = QUICK
    roots: Roots = field(default_factory=Roots)
    seen: list[DownloadProgress] = field(default_factory=list)
    cancelled: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.index = Index(self.root / "store")
        self.foreign = Foreign(self.roots)
        self.blobs = self.index.blobs

    @property
    def library(self) -> Library:
        return Library(self.index, self.foreign, self.settings, {})

    def pull(self, source: str, lock: LockEntry | None = None, *, offline: bool = False) -> StoredWeights:
        located = self.library.locate(source, lock, offline)
        return self.library.ensure(located, self.seen.append, self.cancelled)

    @property
    def phases(self) -> list[str]:
        return [progress.phase for progress in self.seen]

    def check_blobs(self) -> None:
        """Check that every stored file has the digest that is its name."""
        folder = self.root / "store" / "blobs"
        for path in folder.iterdir() if folder.exists() else []:
            assert Digest.parse(path.name.replace("-", ":")).hex == sha256(path.read_bytes())

    @property
    def left(self) -> int:
        """The bytes of partial files."""
        folder = self.root / "store" / "partial"
        files = folder.iterdir() if folder.exists() else []
        return sum(path.stat().st_size for path in files if not path.name.endswith(".json"))


def source_fixture(root: Path, hub: StubHub, **waits: float) -> SourceFixture:
    """Return sources whose hub is the stub. waits: fields of `Timeouts`."""
    settings = replace(QUICK, hub=HubSettings(endpoint=hub.url), waits=replace(QUICK.waits, **waits))  # type: ignore[arg-type]
    return SourceFixture(root, settings)
