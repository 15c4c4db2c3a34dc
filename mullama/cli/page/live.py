"""The live state of a server as a page of the terminal knows it, folded from the updates of `/api/v1/live`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mullama.struct import Struct, field, replace

KEPT_EVENTS = 1000
KEPT_SAMPLES = 60

_ERRORS = ("degraded", "not-applied", "invalid-manifest", "not-listening", "certificate-refused", "usage-not-recorded")
_WARNINGS = ("held", "git-edited", "files-changed", "warning")


class LiveView(Struct, frozen=True, kw_only=True):
    """The server after the updates so far."""

    status: Mapping[str, Any] = field(default_factory=dict)
    """The tree of `/api/v1/status`; empty before the first update."""
    events: tuple[Mapping[str, Any], ...] = ()
    """The newest events, oldest first."""
    samples: tuple[Mapping[str, Any], ...] = ()
    """The newest measurements of speed, oldest first."""

    @property
    def models(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the models."""
        found: Sequence[Mapping[str, Any]] = self.status.get("models") or ()
        return found

    def speeds(self, name: str) -> tuple[float, ...]:
        """Return the tokens per second of a model over the kept samples, oldest first."""
        return tuple(float((sample.get("tokens") or {}).get(name, 0.0)) for sample in self.samples)

    def last_error(self, name: str) -> Mapping[str, Any] | None:
        """Return the newest event that reports a failure of this model."""
        named = (event for event in reversed(self.events) if name in models_of(event))
        found: Mapping[str, Any] | None = next((event for event in named if severity(event) == "error"), None)
        return found


def taken(view: LiveView, update: Mapping[str, Any]) -> LiveView:
    """Return the view after one update: everything at first, later the models, fields and events that changed."""
    status = update.get("status") or view.status
    if changed := {row["name"]: row for row in update.get("models") or ()}:
        status = {**status, "models": [changed.get(row["name"], row) for row in status.get("models") or ()]}
    if fields := update.get("server"):
        status = {**status, **fields}
    begins = "status" in update and "sample" not in update  # a new connection, maybe to another process
    events = () if begins else view.events
    last = _newest(events)
    events = (*events, *(event for event in update.get("events") or () if event["id"] > last))[-KEPT_EVENTS:]
    samples = (*view.samples, update["sample"])[-KEPT_SAMPLES:] if update.get("sample") else view.samples
    return replace(view, status=status, events=events, samples=samples)


def models_of(event: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of the models that an event is about. An earlier version names them in the subject alone."""
    found: Sequence[str] = event.get("models") or str(event.get("subject") or "").split(", ")
    return found


def severity(event: Mapping[str, Any]) -> str:
    """Return `error`, `warning` or `plain` for an event, by its kind."""
    kind = str(event.get("kind") or "")
    if kind in _ERRORS or kind.endswith("-failed"):
        return "error"
    return "warning" if kind in _WARNINGS else "plain"


def _newest(events: Sequence[Mapping[str, Any]]) -> int:
    return int(events[-1]["id"]) if events else 0
