"""A week of a server by one clock that the test moves: what is loaded, quotas, usage, and the commits of a repository.

Real are the scheduler, the rate book, the usage log with its file, and the follower with git and a repository on
loopback. The test performs the commands of the scheduler at once, and asks the repository only after a push.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from mullama.chat.types import Usage
from mullama.controller.conditions import Condition, Conditions
from mullama.controller.current import Current
from mullama.controller.event_log import EventLog
from mullama.controller.git.follower import GitFollower, pause
from mullama.controller.watch.watcher import with_git
from mullama.errors import MullamaError
from mullama.manifest.load import load, load_text
from mullama.manifest.spec import Manifest
from mullama.reconcile.git_repository import GitRepository
from mullama.runtime.base import Access, Origin
from mullama.runtime.metering import Metered
from mullama.runtime.rates.book import RateBook
from mullama.runtime.scheduler import events as ev
from mullama.runtime.scheduler.decide import decide
from mullama.runtime.scheduler.events import FOREVER, Rules, Serve, UnitKey
from mullama.runtime.scheduler.state import Phase, State
from mullama.runtime.serving.build import time_to_live
from mullama.runtime.serving.usage_log import UsageLog
from mullama.runtime.snapshot import Snapshot
from mullama.store.usage import UsageFile, UsageQuery
from mullama.struct import replace
from tests.git_host import GitHost, git_host

MONDAY = 1_767_571_200.0  # 5 January 2026, 00:00 UTC
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
MON, TUE, WED, THU, FRI, SAT, SUN = (day * DAY for day in range(7))
SIZES = {"chat": 40, "big": 50, "small": 30, "extra": 20}
BUDGET = 100

FIRST = """\
mullama: v1
observability: {usage: {keep: 3d}}
auth:
  keys:
    ci: {secret: {from_env: K}, quota: {requests: 48/d}}
    night: {secret: {from_env: K}, quota: {tokens: 24k/d}}
models:
  chat: builtin:tiny
  big: {from: builtin:tiny, residency: {load: on_demand, ttl: 2h}}
  small: {from: builtin:tiny, residency: {load: on_demand, ttl: 30m}}
"""
SECOND = FIRST.replace("ttl: 30m", "ttl: 2h")
BAD = SECOND.replace("ttl: 2h", "tll: 2h")
DOUBLED = SECOND.replace("48/d", "96/d")
FORCED = DOUBLED.replace("big: {from: builtin:tiny, residency: {load: on_demand, ttl: 2h}}",
                         "big: {from: builtin:tiny, residency: {load: on_demand, ttl: 1h}}")  # fmt: skip
LAST = "".join(line for line in FORCED.splitlines(True) if "small" not in line) + "  extra: builtin:tiny\n"


def at(day: float, time: str) -> float:
    """Return the seconds since the begin of the week."""
    hours, minutes = time.split(":")
    return day + int(hours) * HOUR + int(minutes) * MINUTE


class Week:
    """The parts of a server, and the moments at which something happens to them."""

    def __init__(self, folder: Path, host: GitHost) -> None:
        self.now, self.tick = 0.0, FOREVER  # seconds since the begin of the week
        self.host, self.env = host, {**os.environ, "K": "secret"}
        self.agenda: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []
        self.order, self.ids = count(), count(1)
        self.state = State()
        self.loaded: list[tuple[float, set[str]]] = [(0.0, set())]
        """Each change of the loaded models with its time."""
        self.evicted: list[tuple[float, str]] = []
        self.refused: dict[str, int] = {}
        self.waits: dict[str, list[tuple[float, float]]] = {"ci": [], "night": []}
        """The refusals of each key: their time, and the seconds that the client is asked to wait."""
        self.rates = self._rate_book()
        self.usage = UsageLog(
            UsageFile(folder / "usage.sqlite"), lambda: self.manifest.observability.usage.keep, _raise,
            lambda: MONDAY + self.now, self._steady,
        )  # fmt: skip
        text = f"mullama: v1\nsync: {{git: {{url: {host.url}, interval: 10m}}}}\nmodels: {{}}\n"
        begun = load_text(text, name="m.yaml", base_dir=str(folder), profiles=(), env=self.env).manifest
        self.current = Current(manifest=begun, overlay={}, snapshot=_snapshot(begun, 0))
        self.conditions = Conditions()
        self.git = GitFollower(
            folder=folder / "git", current=lambda: self.current, adopt=self.adopt, conditions=self.conditions,
            event_log=EventLog(), env=self.env,
        )  # fmt: skip
        self.followed = Origin()
        self.applied: list[tuple[float, str]] = []
        self.invalid: list[tuple[float, str]] = []
        self.failed_polls: list[float] = []

    @property
    def manifest(self) -> Manifest:
        return self.current.snapshot.manifest

    def _steady(self) -> float:
        return 1000.0 + self.now

    def _rate_book(self) -> RateBook:
        return RateBook(lambda: self.manifest, self._steady, lambda: MONDAY + self.now, self.refused)

    # Time

    def put(self, when: float, action: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self.agenda, (when, next(self.order), action))

    async def until(self, end: float) -> None:
        while True:
            first = self.agenda[0][0] if self.agenda else FOREVER
            if min(first, self.tick) > end:
                self.now = end
                return
            if self.tick <= first:
                self.now, self.tick = self.tick, FOREVER
                self.feed(ev.Tick())
            else:
                self.now, _, action = heapq.heappop(self.agenda)
                await action()

    # The scheduler

    def feed(self, event: ev.Event) -> None:
        todo = [event]
        while todo:
            for command in decide(self.state, todo.pop(0), self._steady()):
                match command:
                    case ev.StartWorker(weights=weights):
                        todo.append(ev.WorkerReady(weights=weights))
                    case ev.StopWorker(weights=weights):
                        todo.append(ev.WorkerStopped(weights=weights))
                    case ev.OpenUnit(unit=unit):
                        todo.append(ev.UnitOpened(unit=unit))
                    case ev.CloseUnit(unit=unit):
                        todo.append(ev.UnitClosed(unit=unit))
                    case ev.Grant(id=id):
                        todo.append(ev.Leave(id=id))
                    case ev.Evicted(models=models):
                        self.evicted.append((self.now, models))
                    case ev.WakeAt(when=when):
                        self.tick = when - 1000.0
                    case ev.Refuse(error=error):
                        raise error
        loaded = {key.weights for key, unit in self.state.units.items() if unit.phase is Phase.READY}
        assert sum(SIZES[name] for name in loaded) <= BUDGET
        if loaded != self.loaded[-1][1]:
            self.loaded.append((self.now, loaded))

    def loaded_at(self, when: float) -> set[str]:
        return [loaded for since, loaded in self.loaded if since <= when][-1]

    # Clients

    def ask(self, model: str, key: str | None = None, tokens: int = 10) -> None:
        """Send one request; count it, or note its refusal."""
        admission = self.rates.admit(key, model)
        if admission is not None and admission.refusal is not None:
            self.waits[key or ""].append((self.now, admission.refusal.retry_after or 0.0))
            return
        self.feed(ev.Request(id=next(self.ids), model=model))
        self.rates.charge(key, model, tokens)
        used = Usage(prompt_tokens=tokens - 1, completion_tokens=1)
        self.usage.add(Metered(key=key, route=model, model=model, usage=used, seconds=0.5, result="ok"))

    async def hourly(self) -> None:
        day, hour = divmod(self.now, DAY)
        for _ in range(5):
            self.ask("chat", "ci")
        self.ask("chat", "night", tokens=6000)
        if day < 5 and hour in (9.5 * HOUR, 10.5 * HOUR, 11.5 * HOUR):
            self.ask("big")
        if day < 5 and hour == 12.5 * HOUR:
            self.ask("small")
        if day == 5 and hour == 9.5 * HOUR:
            self.ask("big")
        await self.usage.write()

    async def by_day(self) -> dict[float, dict[str, tuple[int, int]]]:
        """Return the number of requests and of tokens of each day and key."""
        found: dict[float, dict[str, tuple[int, int]]] = {}
        for row in await self.usage.read(UsageQuery(since=0, by=("key",), span="day")):
            tokens = row["prompt_tokens"] + row["generated_tokens"]
            found.setdefault(row["start"] - MONDAY, {})[row["key"]] = (row["requests"], tokens)
        return found

    # The repository

    async def poll(self) -> None:
        """Check the repository, and again after the pause that the follower would make."""
        with suppress(MullamaError):
            await self.git.sync()
        tree, settings = self.git.tree(), self.git.settings
        assert tree is not None
        assert settings is not None
        if tree["failures"]:
            self.failed_polls.append(self.now)
        self.put(self.now + pause(settings.interval, tree["failures"]), self.poll)

    def adopt(self, origin: Origin) -> None:
        """Apply a checkout, as the watcher does: an invalid one leaves the manifest before it."""
        if origin == self.followed:
            return
        self.followed, settings = origin, self.git.settings
        assert settings is not None
        try:
            found = with_git(load(origin.file or "", profiles=(), env=self.env), settings).manifest
        except MullamaError:
            self.invalid.append((self.now, origin.commit))
            return
        snapshot = _snapshot(found, self.current.snapshot.generation + 1)
        self.current = replace(self.current, manifest=found, snapshot=snapshot, origin=origin)
        self.applied.append((self.now, origin.commit))
        self.git.applied(origin)
        self.feed(ev.Swap(models=_served(found), rules=Rules(budget=BUDGET)))

    def commit(self, text: str, *, amend: bool = False) -> str:
        return self.host.commit({"mullama.yaml": text}, amend=amend)

    @property
    def git_synced(self) -> tuple[bool, str]:
        found = self.conditions.items[Condition.GIT_SYNCED]
        return found["status"], found["reason"]


def _raise(error: MullamaError | None) -> None:
    if error is not None:
        raise error


def _snapshot(manifest: Manifest, generation: int) -> Snapshot:
    access = Access(manifest=manifest, keys=(), generation=generation)
    return Snapshot(generation=generation, revision=str(generation), manifest=manifest, access=access)


def _served(manifest: Manifest) -> dict[str, Serve]:
    return {
        name: Serve(
            name=name, unit=UnitKey(name, "c"), weights_bytes=SIZES[name], ttl=time_to_live(model),
            at_start=model.residency.load == "at_start",
        )
        for name, model in manifest.models.items()
    }  # fmt: skip


@pytest.fixture
async def week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Week]:
    with git_host(tmp_path / "host") as host:
        found = Week(tmp_path, host)
        fetch, known = GitRepository.fetch, dict[str, str]()

        def fetch_after_a_push(repository: GitRepository) -> str:
            refs = (host.folder / "models.git/info/refs").read_text()
            if host.token is not None or refs not in known:
                known[refs] = fetch(repository)
            return known[refs]

        monkeypatch.setattr(GitRepository, "fetch", fetch_after_a_push)
        yield found
        await found.usage.close()


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_a_week_of_evictions_quotas_usage_and_commits(week: Week) -> None:
    first = week.commit(FIRST)
    week.put(0.0, week.poll)
    down = range(int(SAT / HOUR), int(SAT / HOUR) + 3)
    for hour in range(7 * 24):
        if hour not in down:
            week.put(hour * HOUR + 30 * MINUTE, week.hourly)

    # Monday: `big` is closed for `small`, and `small` after its time to live; the burst of the quota lasts 15 hours.
    await week.until(TUE)
    assert week.applied == [(MON, first)]
    assert week.loaded[1:] == [
        (MON, {"chat"}),
        (at(MON, "09:30"), {"chat", "big"}),
        (at(MON, "12:30"), {"chat", "small"}),
        (at(MON, "13:00"), {"chat"}),
    ]
    assert week.evicted == [(at(MON, "12:30"), "big")]
    assert week.waits["ci"][:3] == [(at(MON, "15:30"), 1800.0)] * 2 + [(at(MON, "16:30"), 1800.0)]
    assert [time for time, _ in week.waits["night"][:3]] == [at(MON, time) for time in ("05:30", "06:30", "08:30")]
    assert week.waits["night"][0][1] == pytest.approx(1001 * 3.6)  # for the debt of 1,000 tokens and one token
    assert await week.by_day() == {MON: {"ci": (94, 940), "night": (8, 48_000), "": (4, 40)}}

    # Tuesday: a commit gives `small` a longer time to live; each key gets one quota a day from now on.
    await week.until(at(TUE, "06:05"))
    second = week.commit(SECOND)
    await week.until(WED)
    assert week.applied[1:] == [(at(TUE, "06:10"), second)]
    assert week.loaded[5:] == [
        (at(TUE, "09:30"), {"chat", "big"}),
        (at(TUE, "12:30"), {"chat", "small"}),
        (at(TUE, "14:30"), {"chat"}),
    ]
    assert (await week.by_day())[TUE] == {"ci": (48, 480), "night": (4, 24_000), "": (4, 40)}

    # Wednesday: the manifest before an invalid one stays, and a host that does not answer is asked less often.
    await week.until(at(WED, "06:05"))
    bad = week.commit(BAD)
    await week.until(at(WED, "09:55"))
    assert (week.invalid, week.current.origin.commit) == ([(at(WED, "06:10"), bad)], second)
    week.host.token = "locked"
    await week.until(at(WED, "15:55"))
    assert week.git_synced == (False, "GitFailed")
    half_hours = [at(WED, "10:50") + half * 30 * MINUTE for half in range(11)]
    assert week.failed_polls == [at(WED, "10:00"), at(WED, "10:20"), *half_hours]
    week.host.token = None
    await week.until(THU)
    assert week.git_synced == (False, "NotApplied"), "the invalid commit"
    assert (week.failed_polls[-1], week.loaded_at(at(WED, "14:29"))) == (at(WED, "15:50"), {"chat", "small"})
    assert sorted(await week.by_day()) == [MON, TUE, WED]

    # Thursday: the quota of `ci` is doubled, and its used share stays.
    await week.until(at(THU, "06:05"))
    doubled = week.commit(DOUBLED)
    await week.until(FRI)
    assert (week.git_synced, week.applied[2:]) == ((True, "Applied"), [(at(THU, "06:10"), doubled)])
    assert (await week.by_day())[THU]["ci"] == (6 * 2 + 18 * 4, 840)

    # Friday: a force-pushed branch waits for the operator.
    await week.until(at(FRI, "06:05"))
    forced = week.commit(FORCED, amend=True)
    await week.until(at(FRI, "12:05"))
    assert (week.git_synced, week.current.origin.commit) == ((False, "HistoryRewritten"), doubled)
    await week.git.sync(forced=True)
    assert (week.git_synced, week.applied[3:]) == ((True, "Applied"), [(at(FRI, "12:05"), forced)])

    # Saturday: a restart grants nothing anew, and the three hours without a server count for the quota.
    await week.until(SAT)
    assert (await week.by_day())[FRI]["ci"] == (96, 960)
    saved = week.rates.save()
    await week.until(at(SAT, "03:00"))
    week.rates = week._rate_book()
    week.rates.restore(saved)
    await week.until(SUN)
    assert (await week.by_day())[SAT] == {"ci": (96, 960), "night": (4, 24_000), "": (1, 10)}
    assert next(time for time, _ in week.waits["ci"] if time >= SAT) == at(SAT, "15:30")
    assert week.loaded[-2:] == [(at(SAT, "09:30"), {"chat", "big"}), (at(SAT, "10:30"), {"chat"})]

    # Sunday: a commit replaces a model. Of the usage, three whole days and this one are kept.
    await week.until(at(SUN, "06:05"))
    last = week.commit(LAST)
    await week.until(7 * DAY)
    assert week.applied[4:] == [(at(SUN, "06:10"), last)]
    assert week.loaded[-1] == (at(SUN, "06:10"), {"chat", "extra"})
    days = await week.by_day()
    assert {day: keys["ci"][0] for day, keys in days.items()} == {THU: 84, FRI: 96, SAT: 96, SUN: 96}
    assert {keys["night"] for keys in days.values()} == {(4, 24_000)}
    asked = 5 * (7 * 24 - 3)
    accepted = 94 + 48 + 48 + 84 + 96 + 96 + 96
    assert week.refused["auth.keys.ci.quota.requests"] == len(week.waits["ci"]) == asked - accepted
    assert len(week.invalid) == 1
    # On Friday `big` had its new time to live, and was closed by it before `small` needed its memory.
    assert week.evicted == [(at(day, "12:30"), "big") for day in (MON, TUE, WED, THU)]
