"""Changes during a download: live edits apply at once, and the newest manifest wins."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mullama.chat.inventory import CopyModel, PullModel
from mullama.chat.types import Completed
from mullama.controller.runs.change import Line
from mullama.manifest.tree import parse_resolved
from mullama.runtime.base import ApplyOptions, Origin
from tests import ggufs
from tests.runtime.runtime_fixture import CALLER, LocalServer, until
from tests.stub_hub import Hold, Status, StubHub

BIG = {"from": "hf:org/m", "residency": {"load": "on_demand"}}
DATA = ggufs.model().bytes()

pytestmark = pytest.mark.anyio


class Scenario:
    """A server that serves `a`, and a hub that sends half of a file and waits."""

    def __init__(self, server: LocalServer, hub: StubHub) -> None:
        self.server, self.hub, self.source = server, hub, server.script()

    def small(self, length: int) -> dict[str, Any]:
        """The model whose answers are this long: a live field."""
        return {"from": self.source, "parameters": {"num_predict": length}}

    async def length(self) -> int:
        events = [event async for event in self.server.events("a", "count to 30")]
        return next(event.usage.completion_tokens for event in events if isinstance(event, Completed))

    async def reload(self, models: dict[str, Any], trigger: Any = "watch", **blocks: Any) -> list[Line]:
        """Apply a manifest as after a saved file, in parts if need be; return all lines."""
        options, origin = ApplyOptions(trigger=trigger), Origin(digest="x")
        return await self.server.apply_lines(models, options, origin, sources=self.sources, **blocks)

    def apply(self, models: dict[str, Any], options: ApplyOptions | None = None, **blocks: Any) -> asyncio.Task[Line]:
        return asyncio.create_task(self.server.apply(models, options, sources=self.sources, **blocks))

    @property
    def sources(self) -> dict[str, Any]:
        return {"hf": {"endpoint": self.hub.url}}

    async def fetching(self) -> None:
        await until(lambda: self.hub.sent >= 1000)


@pytest.fixture
async def scenario(server: LocalServer) -> AsyncIterator[Scenario]:
    with StubHub() as hub:
        hub.repo("org/m", {"m-Q8_0.gguf": DATA})
        hub.script("m-Q8_0.gguf", Hold(1000))
        made = Scenario(server, hub)
        await made.apply({"a": made.small(9)})
        try:
            yield made
        finally:
            await server.reconciler.stop()


async def test_a_live_edit_does_not_wait_for_a_fetch_and_the_newest_manifest_wins(scenario: Scenario) -> None:
    first = asyncio.create_task(scenario.reload({"a": scenario.small(9), "big": BIG}))
    await scenario.fetching()
    second = asyncio.create_task(scenario.reload({"a": scenario.small(2), "big": {**BIG, "system": "Newest."}}))
    await until(lambda: scenario.server.snapshot.generation == 2)

    assert await scenario.length() == 2
    assert list(scenario.server.snapshot.deployments) == ["a"]
    await until(lambda: scenario.server.condition("Synced")["reason"] == "Pulling")  # set after the swap
    assert scenario.server.condition("Reconciling")["status"] is True
    lines = await first
    assert (lines[-1]["outcome"], "newer manifest" in lines[-1]["message"]) == ("conflict", True)

    scenario.hub.release()
    assert (await second)[-1]["outcome"] == "applied"
    assert scenario.server.snapshot.manifest.models["big"].system == "Newest."
    assert scenario.server.condition("Synced")["status"] is True
    assert scenario.server.condition("Reconciling")["status"] is False
    assert scenario.hub.sent == len(DATA), "the fetch of the first was not begun again"


async def test_an_apply_that_fetches_is_overtaken_by_an_edit_of_the_overlay_and_keeps_it(scenario: Scenario) -> None:
    applying = scenario.apply({"a": scenario.small(3), "big": BIG})
    await scenario.fetching()

    async with asyncio.timeout(90):
        await scenario.server.commands.copy(CopyModel(source="a", destination="b"))
    assert await scenario.length() == 9, "an apply is all or nothing"

    scenario.hub.release()
    assert (await applying)["outcome"] == "applied"
    assert sorted(scenario.server.snapshot.deployments) == ["a", "b", "big"]
    assert await scenario.length() == 3


async def test_a_manifest_without_the_model_ends_its_fetch(scenario: Scenario) -> None:
    applying = scenario.apply({"a": scenario.small(9), "big": BIG})
    await scenario.fetching()

    done = (await scenario.reload({"a": scenario.small(4)}))[-1]

    assert done["outcome"] == "applied"
    assert (await applying)["outcome"] == "conflict"
    await until(lambda: not scenario.server.reconciler.downloads.running.count)
    assert scenario.hub.sent == 1000
    assert await scenario.length() == 4


async def test_reverting_to_the_applied_manifest_ends_the_fetch(scenario: Scenario) -> None:
    waiting = asyncio.create_task(scenario.reload({"a": scenario.small(9), "big": BIG}))
    await scenario.fetching()

    assert (await scenario.reload({"a": scenario.small(9)}))[-1]["outcome"] == "applied"

    assert (await waiting)[-1]["outcome"] == "conflict"
    assert not scenario.server.reconciler.waiting


async def test_the_same_manifest_from_two_sides_is_no_conflict(scenario: Scenario) -> None:
    models = {"a": scenario.small(2), "big": BIG}
    before = scenario.server.snapshot.revision
    watched = asyncio.create_task(scenario.reload(models))
    await until(lambda: scenario.server.snapshot.generation == 2)

    applied = scenario.apply(models, ApplyOptions(expect=before))
    await scenario.fetching()
    scenario.hub.release()

    assert (await watched)[-1]["outcome"] == "applied"
    assert (await applied)["outcome"] == "applied"
    assert scenario.server.snapshot.generation == 3


async def test_a_file_that_is_applied_and_followed_is_seen_before_the_apply_has_its_files(scenario: Scenario) -> None:
    """The order of the two does not matter."""
    models = {"a": scenario.small(2), "big": BIG}
    applied = scenario.apply(models)
    await scenario.fetching()
    desired = parse_resolved(scenario.server.tree(models, sources=scenario.sources))
    assert not scenario.server.reconciler.applied_in_part(desired)

    watched = asyncio.create_task(scenario.reload(models))
    await until(lambda: scenario.server.snapshot.generation == 2)
    assert await scenario.length() == 2
    await until(lambda: scenario.server.reconciler.applied_in_part(desired))

    scenario.hub.release()
    assert ((await watched)[-1]["outcome"], (await applied)["outcome"]) == ("applied", "applied")
    assert scenario.hub.sent == len(DATA)


async def test_a_replaced_model_serves_until_its_replacement_is_downloaded(scenario: Scenario) -> None:
    await scenario.apply({"a": scenario.small(9)}, routes={"default": "a"})
    waiting = asyncio.create_task(
        scenario.reload({"big": BIG, "c": scenario.small(5)}, routes={"default": "big", "other": "c"})
    )
    await scenario.fetching()

    names = scenario.server.snapshot.names
    assert (names["default"], names["other"], names["a"]) == ("a", "c", "a")
    assert "big" not in names

    scenario.hub.release()
    await waiting
    names = scenario.server.snapshot.names
    assert (names["default"], "a" in names) == ("big", False)


async def test_a_failed_fetch_leaves_the_applied_part_with_a_reason(scenario: Scenario) -> None:
    scenario.hub.script("m-Q8_0.gguf", Status(404))

    done = (await scenario.reload({"a": scenario.small(2), "big": BIG}))[-1]

    assert done["outcome"] == "not_found"
    assert await scenario.length() == 2
    assert scenario.server.condition("Synced")["status"] is False
    assert not scenario.server.reconciler.waiting


async def test_a_pull_does_not_hold_up_a_reload_and_stays(scenario: Scenario) -> None:
    await scenario.apply({"a": scenario.small(9)})
    pulling = asyncio.create_task(_all(scenario.server.service.tasks(PullModel(source="hf:org/m", name="p"), CALLER)))
    await scenario.fetching()

    assert (await scenario.reload({"a": scenario.small(2)}))[-1]["outcome"] == "applied"
    assert await scenario.length() == 2

    scenario.hub.release()
    assert (await pulling)[-1].status == "success"
    assert sorted(scenario.server.snapshot.deployments) == ["a", "p"]
    assert await scenario.length() == 2


async def test_a_slow_name_server_delays_no_other_change(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()
    usual = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **more: Any) -> Any:
        if host != "models.example":
            return usual(host, *arguments, **more)
        asked.set()
        answer.wait()
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    far = {"from": "https://models.example/m.gguf", "residency": {"load": "on_demand"}}
    waiting = asyncio.create_task(scenario.reload({"a": scenario.small(2), "far": far}))
    await until(asked.is_set)

    assert await scenario.length() == 2
    assert (await scenario.reload({"a": scenario.small(3)}))[-1]["outcome"] == "applied"
    assert await scenario.length() == 3
    answer.set()
    assert (await waiting)[-1]["outcome"] == "conflict"


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_a_stop_ends_a_fetch_at_once(scenario: Scenario) -> None:
    waiting = asyncio.create_task(scenario.reload({"a": scenario.small(2), "big": BIG}))
    await scenario.fetching()

    await scenario.server.reconciler.stop()

    assert "stopping" in (await waiting)[-1]["message"]
