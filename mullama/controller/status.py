"""The status of the server: its conditions, the models whose last change failed, and each model's live state."""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Mapping
from typing import Any

from mullama.controller.conditions import Condition, Conditions, Reason
from mullama.controller.event_log import EventLog
from mullama.controller.run_log import RunLog
from mullama.errors import (
    BadWeights,
    EngineFailed,
    Kind,
    ManifestError,
    ModelUnavailable,
    MullamaError,
    NotFound,
    ProbeFailed,
    Refused,
)
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import revision
from mullama.plan.observed import LiveModel, LiveState
from mullama.reconcile.execute import Outcome, Result
from mullama.runtime.base import Origin
from mullama.runtime.metrics import Metrics
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.events import UnitKey
from mullama.runtime.scheduler.state import Phase, Unit
from mullama.runtime.snapshot import Deployment, Snapshot
from mullama.runtime.worker.process import HostLost

_STATES: Mapping[Phase, LiveState] = {Phase.READY: "ready", Phase.OPENING: "loading"}


class StatusTracker:
    """Tracks the server's conditions. Call its methods as events happen; read `conditions` and `failures`."""

    def __init__(self, event_log: EventLog, metrics: Metrics) -> None:
        self._event_log, self._metrics = event_log, metrics
        self.write = RunLog()
        """Writes a line of progress to the log."""
        self.conditions = Conditions()
        self.failures: dict[str, MullamaError] = {}
        """Models that do not serve what the manifest declares, with the reason."""
        self.absent_keys: tuple[str, ...] = ()
        """The reasons for which declared API keys are not in force."""
        self._running: list[str] = []  # labels of the runs, oldest first
        self._reasons: dict[str, Reason] = {}  # of the last phase of each run
        self._last_error = ""

    # A run of the reconciler

    def begun(self, label: str) -> None:
        self._running.append(label)
        self.conditions.set(Condition.RECONCILING, True, Reason.APPLYING, label)

    def progressed(self, line: Mapping[str, Any], label: str) -> None:
        """Show a download as a reason of its own, since it takes the longest."""
        self.write(line)
        if line["event"] == "phase":
            reason = Reason.FETCHING if line["phase"] == "fetch" else Reason.APPLYING
            self._reasons[label] = reason
            self.conditions.set(Condition.RECONCILING, True, reason, label)
            if line["phase"] == "load" and self.conditions.status(Condition.SYNCED) is False:
                self.conditions.set(Condition.SYNCED, False, Reason.LOADING, "the files are here, the models load")

    def waiting(self, message: str) -> None:
        """A part of the manifest is applied, the rest waits for files."""
        self.conditions.set(Condition.SYNCED, False, Reason.FETCHING, message)

    def ended(self, label: str, seconds: float) -> None:
        self._running.remove(label)
        self._reasons.pop(label, None)
        if self._running:  # the others download, or wait for their loads
            last = self._running[-1]
            self.conditions.set(Condition.RECONCILING, True, self._reasons.get(last, Reason.APPLYING), last)
        else:
            self.conditions.set(Condition.RECONCILING, False, Reason.IDLE)
        self._metrics.reconcile_seconds.add(seconds)

    def applied(self, result: Result, served: Collection[str], *, valid: bool = True) -> None:
        """A run succeeded, at least for some models.

        served: the models of the snapshot. valid: the run applied the file's content, so the file is valid.
        """
        self._last_error = ""
        kept = {name: error for name, error in self.failures.items() if name not in result.touched}
        self.failures = {name: error for name, error in {**kept, **result.failures}.items() if name in served}
        self._metrics.last_reload_ok, self._metrics.last_reload_at = True, time.time()
        self._metrics.reloads["ok" if result.outcome is Outcome.APPLIED else "partly"] += 1
        if valid:
            self.conditions.set(Condition.CONFIG_VALID, True, Reason.APPLIED)
        if self.absent_keys:
            self.conditions.set(Condition.SYNCED, False, Reason.FETCH_FAILED, "; ".join(self.absent_keys))
        else:
            earlier = [name for name in self.failures if name not in result.failures]
            message = f"{result.message}; earlier failures: {', '.join(earlier)}" if earlier else result.message
            self.conditions.set(Condition.SYNCED, not self.failures, self._degraded(), message)
        self._set_degraded()
        self._event_log.add("applied", f"revision {result.generation}", result.message, result.touched)

    def serving(self, names: Collection[str]) -> None:
        """Forget the lost hosts of these models, which serve their present revision: the hosts answer again."""
        kept = {n: e for n, e in self.failures.items() if not (n in names and isinstance(e, HostLost))}
        if len(kept) == len(self.failures):
            return
        self.failures = kept
        if not self.absent_keys:
            self.conditions.set(Condition.SYNCED, not kept, self._degraded())
        self._set_degraded()

    def _set_degraded(self) -> None:
        """Set the condition, with an event when it begins, changes or ends."""
        before, names = self.conditions.status(Condition.DEGRADED), ", ".join(self.failures)
        changed = self.conditions.set(Condition.DEGRADED, bool(self.failures), self._degraded(), names)
        if self.failures and changed:
            reasons = "; ".join(f"{name}: {error.message}" for name, error in self.failures.items())
            self._event_log.add("degraded", names, reasons, tuple(self.failures))
        elif before and not self.failures:
            self._event_log.add("recovered", "", "every model serves what the manifest declares")

    def _degraded(self) -> Reason:
        if not self.failures:
            return Reason.APPLIED
        fetched = all(isinstance(error, ModelUnavailable) for error in self.failures.values())
        return Reason.FETCH_FAILED if fetched else Reason.OLD_KEPT

    def not_applied(self, error: BaseException) -> None:
        """A run failed before anything was changed."""
        self._metrics.last_reload_ok = False
        self._metrics.reloads["failed"] += 1
        self.conditions.set(Condition.SYNCED, False, _reason_not_applied(error), str(error))
        if str(error) != self._last_error:  # the watcher retries; the log gets the same failure once
            self._last_error = str(error)
            self._event_log.add("not-applied", "", str(error))

    # The watched file

    def invalid(self, error: MullamaError, origin: Origin, generation: int) -> None:
        """The file cannot be used, and the last good revision keeps serving."""
        reason = Reason.MISSING if isinstance(error, NotFound) else Reason.INVALID
        text = str(error.problems[0]) if isinstance(error, ManifestError) and error.problems else str(error)
        more = len(error.problems) - 1 if isinstance(error, ManifestError) else 0
        rest = f" (and {more} more)" if more > 0 else ""
        message = f"serving revision {generation}; the file on disk: {text}{rest}"
        self._metrics.last_reload_ok = False
        if self.conditions.set(Condition.CONFIG_VALID, False, reason, message):
            self._metrics.reloads["invalid"] += 1
            self._event_log.add("invalid-manifest", origin.path or "", message)

    def valid_again(self) -> None:
        """The file on disk is what is applied."""
        self.conditions.set(Condition.CONFIG_VALID, True, Reason.APPLIED)
        if not self.failures and not self.absent_keys:
            self.conditions.set(Condition.SYNCED, True, Reason.APPLIED)

    def usage_recorded(self, error: MullamaError | None) -> None:
        """The records of usage were written, or could not be."""
        known = self.conditions.status(Condition.USAGE_RECORDED)
        if error is not None:
            message = f"requests are served, and their usage waits in memory; {error}"
            if self.conditions.set(Condition.USAGE_RECORDED, False, Reason.STORE_FAILED, message):
                self._event_log.add("usage-not-recorded", "", str(error))
        elif known is False:
            self.conditions.set(Condition.USAGE_RECORDED, True, Reason.APPLIED)

    def held(self, removes: int, loaded: int, origin: Origin) -> None:
        """The file would unload too many models to be applied without a confirmation."""
        # The file of a server that follows a repository is not the manifest of the commit.
        confirmation = "mullama apply" if origin.checkout is None else "mullama reload"
        message = f"would unload {removes} of {loaded}; run `{confirmation}` to confirm"
        if self.conditions.set(Condition.SYNCED, False, Reason.HELD, message):
            self._event_log.add("held", origin.path or "", message)


def failure_reason(error: MullamaError) -> Reason:
    """Return why a model does not serve, or not as the manifest declares."""
    match error:
        case ModelUnavailable(pending=True):
            return Reason.FETCHING
        case ModelUnavailable(cause=Refused()):
            return Reason.REFUSED
        case ModelUnavailable(cause=cause):
            unusable = cause.kind is Kind.INVALID and not isinstance(cause, BadWeights)
            return Reason.LOAD_FAILED if unusable else Reason.FETCH_FAILED
        case ProbeFailed():
            return Reason.PROBE_FAILED
        case HostLost():
            return Reason.HOST_LOST
        case EngineFailed():
            return Reason.WORKER_CRASHED
        case _:
            return Reason.REFUSED if error.kind is Kind.REFUSED else Reason.LOAD_FAILED


def _reason_not_applied(error: BaseException) -> Reason:
    match error.kind if isinstance(error, MullamaError) else Kind.INTERNAL:
        case Kind.TRANSFER | Kind.TIMEOUT:
            return Reason.FETCH_FAILED
        case Kind.INVALID | Kind.TOO_LARGE | Kind.NOT_FOUND | Kind.DENIED:
            return Reason.INVALID
        case _:
            return Reason.REFUSED


def live_models(
    snapshot: Snapshot, pool: Pool, failures: Mapping[str, MullamaError], changed: Mapping[str, str]
) -> dict[str, LiveModel]:
    """Return the live state of each served model. failures: see `StatusTracker.failures`.

    changed: see `ServedFiles.look`.
    """
    # Many names may lead to one context, and the answer for a context looks at all of them.
    opens = {unit: pool.opens(unit) for unit in {d.unit for d in snapshot.deployments.values()}}
    return {
        name: _live_model(name, snapshot, pool, opens[d.unit], failures.get(name), changed)
        for name, d in snapshot.deployments.items()
    }


def _live_model(
    name: str,
    snapshot: Snapshot,
    pool: Pool,
    opens: bool,
    degraded: MullamaError | None,
    changed: Mapping[str, str],
) -> LiveModel:
    deployment = snapshot.deployments[name]
    unavailable = deployment.unavailable
    phase, failure, serve = pool.phase(deployment.unit), pool.failure(name), deployment.serve
    state = "loading" if opens else _STATES.get(phase, "idle")
    if unavailable is not None:
        state, degraded = "loading" if unavailable.pending else "failed", unavailable
    elif failure is not None and phase is not Phase.READY:
        state = "failed"
    elif degraded is not None:
        serves = phase is Phase.READY or is_old(deployment, snapshot)
        state = "degraded" if serves else "failed"
    error = degraded or failure
    cause = error.cause if isinstance(error, ModelUnavailable) else error
    return LiveModel(
        name=name,
        revision=deployment.revision,
        state=state,
        digest=deployment.files.digest or "",
        files={path: file.digest or "" for file in deployment.described for path in file.paths}
        | ({deployment.projector.path: deployment.projector.digest} if deployment.projector else {}),
        changed={path: changed[path] for path in deployment.stamps if path in changed},
        memory=(serve.weights_bytes + serve.context_bytes) if phase is Phase.READY else 0,
        reason=type(cause).__name__ if cause else "",
        message=error.message if error else "",
    )


def group_states(snapshot: Snapshot, pool: Pool) -> list[dict[str, Any]]:
    """Return each group with its models that are loaded, are being loaded or drain, and those that wait for a place."""
    state, found = pool.state, []
    held = {name for key, unit in state.units.items() if _holds_place(pool, key, unit) for name in unit.names}
    for bound in snapshot.rules.groups:
        names = [name for name in snapshot.deployments if name in bound.models]
        loaded = [name for name in names if name in held]
        waiting = {name: count for name in names if name not in held and (count := state.queued(name))}
        found.append({"name": bound.name, "max": bound.most, "loaded": loaded, "waiting": waiting})
    return found


def _holds_place(pool: Pool, key: UnitKey, unit: Unit) -> bool:
    return unit.phase is not Phase.COLD or (unit.starts and pool.load(key) is not None)


class DeclaredRevisions:
    """The revisions that the manifest in force declares. They are computed once for each manifest."""

    def __init__(self) -> None:
        self._manifest: Manifest | None = None
        self._known: dict[str, str] = {}

    def of(self, snapshot: Snapshot) -> Mapping[str, str]:
        """Return the declared revision of each model by its name."""
        if self._manifest is not snapshot.manifest:
            self._known = {name: _declared(snapshot, name) for name in snapshot.manifest.models}
            self._manifest = snapshot.manifest
        return self._known


def _declared(snapshot: Snapshot, name: str) -> str:
    model, deployment = snapshot.manifest.models[name], snapshot.deployments.get(name)
    return deployment.revision if deployment is not None and deployment.model == model else revision(model)


def is_old(deployment: Deployment, snapshot: Snapshot) -> bool:
    """Return True when the model serves an earlier revision, because its new one failed."""
    desired = snapshot.manifest.models.get(deployment.name)
    return desired is None or revision(desired) != deployment.revision


def removals(desired: Manifest, kept: Container[str], snapshot: Snapshot, pool: Pool) -> tuple[int, int]:
    """Count (loaded models that this manifest would unload, loaded models). kept: names of the overlay."""
    loaded = [n for n, d in snapshot.deployments.items() if pool.phase(d.unit) is not Phase.COLD]
    renamed = {m.from_ for m in desired.moved if m.to in desired.models}
    gone = [n for n in loaded if n not in desired.models and n not in renamed and n not in kept]
    return len(gone) if desired.prune.running else 0, len(loaded)
