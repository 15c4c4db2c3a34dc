"""The order in which the replicas of a model are asked for a request. Pure.

The requests of one conversation go to one replica, so that its cached prompt is used: by rendezvous hashing of the
conversation's key over the ids of the replicas. A replica that is added or lost moves as few conversations as possible.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def ranked(replicas: Iterable[str], affinity: bytes) -> list[str]:
    """Return the replicas, the one of the conversation first. Those after it are its next ones when it is full."""
    return sorted(replicas, key=lambda replica: (_score(replica, affinity), replica), reverse=True)


def _score(replica: str, affinity: bytes) -> bytes:
    return blake2b(replica.encode(), key=affinity[:64], digest_size=8).digest()
