"""A change that fetches lets others pass: live edits are seen at once, and the newest manifest wins in the end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mullama.chat.inventory import CopyModel, PullModel
from mullama.chat.types import Completed
from mullama.manifest.tree import parse_resolved
from mullama.runtime.base import ApplyOptions, Origin
from tests import ggufs
from tests.runtime.runtime_fixture import CALLER, Stand, run, stand, until
from tests.stub_hub import Hold, Status, StubHub

BIG = {"from": "hf:org/m", "residency": {"load": "on_demand"}}
DATA = ggufs.model().bytes()


class Road:
    """A server that serves `a`, and a hub whose file comes in two halves."""

    def __init__(self, served: Stand, hub: StubHub) -> None:
        self.stand, self.hub, self.source = served, hub, served.script()

    def small(self, length: int) -> dict[str, Any]:
        """The model whose answers are this long: a live field."""
        return {"from": self.source, "parameters": {"num_predict": length}}

    async def length(self) -> int:
        events = [event async for event in self.stand.events("a", "count to 30")]
        return next(event.usage.completion_tokens for event in events if isinstance(event, Completed))

    async def reload(self, models: dict[str, Any], trigger: Any = "watch", **blocks: Any) -> list[dict[str, Any]]:
        """All lines of a change that nobody asked to be all or nothing."""
        tree = self.tree(models, **blocks)
        lines = self.stand.reconciler.apply(tree, Origin(digest="x"), ApplyOptions(trigger=trigger))
        return [line async for line in lines]

    def apply(self, models: dict[str, Any], **blocks: Any) -> asyncio.Task[dict[str, Any]]:
        return asyncio.create_task(self.stand.apply(models, sources={"hf": {"endpoint": self.hub.url}}, **blocks))

    def tree(self, models: dict[str, Any], **blocks: Any) -> dict[str, Any]:
        return self.stand.tree(models, sources={"hf": {"endpoint": self.hub.url}}, **blocks)

    async def fetching(self) -> None:
        await until(lambda: self.hub.sent >= 1000)


@asynccontextmanager
async def road(home: Path) -> AsyncIterator[Road]:
    with StubHub() as hub:
        hub.repo("org/m", {"m-Q8_0.gguf": DATA})
        hub.script("m-Q8_0.gguf", Hold(1000))
        async with stand(home) as served:
            made = Road(served, hub)
            await made.apply({"a": made.small(9)})
            try:
                yield made
            finally:
                await served.reconciler.stop()


def test_a_live_edit_does_not_wait_for_a_fetch_and_the_newest_manifest_wins(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            first = asyncio.create_task(r.reload({"a": r.small(9), "big": BIG}))
            await r.fetching()
            second = asyncio.create_task(r.reload({"a": r.small(2), "big": {**BIG, "system": "Newest."}}))
            await until(lambda: r.stand.reconciler.snapshot.generation == 2)

            assert await r.length() == 2
            assert list(r.stand.reconciler.snapshot.deployments) == ["a"]
            await until(lambda: r.stand.condition("Synced")["reason"] == "Pulling")  # told after the swap
            assert r.stand.condition("Reconciling")["status"] is True
            lines = await first
            assert (lines[-1]["exit"], "newer manifest" in lines[-1]["message"]) == (10, True)

            r.hub.release()
            assert (await second)[-1]["exit"] == 0
            assert r.stand.reconciler.snapshot.manifest.models["big"].system == "Newest."
            assert r.stand.condition("Synced")["status"] is True
            assert r.stand.condition("Reconciling")["status"] is False
            assert r.hub.sent == len(DATA), "the fetch of the first was not begun again"

    run(test)


def test_an_apply_that_fetches_is_overtaken_by_an_edit_of_the_overlay_and_keeps_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            applying = r.apply({"a": r.small(3), "big": BIG})
            await r.fetching()

            await asyncio.wait_for(r.stand.verbs.copy(CopyModel(source="a", destination="b")), 90)
            assert await r.length() == 9, "an apply is all or nothing"

            r.hub.release()
            assert (await applying)["exit"] == 0
            assert sorted(r.stand.reconciler.snapshot.deployments) == ["a", "b", "big"]
            assert await r.length() == 3

    run(test)


def test_a_manifest_without_the_model_ends_its_fetch(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            applying = r.apply({"a": r.small(9), "big": BIG})
            await r.fetching()

            done = (await r.reload({"a": r.small(4)}))[-1]

            assert done["exit"] == 0
            assert (await applying)["exit"] == 10
            await until(lambda: not r.stand.reconciler._fetching.fetches._flights)
            assert r.hub.sent == 1000
            assert await r.length() == 4

    run(test)


def test_going_back_to_what_is_applied_ends_the_fetch(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            waiting = asyncio.create_task(r.reload({"a": r.small(9), "big": BIG}))
            await r.fetching()

            assert (await r.reload({"a": r.small(9)}))[-1]["exit"] == 0

            assert (await waiting)[-1]["exit"] == 10
            assert not r.stand.reconciler.fetching

    run(test)


def test_the_same_manifest_from_two_sides_is_no_conflict(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            models = {"a": r.small(2), "big": BIG}
            before = r.stand.reconciler.snapshot.revision
            watched = asyncio.create_task(r.reload(models))
            await until(lambda: r.stand.reconciler.snapshot.generation == 2)

            applied = asyncio.create_task(
                r.stand.apply(models, ApplyOptions(expect=before), sources={"hf": {"endpoint": r.hub.url}})
            )
            await r.fetching()
            r.hub.release()

            assert (await watched)[-1]["exit"] == 0
            assert (await applied)["exit"] == 0
            assert r.stand.reconciler.snapshot.generation == 3

    run(test)


def test_a_file_that_is_applied_and_followed_is_seen_before_the_apply_has_its_files(tmp_path: Path) -> None:
    """Whichever of the two comes first."""

    async def test() -> None:
        async with road(tmp_path) as r:
            models = {"a": r.small(2), "big": BIG}
            applied = r.apply(models)
            await r.fetching()
            desired = parse_resolved(r.tree(models))
            assert not r.stand.reconciler.under_way(desired)

            watched = asyncio.create_task(r.reload(models))
            await until(lambda: r.stand.reconciler.snapshot.generation == 2)
            assert await r.length() == 2
            await until(lambda: r.stand.reconciler.under_way(desired))

            r.hub.release()
            assert ((await watched)[-1]["exit"], (await applied)["exit"]) == (0, 0)
            assert r.hub.sent == len(DATA)

    run(test)


def test_what_a_missing_model_takes_the_place_of_serves_until_it_is_here(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            await r.apply({"a": r.small(9)}, routes={"default": "a"})
            waiting = asyncio.create_task(
                r.reload({"big": BIG, "c": r.small(5)}, routes={"default": "big", "other": "c"})
            )
            await r.fetching()

            names = r.stand.reconciler.snapshot.names
            assert (names["default"], names["other"], names["a"]) == ("a", "c", "a")
            assert "big" not in names

            r.hub.release()
            await waiting
            names = r.stand.reconciler.snapshot.names
            assert (names["default"], "a" in names) == ("big", False)

    run(test)


def test_a_fetch_that_fails_leaves_the_part_that_was_applied_and_says_why(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            r.hub.script("m-Q8_0.gguf", Status(404))

            done = (await r.reload({"a": r.small(2), "big": BIG}))[-1]

            assert done["exit"] == 3
            assert await r.length() == 2
            assert r.stand.condition("Synced")["status"] is False
            assert not r.stand.reconciler.fetching

    run(test)


def test_a_pull_does_not_hold_up_a_reload_and_stays(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            await r.apply({"a": r.small(9)})
            pulling = asyncio.create_task(_all(r.stand.service.tasks(PullModel(source="hf:org/m", name="p"), CALLER)))
            await r.fetching()

            assert (await r.reload({"a": r.small(2)}))[-1]["exit"] == 0
            assert await r.length() == 2

            r.hub.release()
            assert (await pulling)[-1].status == "success"
            assert sorted(r.stand.reconciler.snapshot.deployments) == ["a", "p"]
            assert await r.length() == 2

    run(test)


def test_a_name_server_that_is_slow_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()
    usual = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **more: Any) -> Any:
        if host != "models.example":
            return usual(host, *arguments, **more)
        asked.set()
        answer.wait()
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    async def test() -> None:
        async with road(tmp_path) as r:
            far = {"from": "https://models.example/m.gguf", "residency": {"load": "on_demand"}}
            waiting = asyncio.create_task(r.reload({"a": r.small(2), "far": far}))
            await until(asked.is_set)

            assert await r.length() == 2
            assert (await r.reload({"a": r.small(3)}))[-1]["exit"] == 0
            assert await r.length() == 3
            answer.set()
            assert (await waiting)[-1]["exit"] == 10

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    run(test)


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def test_a_stop_ends_a_fetch_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with road(tmp_path) as r:
            waiting = asyncio.create_task(r.reload({"a": r.small(2), "big": BIG}))
            await r.fetching()

            await r.stand.reconciler.stop()

            assert "stopping" in (await waiting)[-1]["message"]

    run(test)
