"""The number of threads beside other processes, with values alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.llamacpp.contention import (
    INTERVAL,
    STALE,
    ProcessorMeter,
    ProcessorTimes,
    _cpu_times,
    choose,
    first_choice,
    read_times,
    remark,
)
from mullama.struct import replace

START = ProcessorTimes(at=100.0, busy=50.0, polite=5.0, own=20.0, delayed=1.0)


def later(*, own: float, others: float = 0.0, polite: float = 0.0, delayed: float = 0.0) -> ProcessorTimes:
    """The counters one second later; use in cores."""
    return replace(
        START,
        at=START.at + 1.0,
        busy=START.busy + own + others,
        polite=START.polite + polite,
        own=START.own + own,
        delayed=START.delayed + delayed,
    )


@pytest.mark.parametrize(
    ("cores", "cpus", "now", "threads"),
    [
        # An idle machine: all cores, also beside the small work of a client.
        (2, 2, later(own=2.0), 2),
        (2, 2, later(own=1.6, others=0.4), 2),
        (2, 2, later(own=0.0), 2),
        (8, 8, later(own=8.0), 8),
        (1, 1, later(own=0.5, others=0.5), 1),
        # Others take cores.
        (2, 2, later(own=1.0, others=1.0), 1),
        (2, 2, later(own=0.2, others=1.8), 1),
        (2, 2, later(own=0.0, others=2.0), 1),
        (8, 8, later(own=5.0, others=3.0), 5),
        (8, 8, later(own=1.0, others=7.0), 1),
        (64, 64, later(own=32.0, others=32.0), 32),
        # Two hardware threads of each core: a process on one of them takes half a core.
        (8, 16, later(own=8.0, others=2.0), 7),
        # Processes of low priority count only where they delay this one.
        (2, 2, later(own=1.9, polite=2.0), 2),
        (2, 2, later(own=1.0, polite=1.0, delayed=0.5), 1),
        (64, 64, later(own=60.0, polite=64.0, delayed=0.5), 64),
        # Rounding of the counters.
        (2, 2, replace(later(own=2.0), busy=START.busy + 1.99), 2),
    ],
)
def test_threads_get_what_others_leave(cores: int, cpus: int, now: ProcessorTimes, threads: int) -> None:
    assert choose(START, now, cores=cores, cpus=cpus) == threads


@given(st.integers(1, 64), st.floats(0, 64), st.floats(0, 64), st.floats(0, 64), st.floats(0, 64))
def test_at_least_one_thread_and_at_most_the_cores(
    cores: int, own: float, others: float, polite: float, delayed: float
) -> None:
    now = later(own=own, others=others, polite=polite, delayed=delayed)
    assert 1 <= choose(START, now, cores=cores, cpus=cores) <= cores


@pytest.mark.parametrize(
    ("load", "cores", "threads"),
    [(0.0, 2, 2), (2.5, 2, 2), (4.9, 2, 2), (5.0, 2, 1), (18.0, 2, 1), (16.0, 16, 16), (3.0, 1, 1)],
)
def test_before_the_first_measurement_a_high_load_decides(load: float, cores: int, threads: int) -> None:
    assert first_choice(load, cores=cores) == threads


def test_a_meter_follows_the_load() -> None:
    use, load = [0.0], [18.0]
    own = [0.0]

    def read(at: float) -> ProcessorTimes:
        own[0] += 1.0 * (at - last[0])
        use[0] += others[0] * (at - last[0])
        last[0] = at
        return ProcessorTimes(at=at, busy=own[0] + use[0], polite=0.0, own=own[0], delayed=0.0)

    last, others = [0.0], [1.0]
    meter = ProcessorMeter(2, read, lambda: load[0], 2)
    assert meter.look(0.0)
    assert (meter.threads, meter.load) == (1, 18.0)
    assert not meter.look(INTERVAL / 2), "it is not time"
    assert not meter.look(INTERVAL)
    others[0], load[0] = 0.0, 1.0
    assert meter.look(2 * INTERVAL)
    assert meter.threads == 2
    others[0] = 2.0
    load[0] = 6.0
    assert meter.look(2 * INTERVAL + STALE + 1), "an old measurement says nothing: the load decides"
    assert meter.threads == 1


def test_a_system_without_counters_gets_all_cores() -> None:
    meter = ProcessorMeter(4, lambda at: None, lambda: 99.0, 4)
    assert not meter.look(0.0)
    assert not meter.look(1e9)
    assert meter.threads == 4


def test_the_counters_of_usable_cpus_are_added() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 20 30 999 5 1 2 7 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\n"
    busy, polite = _cpu_times(text, {0})
    assert busy / polite == pytest.approx(140 / 20)


def test_this_system_is_measured_where_it_has_counters() -> None:
    times = read_times(1.0)
    assert times is None or times.busy > 0


BUSY = "other processes use the processor (load 18 on 2 cores): "


@pytest.mark.parametrize(
    ("threads", "declared", "text"),
    [
        (2, 0, ""),
        (1, 0, f"{BUSY}1 of 2 threads compute"),
        (1, 1, ""),
        (1, 2, f"{BUSY}context.threads: 1 instead of 2 helps"),
        (2, 8, ""),
        (1, 8, f"{BUSY}context.threads: 1 instead of 8 helps"),
    ],
)
def test_the_remark_names_cause_and_remedy(threads: int, declared: int, text: str) -> None:
    assert remark(threads, cores=2, load=18.2, declared=declared) == text
