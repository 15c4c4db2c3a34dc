"""The current state of a server: one immutable value, replaced at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mullama.errors import NotFound
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import revision
from mullama.names import suggest
from mullama.plan.observed import Machine
from mullama.reconcile.overlay import Overlay, combine
from mullama.runtime.base import Origin
from mullama.runtime.snapshot import Snapshot, key_of
from mullama.struct import Struct, field, replace


class Current(Struct, frozen=True, kw_only=True):
    """The state of a server at one moment."""

    manifest: Manifest
    """The applied manifest without the overlay."""

    overlay: Overlay
    """The models and routes that clients added."""

    snapshot: Snapshot
    """The part that requests see: `manifest` and `overlay` combined, with their deployments."""

    origin: Origin = field(default_factory=Origin)
    """The source of `manifest`."""

    listening: tuple[str, ...] = ()
    """The open addresses, with the ports that the system chose."""

    machine: Machine | None = None
    """The machine as it was observed last."""

    @property
    def started(self) -> bool:
        """True once a revision is served."""
        return self.snapshot.generation > 0

    def find(self, name: str) -> str | None:
        """Return the model behind a name or route, in its own spelling."""
        key = key_of(name)
        if key in self.snapshot.exposed:  # an adapter of a model, which its manifest declares
            return None
        target = self.snapshot.names.get(key)
        return target if target in self.snapshot.deployments else None

    def require(self, name: str) -> str:
        """Return the model behind a name; raise `NotFound` with similar names if there is none."""
        known = self.find(name)
        if known is None:
            close = suggest(name, self.snapshot.deployments)
            raise NotFound(f"model '{name[:80]}' not found", name=name, near=close)
        return known

    def serves(self, manifest: Manifest) -> bool:
        """True when this manifest with the overlay is the served revision."""
        return self.started and revision(combine(manifest, self.overlay)) == self.snapshot.revision


class CurrentState:
    """Holds the `Current` value of one server. Readers take `value` once; only the reconciler replaces it."""

    def __init__(self, value: Current) -> None:
        self.value = value
        self.subscribers: list[Callable[[Origin], None]] = []
        """Called in this order, with the new origin, after each applied change."""

    def update(self, **parts: Any) -> None:
        """Replace the value by one with these parts."""
        self.value = replace(self.value, **parts)
