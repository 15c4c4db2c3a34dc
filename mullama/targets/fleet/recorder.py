"""Leaves the record of a rollout on the hosts of its fleet, so that the page of each of them shows the rollout.

A record is for people: a host that does not take it changes nothing in the rollout.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from mullama.codec import to_tree
from mullama.errors import NotFound
from mullama.manifest.spec import Manifest
from mullama.runtime.fleet import MOST_HOSTS, RolloutEnd, RolloutHost, RolloutModel, RolloutRecord
from mullama.struct import Struct, field, replace
from mullama.targets.fleet.execute import FleetRun, RolloutProgress
from mullama.targets.fleet.hosts import FleetHostPort, on_each
from mullama.targets.fleet.plan import FleetDraft

_NAME, _TEXT = 200, 4000
"""Most characters of a name and of a text in a record."""

_PAUSE = 0.02
"""Seconds for each host between two records: those of a larger fleet are larger, and go to more hosts."""


class RolloutSubject(Struct, frozen=True, kw_only=True):
    """The parts of a record that are known before the rollout."""

    fleet: str
    kind: Literal["apply", "undo"]
    holder: str
    urls: Mapping[str, str]
    """The address of each host of the fleet, also of those that are away."""
    models: Mapping[str, RolloutModel] = field(default_factory=dict)


def model_places(fleet: Manifest, draft: FleetDraft) -> dict[str, RolloutModel]:
    """Return the places of all models after the steps of a draft."""
    places: dict[str, list[str]] = {name: [] for name in fleet.models}
    for host, manifest in sorted(draft.manifests.items()):
        for name in manifest.models:
            places.setdefault(name, []).append(host)
    declared = {name: model.replicas for name, model in fleet.models.items()}
    return {
        name: RolloutModel(hosts=tuple(hosts), replicas=declared.get(name, len(hosts)))
        for name, hosts in sorted(places.items())
    }


def record_of(
    subject: RolloutSubject, progress: RolloutProgress, *, fence: int, number: int, began: float, updated: float,
    ended: RolloutEnd | None = None,
) -> RolloutRecord:  # fmt: skip
    """Return the record of a rollout at one moment; its `host` is empty. Long texts are cut."""
    hosts = {}
    for name, url in subject.urls.items():
        host = progress.hosts.get(name)
        if host is None:
            hosts[name] = RolloutHost(url=url, state="away")
            continue
        hosts[name] = RolloutHost(
            url=url, state=host.state, steps_done=host.done, steps=host.steps, revision=host.revision,
            outcome=host.outcome, message=host.message[:_TEXT], hint=host.hint[:_TEXT],
        )  # fmt: skip
    return RolloutRecord(
        fleet=subject.fleet[:_NAME], host="", kind=subject.kind, holder=subject.holder[:_NAME], fence=fence,
        number=number, began=began, updated=updated, ended=ended, stage=progress.stage, stages=progress.stages,
        title=progress.title, pause=progress.pause, canary=progress.canary, hosts=hosts, models=subject.models,
    )  # fmt: skip


class RolloutRecorder:
    """Sends a record after each change of a rollout, in a thread, and the last one at the end of its `with` block.

    While a record travels, changes gather for the next one. clock: returns Unix seconds.
    """

    def __init__(
        self, hosts: Sequence[FleetHostPort], subject: RolloutSubject, fence: int,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._hosts, self._subject, self._fence, self._clock = list(hosts), subject, fence, clock
        self._began, self._number = clock(), 0
        self._run: FleetRun | None = None
        self._due, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="fleet-record", daemon=True)

    def changed(self) -> None:
        """Let the next record be sent."""
        self._due.set()

    def follow(self, run: FleetRun) -> RolloutRecorder:
        """Record this run, whose `changed` is that of the recorder."""
        self._run = run
        return self

    def __enter__(self) -> RolloutRecorder:
        if self._run is not None and len(self._subject.urls) <= MOST_HOSTS:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _send_all(self) -> None:
        assert self._run is not None
        while not self._over.is_set():
            self._due.wait()
            self._due.clear()
            if not self._over.is_set():
                self._send(self._run.progress, None)
                self._over.wait(_PAUSE * len(self._hosts))
        self._send(self._run.progress, self._run.outcome.ended)

    def _send(self, progress: RolloutProgress, ended: RolloutEnd | None) -> None:
        self._number += 1
        record = record_of(
            self._subject, progress, fence=self._fence, number=self._number, began=self._began, updated=self._clock(),
            ended=ended,
        )  # fmt: skip

        def leave(host: FleetHostPort) -> Any:
            return host.leave_record(to_tree(replace(record, host=host.name)))

        answers = on_each(self._hosts, leave)
        older = {name for name, answer in answers.items() if isinstance(answer, NotFound)}
        self._hosts = [host for host in self._hosts if host.name not in older]
