"""What is true of the served models at this moment, as values: a snapshot held against the live state."""

from __future__ import annotations

from collections.abc import Container, Mapping

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.plan.observed import LiveModel, LiveState
from mullama.runtime.deployment import Snapshot
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.state import Phase

_STATES: Mapping[Phase, LiveState] = {Phase.READY: "ready", Phase.OPENING: "loading"}


def live_models(snapshot: Snapshot, pool: Pool, failures: Mapping[str, MullamaError]) -> dict[str, LiveModel]:
    """Each model as it is now. failures: why a model is not what the manifest says."""
    return {name: _live_model(name, snapshot, pool, failures.get(name)) for name in snapshot.deployments}


def _live_model(name: str, snapshot: Snapshot, pool: Pool, degraded: MullamaError | None) -> LiveModel:
    deployment = snapshot.deployments[name]
    phase, failure, serve = pool.phase(deployment.unit), pool.failure(name), deployment.serve
    state = _STATES.get(phase, "idle")
    if failure is not None and phase is not Phase.READY:
        state = "failed"
    elif degraded is not None:
        state = "degraded"
    error = degraded or failure
    return LiveModel(
        name=name,
        revision=deployment.revision,
        state=state,
        digest=deployment.files.digest or "",
        memory=(serve.weights_bytes + serve.context_bytes) if phase is Phase.READY else 0,
        reason=type(error).__name__ if error else "",
        message=error.message if error else "",
    )


def removals(desired: Manifest, kept: Container[str], snapshot: Snapshot, pool: Pool) -> tuple[int, int]:
    """(loaded models that this wish would unload, loaded models). kept: names that stay whatever the manifest says."""
    loaded = [n for n, d in snapshot.deployments.items() if pool.phase(d.unit) is not Phase.COLD]
    renamed = {m.from_ for m in desired.moved if m.to in desired.models}
    gone = [n for n in loaded if n not in desired.models and n not in renamed and n not in kept]
    return len(gone) if desired.prune.running else 0, len(loaded)
