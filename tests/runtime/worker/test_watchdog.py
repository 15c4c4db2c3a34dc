"""The verdict on a worker, with values alone. Limits: 60 s quiet, 600 s active, 3 and 30 s with an overdue job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.runtime.worker.watchdog import ProcessUsage, StallLimits, Watchdog

LIMITS = StallLimits()


def usage(cpu: float = 0.0, memory: int = 0, read: int = 0) -> ProcessUsage:
    return ProcessUsage(cpu=cpu, memory=memory << 20, read=read << 20)


class World:
    """A worker that behaves in one way, observed as a parent does."""

    def __init__(self, *, cpu: float = 0.0, memory: int = 0, read: int = 0, answers: bool = True) -> None:
        """cpu: share of one processor; memory, read: growth in MiB per second; answers: to pings."""
        self.cpu, self.memory, self.read, self.answers = cpu, memory, read, answers
        self.now, self.steps, self.idle = 0.0, 0, False
        self.watchdog = Watchdog(0.0, LIMITS)

    def hangs_after(self, most: float = 700.0) -> float | None:
        while self.now < most:
            self.watchdog.used(
                self.now, usage(self.cpu * self.now, int(self.memory * self.now), int(self.read * self.now))
            )
            if self.watchdog.verdict(self.now):
                return self.now
            if self.answers:
                self.watchdog.answered(self.now, steps=self.steps, idle=self.idle)
            self.now += self.watchdog.interval
        return None


@pytest.mark.parametrize(
    ("world", "hangs"),
    [
        (World(), 60.0),  # waits for a device, or sleeps
        (World(answers=False), 60.0),  # stopped, or dead
        (World(cpu=0.005), 60.0),  # answers to pings are no activity
        (World(cpu=0.02), 600.0),  # an endless loop, or a slow decode on a busy machine
        (World(cpu=1.0), 600.0),
        (World(cpu=1.0, answers=False), 60.0),  # native code holds the interpreter
        (World(memory=10), None),  # a load
        (World(read=10), None),  # a load whose pages leave memory again
        (World(memory=10, answers=False), None),  # a load that starves the control thread
    ],
)
def test_a_worker_without_an_overdue_job(world: World, hangs: float | None) -> None:
    world.watchdog.answered(0.0, steps=0, idle=True)
    assert world.hangs_after() == hangs


@pytest.mark.parametrize(
    ("world", "hangs"),
    [
        (World(), 3.0),
        (World(cpu=0.005), 3.0),
        (World(cpu=1.0), 30.0),
        (World(answers=False), 3.0),
    ],
)
def test_a_worker_with_an_overdue_job(world: World, hangs: float) -> None:
    world.watchdog.answered(0.0, steps=0, idle=True)
    world.watchdog.overdue(0.0)
    assert world.hangs_after() == hangs
    verdict = world.watchdog.verdict(world.now)
    assert verdict is not None
    assert str(verdict).startswith("the worker hung: after a request exceeded its time limit")


def test_an_idle_worker_never_hangs() -> None:
    world = World()
    world.idle = True
    assert world.hangs_after() is None


def test_progress_ends_the_short_limits_of_an_overdue_job() -> None:
    watchdog = Watchdog(0.0, LIMITS)
    watchdog.answered(0.0, steps=7, idle=False)
    watchdog.overdue(1.0)
    assert not watchdog.answered(1.5, steps=8, idle=False), "the step may be older than the limit of the job"
    assert watchdog.answered(2.0, steps=9, idle=False)
    assert watchdog.verdict(10.0) is None
    assert watchdog.interval == LIMITS.ping


def test_a_process_that_is_swapped_in_again_makes_no_progress() -> None:
    watchdog = Watchdog(0.0, LIMITS)
    for second, memory in ((0, 900), (5, 100), (50, 900)):
        watchdog.used(float(second), usage(memory=memory))
    assert watchdog.stalled(60.0) == 60.0


def test_a_system_that_reports_no_usage_gets_the_longer_limit() -> None:
    watchdog = Watchdog(0.0, LIMITS)
    for second in range(0, 605, 5):
        watchdog.used(float(second), None)
        watchdog.answered(float(second), steps=0, idle=False)
        hangs = watchdog.verdict(float(second))
        if hangs:
            break
    assert (second, hangs is not None) == (600, True)


@given(st.lists(st.floats(0.1, 59.0), min_size=1, max_size=50))
def test_a_worker_that_answers_questions_never_hangs(pauses: list[float]) -> None:
    watchdog, now = Watchdog(0.0, LIMITS), 0.0
    for pause in pauses:
        now += pause
        assert watchdog.verdict(now) is None
        watchdog.progressed(now)
