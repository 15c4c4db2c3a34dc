"""Chooses the replica of a request by its conversation; without one, or where it is full, by the shorter queue."""

from __future__ import annotations

import random

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from mullama.targets.ray.affinity import ranked


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # Ray is not typed here
    """Serve asks the replicas of the first list whether they accept, then those of the next one.

    Each request is given to the replica that was chosen for it.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if len(candidate_replicas) < 2:
            return [candidate_replicas] if candidate_replicas else []
        affinity = _affinity(pending_request)
        if not affinity:
            return [random.sample(candidate_replicas, 2)]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[by_id[one]] for one in ranked(by_id, affinity)]


def _affinity(pending: PendingRequest | None) -> bytes:
    """Return the key of the conversation, the third argument of `builders.ModelDeployment.stream` and `ask`."""
    args = pending.args if pending is not None else ()
    return args[2] if args and len(args) > 2 and isinstance(args[2], bytes) else b""
