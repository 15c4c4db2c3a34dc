"""A store in a temporary folder and sources that try again at once: what every test of a pull begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mullama.names import Digest
from mullama.sources.base import DownloadProgress
from mullama.sources.library import Library
from mullama.sources.settings import HubSettings, RetryPolicy, Settings, Timeouts
from mullama.store.foreign import Foreign, Roots
from mullama.store.index import Index
from mullama.weights.stored import LockEntry, StoredWeights
from tests import ggufs
from tests.stub_hub import StubHub, sha256

DATA = ggufs.model().bytes()
"""A right model of some 370 kB."""

QUICK = Settings(
    patience=RetryPolicy(tries=4, first=0.001, longest=0.002, longest_asked=5),
    waits=Timeouts(connect=60, headers=60, idle=60),
)
"""Limits are long: a busy machine may hold up a hub that is meant to answer. Tests of hubs that hang have their own."""


@dataclass
class Place:
    """One user's machine."""

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
        """Every file under a final name has that digest."""
        folder = self.root / "store" / "blobs"
        for path in folder.iterdir() if folder.exists() else []:
            assert Digest.parse(path.name.replace("-", ":")).hex == sha256(path.read_bytes())

    @property
    def left(self) -> int:
        """Bytes in partial files."""
        folder = self.root / "store" / "partial"
        files = folder.iterdir() if folder.exists() else []
        return sum(path.stat().st_size for path in files if not path.name.endswith(".json"))


def place_of(root: Path, hub: StubHub, **waits: float) -> Place:
    """A place whose Hugging Face hub is the stub."""
    settings = replace(QUICK, hub=HubSettings(endpoint=hub.url), waits=replace(QUICK.waits, **waits))  # type: ignore[arg-type]
    return Place(root, settings)
