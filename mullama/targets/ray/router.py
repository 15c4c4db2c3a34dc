"""Chooses the replica of a request by its conversation; without one, or where it is full, by the shorter queue."""

from __future__ import annotations

import random
import time
from typing import Any

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from mullama.targets.ray.affinity import ranked

FAIR_SECONDS = 5.0
"""Age at which a request that waits gets the next free place, wherever its conversation was."""


class PrefixRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # Ray is not typed here
    """Serve asks the replicas of the first list whether they accept, then those of the next one.

    Each request is given to the replica that was chosen for it, unless an older one waits for too long: each asks
    again by itself, and those that just came would be given the free places.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is not None:
            # Every replica is in the lists, so the next round waits: without it, Serve would ask again at once.
            pending_request.routing_context.should_backoff = True
        if len(candidate_replicas) < 2:
            return [candidate_replicas] if candidate_replicas else []
        affinity = _affinity(pending_request)
        if not affinity:
            return [random.sample(candidate_replicas, 2)]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[by_id[one]] for one in ranked(by_id, affinity)]

    def _fulfill_next_pending_request(self, replica: RunningReplica, request_metadata: Any = None) -> None:
        oldest = next((one for one in self._pending_requests_to_fulfill if not one.future.done()), None)
        waits_long = oldest is not None and time.time() - oldest.created_at > FAIR_SECONDS
        rule = FIFOMixin if waits_long else RequestRouter
        rule._fulfill_next_pending_request(self, replica, request_metadata)


def _affinity(pending: PendingRequest | None) -> bytes:
    """Return the key of the conversation, the third argument of `builders.ModelDeployment.stream` and `ask`."""
    args = pending.args if pending is not None else ()
    return args[2] if args and len(args) > 2 and isinstance(args[2], bytes) else b""
