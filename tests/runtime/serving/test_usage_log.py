"""Usage is counted on the event loop and written in batches; a full disk costs no request."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.errors import MullamaError
from mullama.manifest.spec import Moved
from mullama.runtime.metering import Metered
from mullama.runtime.rates.book import RateBook
from mullama.runtime.serving.usage_log import UsageLog
from mullama.store.usage import UsageFile, UsageQuery, UsageRow
from mullama.struct import replace
from tests.processor_time import processor_time
from tests.runtime.rates.test_book import manifest
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of, until

pytestmark = pytest.mark.anyio
DAY = 86400.0
ENDED = Metered(
    key="ci", route="chat", model="a", usage=chat.Usage(prompt_tokens=3, completion_tokens=2), seconds=0.1, result="ok"
)


class FullDisk(UsageFile):
    """A file whose disk is full while `full` is set."""

    full = False

    def add(self, rows: Iterable[UsageRow]) -> None:
        if self.full:

            def fail(_: sqlite3.Connection) -> None:
                raise sqlite3.OperationalError("database or disk is full")

            self._run(fail, create=True)
        super().add(rows)


class Log:
    def __init__(self, path: Path, keep: float = 1e6) -> None:
        self.file, self.keep = FullDisk(path), keep
        self.now, self.steady = 20_000.0 * DAY, 0.0
        self.reports: list[MullamaError | None] = []
        self.log = UsageLog(self.file, lambda: self.keep, self.reports.append, lambda: self.now, lambda: self.steady)

    def wait(self, seconds: float, *, jump: float = 0.0) -> None:
        """Let both clocks run, and set the first one by some more seconds."""
        self.now, self.steady = self.now + seconds + jump, self.steady + seconds

    async def total(self, since: float = 600.0) -> dict[str, Any]:
        rows = await self.log.read(UsageQuery(since=self.now - since))
        return rows[0] if rows else {}


async def test_requests_are_summed_up_by_outcome(tmp_path: Path) -> None:
    log = Log(tmp_path / "usage.sqlite")
    for result in ("ok", "ok", "error", "cancelled"):
        log.log.add(replace(ENDED, result=result))
    total = await log.total()
    assert (total["requests"], total["errors"], total["cancelled"], total["generated_tokens"]) == (4, 1, 1, 8)
    await log.log.close()


async def test_nothing_is_recorded_without_retention(tmp_path: Path) -> None:
    log = Log(tmp_path / "usage.sqlite", keep=0)
    log.log.add(ENDED)
    assert await log.total() == {}
    await log.log.close()
    assert not (tmp_path / "usage.sqlite").exists()


async def test_a_full_disk_keeps_the_usage_in_memory_until_there_is_room(tmp_path: Path) -> None:
    log = Log(tmp_path / "usage.sqlite")
    log.file.full = True
    for _ in range(3):
        log.log.add(ENDED)
        await log.log.write()
    assert [error is not None and "disk is full" in str(error) for error in log.reports] == [True] * 3
    log.file.full = False
    log.log.add(ENDED)
    await log.log.write()
    assert log.reports[-1] is None
    assert (await log.total())["requests"] == 4
    await log.log.close()


@pytest.mark.parametrize("jumps", [(400 * DAY, -400 * DAY), (-400 * DAY, 400 * DAY), (3600.0, -7200.0, 3600.0)])
async def test_a_clock_that_jumps_there_and_back_deletes_nothing_and_counts_on(
    jumps: tuple[float, ...], tmp_path: Path
) -> None:
    log = Log(tmp_path / "usage.sqlite", keep=90 * DAY)
    log.log.add(ENDED)
    await log.log.write()
    log.wait(2 * 3600.0)
    for jump in jumps:
        log.wait(2.0, jump=jump)
        log.log.add(ENDED)
        await log.log.write()
    rows = await log.log.read(UsageQuery(since=0))
    assert sum(row["requests"] for row in rows) == 1 + len(jumps)
    await log.log.close()


async def test_old_usage_is_deleted_also_after_a_clock_was_set(tmp_path: Path) -> None:
    log = Log(tmp_path / "usage.sqlite", keep=DAY)
    log.wait(0, jump=-1000 * DAY)
    log.log.add(ENDED)
    await log.log.write()
    log.wait(0, jump=1000 * DAY)
    await log.log.write()
    assert (await log.total(since=2000 * DAY))["requests"] == 1
    log.wait(3601.0)
    await log.log.write()
    assert await log.total(since=2000 * DAY) == {}
    await log.log.close()


def test_rates_and_usage_cost_little_on_the_event_loop(tmp_path: Path) -> None:
    """A request costs one decision, one charge and one count; the bound is for a busy machine."""
    live = manifest({"rate": {"requests": "1G/s", "tokens": "1G/s"}, "quota": {"tokens": "1G/s"}})
    book, log, rounds = RateBook(lambda: live), Log(tmp_path / "usage.sqlite"), 2000
    with processor_time() as cost:
        for _ in range(rounds):
            book.admit("ci", "a")
            book.charge("ci", "a", 5)
            log.log.add(ENDED)
    assert cost.seconds / rounds < 50e-6


async def test_a_completion_is_recorded_with_its_tokens_also_when_it_is_cut_off(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script()}}, routes={"front": "a"})
    caller = replace(CALLER, key="ci")
    async for _ in server.service.events(request_of("front", "hi there"), caller):
        pass
    stream = server.service.events(request_of("a", "hi there"), caller)
    async for _ in stream:
        break
    await stream.aclose()
    rows = await server.operator.usage(UsageQuery(since=server.now - 60, by=("key", "route", "model")))
    found = {row["route"]: row for row in rows}
    assert set(found) == {"front", "a"}
    assert (found["front"]["requests"], found["front"]["cancelled"]) == (1, 0)
    assert found["front"]["generated_tokens"] > 0
    assert (found["a"]["key"], found["a"]["model"], found["a"]["cancelled"]) == ("ci", "a", 1)
    assert found["a"]["prompt_tokens"] == found["front"]["prompt_tokens"] > 0
    assert 'mullama_key_requests_total{key="ci",model="a"} 2.0' in server.operator.metrics()
    await server.usage.close()


async def test_a_request_that_is_tried_again_counts_once(server: LocalServer) -> None:
    """By the model that answered: after the death of a worker, and after a model that cannot be loaded."""
    models = {
        "a": server.script(),
        "broken": {"from": server.script("broken", on_open="crash exit"), "residency": {"load": "on_demand"}},
    }
    await server.apply(models, routes={"front": {"to": "broken", "fallback": ["a"]}})
    asked = asyncio.create_task(server.service.answer(request_of("a", "slow 20ms count to 30"), CALLER))
    await until(lambda: sum(server.metrics.of("a").first_token.counts) == 1)
    os.kill(server.pool.pids()[0], signal.SIGKILL)
    answer = await asked
    assert isinstance(answer, chat.Answer)
    await server.ask("front", "hi")
    await server.service.answer(request_of("front", "hi"), CALLER)

    rows = await server.usage.read(UsageQuery(since=server.now - 600, by=("route", "model")))
    found = {(row["route"], row["model"]): (row["requests"], row["errors"]) for row in rows}
    assert found == {("a", "a"): (1, 0), ("front", "a"): (2, 0)}
    whole = next(row for row in rows if row["route"] == "a")
    assert whole["generated_tokens"] == answer.usage.completion_tokens
    await server.usage.close()


async def test_a_failing_disk_is_a_condition(server: LocalServer) -> None:
    server.records.usage_path.mkdir()  # so that no file can be opened there
    await server.apply({"a": {"from": server.script()}})
    assert await server.ask("a", "hi")
    await server.usage.write()
    assert server.condition("UsageRecorded")["reason"] == "StoreFailed"
    assert await server.ask("a", "hi")
    server.records.usage_path.rmdir()
    await server.usage.write()
    assert server.condition("UsageRecorded")["status"] is True
    await server.usage.close()


async def test_a_rename_in_the_manifest_moves_what_was_counted_before_and_what_ends_after(tmp_path: Path) -> None:
    log, moved = Log(tmp_path / "usage.sqlite"), list[Moved]()
    log.log = UsageLog(log.file, lambda: 1e6, log.reports.append, lambda: log.now, moved=lambda: tuple(moved))
    ended = replace(ENDED, key="ci", route="fast", model="a")
    log.log.add(ended)
    log.log.add(replace(ended, route="a"))
    await log.log.write()

    for kind, old, new in (("key", "ci", "build"), ("route", "fast", "quick"), ("model", "a", "b")):
        moved.append(Moved.model_validate({"kind": kind, "from": old, "to": new}))
    log.log.add(ended)  # began before the rename

    rows = await log.log.read(UsageQuery(since=log.now - 600, by=("key", "route", "model")))
    found = {(row["key"], row["route"], row["model"]): row["requests"] for row in rows}
    assert found == {("build", "quick", "b"): 2, ("build", "b", "b"): 1}
    await log.log.close()
