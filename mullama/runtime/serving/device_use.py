"""The memory of loaded models on devices, by the names of the manifest."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.snapshot import Deployment


def device_use(deployment: Deployment, pool: Pool) -> list[dict[str, Any]]:
    """Return `name`, `host`, `layers` and `bytes` of each device with a part of a loaded model.

    The engine reports layers and bytes; where it reports none, as for tensors that are split, they are the estimate.
    """
    worker, context = pool.worker(deployment.unit), pool.context_facts(deployment.unit)
    if worker is None or pool.phase(deployment.unit) is not Phase.READY or not worker.facts.gpu_layers:
        return []
    layers: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for use in (*worker.facts.placed, *(context.placed if context else ())):
        layers[use.device] += use.layers
        taken[use.device] += use.bytes
    serve = deployment.serve
    found = []
    for device in deployment.place.devices:
        estimate = serve.weights_on.get(device.name, 0) + serve.context_on.get(device.name, 0)
        count = taken[device.address] if taken else estimate
        if count:
            row = {"name": device.name, "host": device.host or None, "layers": layers[device.address], "bytes": count}
            found.append(row)
    return found
