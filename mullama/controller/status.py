"""How the stack stands: its conditions, the models whose last change failed, and what is told of both."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from mullama.controller.conditions import Condition, Conditions, Reason
from mullama.controller.event_log import EventLog
from mullama.errors import EngineFailed, Kind, ManifestError, MullamaError, NotFound, ProbeFailed
from mullama.reconcile.execute import DONE, Result
from mullama.runtime.base import Origin
from mullama.runtime.metrics import Metrics


class StatusTracker:
    """Told what happened, it says what is true since. failures: why a model is not what the manifest says."""

    def __init__(self, journal: EventLog, stats: Metrics) -> None:
        self._journal, self._stats = journal, stats
        self.conditions = Conditions()
        self.failures: dict[str, MullamaError] = {}
        self._running: list[str] = []
        self._told = ""

    # A run of the reconciler

    def begun(self, doing: str) -> None:
        self._running.append(doing)
        self.conditions.set(Condition.RECONCILING, True, Reason.APPLYING, doing)

    def progressed(self, line: Mapping[str, Any], doing: str) -> None:
        """A line of progress; fetching is a reason of its own, since it takes the longest."""
        if line["event"] == "phase":
            reason = Reason.FETCHING if line["phase"] == "fetch" else Reason.APPLYING
            self.conditions.set(Condition.RECONCILING, True, reason, doing)

    def waits(self, message: str) -> None:
        """A part of the wish is applied, the rest waits for files."""
        self.conditions.set(Condition.SYNCED, False, Reason.FETCHING, message)

    def ended(self, doing: str, seconds: float) -> None:
        """Whatever else still runs waits for its files."""
        self._running.remove(doing)
        if self._running:
            self.conditions.set(Condition.RECONCILING, True, Reason.FETCHING, self._running[-1])
        else:
            self.conditions.set(Condition.RECONCILING, False, Reason.IDLE)
        self._stats.reconcile_seconds.add(seconds)

    def applied(self, result: Result, served: Collection[str]) -> None:
        """served: the models of the snapshot; what became of the others matters no more."""
        self._told = ""
        kept = {name: error for name, error in self.failures.items() if name not in result.touched}
        self.failures = {name: error for name, error in {**kept, **result.failures}.items() if name in served}
        self._stats.last_reload_ok, self._stats.last_reload_at = True, time.time()
        self._stats.reloads["ok" if result.exit == DONE else "partly"] += 1
        self.conditions.set(Condition.CONFIG_VALID, True, Reason.APPLIED)
        self.conditions.set(Condition.SYNCED, result.exit == DONE, Reason.APPLIED, result.message)
        why = Reason.OLD_KEPT if self.failures else Reason.APPLIED
        self.conditions.set(Condition.DEGRADED, bool(self.failures), why, ", ".join(self.failures))
        self._journal.add("applied", f"revision {result.generation}", result.message)

    def not_applied(self, error: BaseException) -> None:
        self._stats.last_reload_ok = False
        self._stats.reloads["failed"] += 1
        self.conditions.set(Condition.SYNCED, False, _why_not(error), str(error))
        if str(error) != self._told:  # a watched file is tried again and again, which is told once
            self._told = str(error)
            self._journal.add("not-applied", "", str(error))

    # What a watched file did

    def invalid(self, error: MullamaError, origin: Origin, generation: int) -> None:
        """The file cannot be used: the last good one goes on serving, and status says so with the line."""
        reason = Reason.MISSING if isinstance(error, NotFound) else Reason.INVALID
        text = str(error.problems[0]) if isinstance(error, ManifestError) and error.problems else str(error)
        more = len(error.problems) - 1 if isinstance(error, ManifestError) else 0
        message = f"serving revision {generation}; the file on disk: {text}{f' (and {more} more)' if more > 0 else ''}"
        self._stats.last_reload_ok = False
        if self.conditions.set(Condition.CONFIG_VALID, False, reason, message):
            self._stats.reloads["invalid"] += 1
            self._journal.add("invalid-manifest", origin.path or "", message)

    def valid_again(self) -> None:
        """The file on disk is what is applied."""
        self.conditions.set(Condition.CONFIG_VALID, True, Reason.APPLIED)
        if not self.failures:
            self.conditions.set(Condition.SYNCED, True, Reason.APPLIED)

    def held(self, removes: int, loaded: int, origin: Origin) -> None:
        message = f"would unload {removes} of {loaded}; run `mullama apply` to confirm"
        if self.conditions.set(Condition.SYNCED, False, Reason.HELD, f"Held: {message}"):
            self._journal.add("held", origin.path or "", message)


def why_failed(error: MullamaError) -> Reason:
    """Why a model does not serve, or not as the manifest says."""
    match error:
        case ProbeFailed():
            return Reason.PROBE_FAILED
        case EngineFailed():
            return Reason.WORKER_CRASHED
        case _:
            return Reason.REFUSED if error.kind is Kind.REFUSED else Reason.LOAD_FAILED


def _why_not(error: BaseException) -> Reason:
    """Why nothing was applied, by the kind of what ended it."""
    match error.kind if isinstance(error, MullamaError) else Kind.INTERNAL:
        case Kind.TRANSFER | Kind.TIMEOUT:
            return Reason.FETCH_FAILED
        case Kind.INVALID | Kind.TOO_LARGE | Kind.NOT_FOUND | Kind.DENIED:
            return Reason.INVALID
        case _:
            return Reason.REFUSED
