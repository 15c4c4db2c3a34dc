"""The choice of a replica by Serve's router, without a cluster."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import deque
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed; make ray installs it in an environment of its own")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's modules give some at their import
    from ray.serve._private.common import RequestMetadata
    from ray.serve.request_router import PendingRequest

    from mullama.targets.ray.router import FAIR_SECONDS, PrefixRouter

pytestmark = pytest.mark.anyio


class Id:
    def __init__(self, name: str) -> None:
        self.unique_id = name


class Replica:
    def __init__(self, name: str) -> None:
        self.replica_id = Id(name)


class Router(PrefixRouter):
    """The queue of a router, without its metrics."""

    def __init__(self, *pending: PendingRequest) -> None:
        self._pending_requests_to_fulfill = deque(pending)
        self._pending_requests_by_id = {one.metadata.internal_request_id: one for one in pending}

    def _record_queue_wait_time(self, pending_request: PendingRequest) -> None:
        pass

    def _cancel_routing_task_for_pending_request(self, pending_request: PendingRequest) -> None:
        pass

    def _remove_pending_request_from_indices(self, pending_request: PendingRequest) -> None:
        pass


def pending(name: str, affinity: bytes = b"", age: float = 0.0) -> PendingRequest:
    metadata = RequestMetadata(request_id=name, internal_request_id=name)
    return PendingRequest(
        args=["request", "caller", affinity], kwargs={}, metadata=metadata, created_at=time.time() - age,
        future=asyncio.get_running_loop().create_future(),
    )  # fmt: skip


async def test_all_replicas_of_a_conversation_are_tried_in_its_order_and_then_serve_waits() -> None:
    replicas: list[Any] = [Replica(name) for name in "abc"]
    one = pending("1", b"conversation")
    found = await Router().choose_replicas(replicas, one)
    assert sorted(replica.replica_id.unique_id for [replica] in found) == ["a", "b", "c"]
    assert found == await Router().choose_replicas(replicas[::-1], pending("2", b"conversation"))
    assert one.routing_context.should_backoff
    alone = pending("3")
    assert await Router().choose_replicas(replicas[:1], alone) == [replicas[:1]]
    assert alone.routing_context.should_backoff
    assert await Router().choose_replicas([]) == []


async def test_a_place_is_for_the_request_that_found_it_unless_another_one_waits_for_long() -> None:
    replica: Any = Replica("a")
    young, own = pending("1", age=FAIR_SECONDS / 2), pending("2")
    Router(young, own)._fulfill_next_pending_request(replica, own.metadata)
    assert (young.future.done(), own.future.result()) == (False, replica)
    old, own = pending("1", age=FAIR_SECONDS * 2), pending("2")
    Router(old, own)._fulfill_next_pending_request(replica, own.metadata)
    assert (old.future.result(), own.future.done()) == (replica, False)
