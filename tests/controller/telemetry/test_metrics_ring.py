"""The laws of the ring: order, bounds, and steps of any length that keep sums, maxima and counts."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.controller.telemetry.metrics_ring import (
    INTERVAL,
    KEPT,
    LEVELS,
    MOST_MARKS,
    MOST_MODELS,
    MOST_POINTS,
    OTHERS,
    SUMS,
    Mark,
    MetricsRing,
    ModelReading,
    quantile,
    usable_step,
)
from mullama.runtime.metrics import TimeSpread

WALL = 1.7e9
NAMES = ("a", "b", "c")


def reading(*sums: int, levels: Sequence[int] = (), first: dict[int, int] | None = None) -> ModelReading:
    return ModelReading(
        sums=(*sums, *(0,) * (len(SUMS) - len(sums))),
        levels=(*levels, *(0,) * (len(LEVELS) - len(levels))),
        spreads=(first or {}, {}),
    )


def filled(growths: Sequence[dict[str, tuple[int, int]]], start: float = 1000.0) -> tuple[MetricsRing, float]:
    """A ring with one sample for each growth: (answered requests more, running requests) by model."""
    ring, now, counts = MetricsRing(start), start, dict.fromkeys(NAMES, 0)
    for growth in growths:
        now += INTERVAL
        for name, (more, _) in growth.items():
            counts[name] += more
        models = {
            name: reading(counts[name], levels=(growth.get(name, (0, 0))[1],), first={counts[name] % 5: counts[name]})
            for name in NAMES
        }
        ring.add(now, models, available=100)
    return ring, now


growths = st.lists(
    st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 9), st.integers(0, 9))), min_size=1, max_size=60
)


@given(growths, st.sampled_from([0.0, 5.0, 7.0, 15.0, 60.0, 300.0, 3600.0]), st.floats(0, 1e6))
def test_a_step_of_any_length_keeps_sums_and_maxima(
    found: list[dict[str, tuple[int, int]]], step: float, start: float
) -> None:
    ring, now = filled(found, start)
    tree = ring.read(now, wall=WALL, since=start, step=step)
    for name in NAMES:
        sums, most = (
            sum(g[name][0] for g in found if name in g),
            max((g[name][1] for g in found if name in g), default=0),
        )
        columns = tree["models"].get(name, {"ok": [0], "running": [0]})
        assert sum(value or 0 for value in columns["ok"]) == sums
        assert max(value or 0 for value in columns["running"]) == most
        assert tree["whole"]["models"].get(name, {"ok": 0})["ok"] == sums
    assert sum(value or 0 for value in tree["total"]["ok"]) == tree["whole"]["total"]["ok"]
    assert max(v or 0 for v in tree["total"]["running"]) == max(sum(r for _, r in g.values()) for g in found)
    assert sum(tree["seconds"]) == pytest.approx(len(found) * INTERVAL, abs=0.1)


@given(growths, st.floats(0.0, 4000.0), st.floats(0.0, 4000.0))
def test_steps_are_in_order_and_bounded_and_have_all_columns(
    found: list[dict[str, tuple[int, int]]], age: float, step: float
) -> None:
    ring, now = filled(found)
    tree = ring.read(now, wall=WALL, since=now - age, step=step)
    when = tree["when"]
    assert 1 <= len(when) <= MOST_POINTS + 2
    assert when == sorted(set(when))
    assert when[-1] <= WALL
    assert tree["step"] % INTERVAL == 0
    columns = [tree["seconds"], tree["available"], *tree["total"].values()]
    columns += [column for model in tree["models"].values() for column in model.values()]
    assert {len(column) for column in columns} == {len(when)}


@given(st.lists(st.floats(0.001, 500.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_exact_to_five_percent(seconds: list[float], share: float) -> None:
    spread = TimeSpread()
    for one in seconds:
        spread.add(one)
    exact = sorted(seconds)[max(1, math.ceil(share * len(seconds))) - 1]
    assert quantile(spread.counts, share) == pytest.approx(exact, rel=0.05)


def test_no_times_have_no_quantile() -> None:
    assert quantile({}, 0.5) is None


def test_a_counter_that_falls_counts_as_unchanged() -> None:
    ring = MetricsRing(0.0)
    for number, count in enumerate((5, 3, 4)):
        ring.add(INTERVAL * (number + 1), {"a": reading(count)})
    assert ring.read(20.0, wall=WALL, since=0.0)["whole"]["models"]["a"]["ok"] == 5 + 0 + 1


def test_a_moment_that_is_not_later_is_left_out() -> None:
    ring = MetricsRing(10.0)
    ring.add(10.0, {"a": reading(1)})
    ring.add(3.0, {"a": reading(2)})
    assert ring.read(20.0, wall=WALL, since=0.0)["whole"]["seconds"] == 0


def test_a_step_without_a_sample_is_a_gap_and_no_zero() -> None:
    ring = MetricsRing(0.0)
    ring.add(4.0, {"a": reading(1)})
    ring.add(14.0, {"a": reading(2)})
    tree = ring.read(15.0, wall=WALL, since=0.0, step=5.0)
    assert tree["seconds"] == [4.0, 0.0, 10.0]
    assert tree["total"]["ok"] == [1, None, 1]
    assert tree["models"]["a"]["running"] == [0, None, 0]


def test_times_move_with_a_clock_that_was_set() -> None:
    ring, now = filled([{"a": (1, 0)}] * 3)
    before, after = (ring.read(now, wall=wall, since=now - 60) for wall in (WALL, WALL - 86_400))
    assert [x - y for x, y in zip(before["when"], after["when"], strict=True)] == [86_400] * len(before["when"])
    assert before["total"] == after["total"]


def test_only_the_named_model_is_listed() -> None:
    ring, now = filled([{"a": (1, 1), "b": (2, 1)}])
    assert [*ring.read(now, wall=WALL, since=0.0, model="b")["models"]] == ["b"]
    assert ring.read(now, wall=WALL, since=0.0, model="x")["models"] == {}


def test_an_idle_model_takes_no_room() -> None:
    ring, now = filled([{"a": (1, 1)}])
    assert [*ring.read(now, wall=WALL, since=0.0)["models"]] == ["a"]


def test_many_models_are_summed_up_beyond_the_busiest() -> None:
    ring = MetricsRing(0.0)
    models = {f"m{n}": reading(1, 0, 0, 0, 0, n) for n in range(MOST_MODELS + 10)}
    ring.add(5.0, models)
    tree = ring.read(5.0, wall=WALL, since=0.0)
    whole: dict[str, Any] = tree["whole"]["models"]
    assert len(whole) == MOST_MODELS + 1
    assert f"m{MOST_MODELS + 9}" in whole
    assert "m0" not in whole
    assert whole[OTHERS]["generated_tokens"] == sum(range(10))
    assert sum(one["ok"] for one in whole.values()) == tree["whole"]["total"]["ok"] == len(models)


def test_the_ring_forgets_what_is_older_than_an_hour_and_bounds_its_memory() -> None:
    ring, counts = MetricsRing(0.0), 0
    tracemalloc.start()
    try:
        for number in range(1, int(1.1 * KEPT / INTERVAL)):
            counts += 1
            models = {f"m{n}": reading(counts, first={n: counts}) for n in range(MOST_MODELS)}
            ring.add(number * INTERVAL, models)
            ring.mark(Mark(at=number * INTERVAL, kind="applied", message="m", generation=number))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    tree = ring.read(1.1 * KEPT, wall=WALL, since=0.0)
    assert tree["whole"]["seconds"] <= KEPT + INTERVAL
    assert 0 < len(tree["marks"]) <= MOST_MARKS
    assert all(WALL - mark["when"] <= KEPT + INTERVAL for mark in tree["marks"])
    assert taken < 24 * 2**20


@pytest.mark.parametrize(
    ("seconds", "step", "usable"),
    [(300, 0, 5), (900, 0, 5), (3600, 0, 15), (3600, 1, 5), (3600, 7, 10), (3600, 60, 60), (3600, 5, 5), (0, 0, 5)],
)
def test_a_step_is_a_multiple_of_the_interval(seconds: float, step: float, usable: float) -> None:
    assert usable_step(seconds, step) == usable
