"""The memory of models that share weights and contexts, counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mullama.runtime.snapshot import Snapshot

_Tree = Mapping[str, Any]


def memory_in_use(models: Sequence[_Tree], snapshot: Snapshot) -> dict[str, int]:
    """Return the bytes in use by all loaded models, the number of their names, and of the contexts behind them."""
    loaded = [model["name"] for model in models if model["memory"]]
    parts = _sizes(loaded, snapshot)
    contexts = {snapshot.deployments[name].unit for name in loaded}
    return {"used": sum(parts.values()), "names": len(loaded), "models": len(contexts)}


def with_shares(models: Sequence[_Tree], snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the models with `memory_own`, the bytes that no earlier model counts, and `shared_with`, its name."""
    sizes = _sizes([model["name"] for model in models if model["memory"]], snapshot)
    owners: dict[object, str] = {}
    found: list[dict[str, Any]] = []
    for model in models:
        name, own, shared = model["name"], 0, None
        for part, _ in _parts(name, snapshot) if model["memory"] else ():
            owner = owners.setdefault(part, name)
            own += sizes[part] if owner == name else 0
            shared = shared if owner == name else owner
        found.append({**model, "memory_own": own, "shared_with": shared})
    return found


def own_memory(memory: Mapping[str, int], snapshot: Snapshot) -> dict[str, int]:
    """Return the bytes of each model that no earlier one counts, so that their sum is the memory in use.

    memory: the bytes of each model by its name, 0 for one that is not loaded.
    """
    shares = with_shares([{"name": name, "memory": count} for name, count in memory.items()], snapshot)
    return {share["name"]: share["memory_own"] for share in shares}


def _sizes(names: Sequence[str], snapshot: Snapshot) -> dict[object, int]:
    """Return the bytes of the parts of these models: of a shared one, the most that a model counts for it."""
    sizes: dict[object, int] = {}
    for name in names:
        for part, count in _parts(name, snapshot):
            sizes[part] = max(count, sizes.get(part, 0))
    return sizes


def _parts(name: str, snapshot: Snapshot) -> tuple[tuple[object, int], ...]:
    """Return the weights and the context of a loaded model with their bytes."""
    deployment = snapshot.deployments[name]
    serve, unit = deployment.serve, deployment.unit
    return ((unit.weights, serve.weights_bytes), (unit, serve.context_bytes))
