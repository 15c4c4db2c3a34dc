"""The live state: everything first, then only what changed, and nothing while nobody follows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullama.controller.event_log import EventLog
from mullama.controller.telemetry import live_feed
from mullama.controller.telemetry.live_feed import LiveFeed

pytestmark = pytest.mark.anyio


class World:
    """A status that a test changes, with a clock that a test moves."""

    def __init__(self) -> None:
        self.models = {"a": "ready", "b": "idle"}
        self.looks = 0
        self.now = 100.0
        self.tokens = {"a": 0}
        self.log = EventLog()
        self.feed = LiveFeed(
            self.log,
            status=self.status,
            generated=lambda: dict(self.tokens),
            load=lambda: (1, 2),
            clock=lambda: self.now,
        )

    def status(self) -> dict[str, Any]:
        self.looks += 1
        rows = [{"name": name, "state": state} for name, state in self.models.items()]
        return {"uptime": float(self.looks), "pid": 1, "state": "ready", "models": rows}

    def change(self, **models: str) -> None:
        """Change the state of models, and add the event that makes the feed look at once."""
        self.models |= models
        self.log.add("worker", "a", "changed")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(live_feed, "_INTERVAL", 3600.0)  # only an event leads to a look
    monkeypatch.setattr(live_feed, "_AFTER_EVENT", 0.0)
    return World()


async def test_the_first_update_has_everything(world: World) -> None:
    world.log.add("applied", "revision 1")
    follower = world.feed.follow()
    first = await anext(follower)
    assert [row["name"] for row in first["status"]["models"]] == ["a", "b"]
    assert [event["kind"] for event in first["events"]] == ["applied"]
    await follower.aclose()


async def test_later_updates_have_what_changed(world: World) -> None:
    follower = world.feed.follow()
    await anext(follower)
    world.change(b="loading")
    update = await anext(follower)
    assert update["models"] == [{"name": "b", "state": "loading"}]
    assert "status" not in update
    assert "server" not in update  # the uptime is not worth an update
    assert [event["message"] for event in update["events"]] == ["changed"]
    await follower.aclose()


async def test_a_new_model_brings_everything_again(world: World) -> None:
    follower = world.feed.follow()
    await anext(follower)
    world.change(c="loading")
    assert [row["name"] for row in (await anext(follower))["status"]["models"]] == ["a", "b", "c"]
    del world.models["a"]
    world.change()
    assert [row["name"] for row in (await anext(follower))["status"]["models"]] == ["b", "c"]
    await follower.aclose()


async def test_a_slow_follower_gets_all_changes_in_one_update(world: World) -> None:
    slow, quick = world.feed.follow(), world.feed.follow()
    await anext(slow)
    await anext(quick)
    waiting = asyncio.ensure_future(anext(slow))
    for state in ("loading", "ready", "failed"):
        world.change(a=state, b=state)
        await anext(quick)
    first = await waiting
    rest = await anext(slow) if first["models"][0]["state"] != "failed" else first
    assert rest["models"] == [{"name": "a", "state": "failed"}, {"name": "b", "state": "failed"}]
    await slow.aclose()
    await quick.aclose()


async def test_a_sample_has_the_speed_since_the_last_look(world: World) -> None:
    follower = world.feed.follow()
    await anext(follower)
    world.now += 2.0
    world.tokens["a"] = 50
    world.change()
    sample = (await anext(follower))["sample"]
    assert (sample["tokens"], sample["running"], sample["waiting"]) == ({"a": 25.0}, 1, 2)
    world.tokens["a"] = 20  # a cancelled request took its tokens with it
    world.change()
    assert (await anext(follower))["sample"]["tokens"] == {}
    await follower.aclose()


async def test_nothing_is_computed_while_nobody_follows(world: World) -> None:
    follower = world.feed.follow()
    await anext(follower)
    await follower.aclose()
    looks = world.looks
    world.change(a="failed")
    await asyncio.sleep(0)
    assert world.looks == looks
    again = world.feed.follow()
    assert (await anext(again))["status"]["models"][0]["state"] == "failed"
    await again.aclose()
