"""The simulated cache hits of conversations over eight hosts against those of one host with as much room."""

from __future__ import annotations

import random

import pytest

from benches.affinity import PrefixCache, Traffic, recorded, simulate

ROOM = 3e5
"""Tokens: too few for all conversations."""


@pytest.mark.parametrize("rate", [0.1, 1.2])
def test_eight_hosts_keep_nine_tenths_of_the_cache_hits_of_one(rate: float) -> None:
    conversations = recorded(Traffic(rate=rate, conversations=250), seed=1)
    end = conversations[-1].begins
    one = simulate(conversations, 1, ROOM)
    away = simulate(conversations, 8, ROOM, away=("m@host3", end / 3, 2 * end / 3))
    assert simulate(conversations, 8, ROOM).rate >= 0.9 * one.rate
    assert away.rate >= 0.9 * one.rate
    assert away.requests == one.requests == sum(len(c.turns) for c in conversations)


def test_without_affinity_they_do_not() -> None:
    conversations = recorded(Traffic(conversations=250), seed=1)
    at_random = simulate(conversations, 8, ROOM, any_host=random.Random(1))
    assert at_random.rate < 0.7 * simulate(conversations, 1, ROOM).rate


def test_the_same_seed_gives_the_same_result() -> None:
    conversations = recorded(Traffic(conversations=40), seed=5)
    assert recorded(Traffic(conversations=40), seed=5) == conversations
    assert simulate(conversations, 3, ROOM) == simulate(conversations, 3, ROOM)


def test_a_cache_drops_the_ends_that_were_unused_for_longest() -> None:
    cache = PrefixCache(10)
    a, b, c = ((1, 0), 4), ((1, 1), 4), ((2, 0), 4)
    cache.keep((a, b))
    cache.keep((c,))
    assert (cache.hit((a, b)), cache.hit((c,)), cache.used) == (4, 4, 8)
