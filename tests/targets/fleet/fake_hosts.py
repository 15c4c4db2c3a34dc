"""Hosts of a fleet without servers: they keep a history and a lease, and fail by their script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mullama.client.http import StreamStop
from mullama.controller.fleet.lease import LeaseState, admitted, granted, lease_tree, released
from mullama.errors import Conflict, MullamaError, NotFound
from mullama.runtime.base import LeaseRequest
from mullama.targets.fleet.hosts import HostStep


class FakeHost:
    """Implements `FleetHostPort`. `clock` is its own one, in seconds."""

    def __init__(self, name: str, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.name, self.clock = name, clock
        self.leases = LeaseState()
        self.history: list[dict[str, Any]] = []
        self.states: dict[str, str] = {}
        """The state of each model in the status."""
        self.script: list[Any] = []
        """The next changes: an error, a result, or a function that is called; an empty one succeeds."""
        self.gone: MullamaError | None = None
        """The error of every call."""
        self.log: list[str] = []
        self.records: list[Mapping[str, Any]] = []
        """The records of rollouts that were left."""
        self.recorded = threading.Condition()
        self.commit({"models": {}}, None)

    @property
    def revision(self) -> str:
        return str(self.history[0]["revision"])

    @property
    def manifest(self) -> Any:
        return self.history[0]["manifest"]

    def commit(self, manifest: Any, mark: str | None, by: str = "") -> None:
        number = len(self.history) + 1
        origin = {"fleet": mark} if mark else {}
        row = {"generation": number, "revision": f"{self.name}{number}", "manifest": manifest, "by": by}
        self.history.insert(0, {**row, "origin": origin})

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        self._answer()
        match path:
            case "/api/v1/status":
                return {"models": [{"name": name, "state": state} for name, state in self.states.items()]}
            case "/api/v1/history":
                return {"generations": self.history}
            case _:
                raise NotFound(path)

    def plan(self, manifest: Mapping[str, Any], targets: Sequence[str] = ()) -> Any:
        self._answer()
        raise NotFound("/api/v1/plan")

    def lease(self) -> Mapping[str, Any]:
        self._answer()
        return lease_tree(self.leases, self.clock())

    def take_lease(self, holder: str, fleet: str, seconds: float, fence: int) -> Mapping[str, Any]:
        self._answer()
        self.leases = granted(
            self.leases, LeaseRequest(holder=holder, fleet=fleet, seconds=seconds, fence=fence), self.clock()
        )
        return lease_tree(self.leases, self.clock())

    def release_lease(self, holder: str) -> Any:
        self._answer()
        self.leases = released(self.leases, holder, self.clock())

    def leave_record(self, record: Mapping[str, Any]) -> Any:
        self._answer()
        with self.recorded:
            self.records.append(record)
            self.recorded.notify_all()

    def change(self, step: HostStep, *, within: float, stop: StreamStop) -> Iterator[Mapping[str, Any]]:
        self._answer()
        self.leases = admitted(self.leases, step.fence)
        if step.expect != self.revision:
            raise Conflict(f"{self.name}: the applied revision is {self.revision}, not {step.expect}")
        yield {"event": "phase", "phase": "load"}
        do = self.script.pop(0) if self.script else None
        if callable(do):
            do = do(stop)
        if isinstance(do, Exception):
            raise do
        if do is None:
            old = {row["generation"]: row["manifest"] for row in self.history}
            manifest = step.manifest if step.manifest is not None else old[step.to]
            if manifest != self.manifest:
                self.commit(manifest, step.mark, step.by)
            do = {"outcome": "applied", "message": "", "revision": self.revision, "generation": len(self.history)}
        self.log.append(step.mark)
        yield {"event": "result", **do}

    def events(self, path: str, query: Mapping[str, str], stop: StreamStop) -> Iterator[Mapping[str, Any]]:
        self._answer()
        yield from ()

    def _answer(self) -> None:
        if self.gone is not None:
            raise self.gone


class Gate:
    """A place at which hosts wait: `reached` counts them, `open` lets them pass."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self, stop: StreamStop) -> None:
        self.reached.release()
        self._opened.wait(5)

    def open(self) -> None:
        self._opened.set()
