"""The metrics of the last hour in memory of a fixed size. Pure: times and readings are arguments.

A reading has the counters since the start of the server. The ring keeps the growth between two readings and the levels
at the second one, so a step of any length is their sum and their maximum, and no quantile is averaged.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, takewhile
from operator import add, sub
from typing import Any, Final

from mullama.struct import Struct, field

INTERVAL: Final = 5.0
"""Seconds between two readings."""
KEPT: Final = 3600.0
"""Seconds that the ring covers."""
SUMS: Final = ("ok", "errors", "cancelled", "prompt_tokens", "cached_tokens", "generated_tokens")
"""The counters of a reading, in the order of `ModelReading.sums`."""
LEVELS: Final = ("running", "waiting", "memory", "cache_size", "cache_used")
"""The levels of a reading, in the order of `ModelReading.levels`; memory is in bytes, the cache in tokens."""
SPREADS: Final = ("first_token", "wait")
"""The times of a reading, in the order of `ModelReading.spreads`, in seconds."""
QUANTILES: Final = (("p50", 0.5), ("p95", 0.95))
OTHERS: Final = "(others)"
"""The name under which a sample sums up the models beyond `MOST_MODELS`; no model can have it."""
MOST_MODELS: Final = 32
"""Models that one sample keeps apart: the busiest, so that the ring needs some 8 MB at most."""
MOST_MARKS: Final = 500
MOST_POINTS: Final = 720
_PLACES: Final = 8  # of a spread, for each doubling; see `TimeSpread`

Spread = Mapping[int, int]
"""Counts by place, see `runtime.metrics.TimeSpread`."""


class ModelReading(Struct, frozen=True, kw_only=True):
    """The counters of one model since the start of the server, and its levels now."""

    sums: Sequence[int] = (0,) * len(SUMS)
    levels: Sequence[int] = (0,) * len(LEVELS)
    spreads: Sequence[Spread] = ({},) * len(SPREADS)


class Mark(Struct, frozen=True, kw_only=True):
    """A change of the manifest, at a moment of the ring's clock."""

    at: float
    kind: str
    message: str
    generation: int
    """The revision that served after it."""


class Growth(Struct, kw_only=True):
    """The sum of one or more samples: sums of the counters, maxima of the levels, counts of the times."""

    sums: array[float] = field(default_factory=lambda: array("d", bytes(8 * len(SUMS))))
    levels: array[float] = field(default_factory=lambda: array("d", bytes(8 * len(LEVELS))))
    spreads: list[dict[int, int]] = field(default_factory=lambda: [{} for _ in SPREADS])

    def add(self, other: Growth, *, together: bool = False) -> None:
        """Add another growth: of a later time, or with `together` of another model at the same time."""
        self.sums = array("d", map(add, self.sums, other.sums))
        self.levels = array("d", map(add if together else max, self.levels, other.levels))
        for mine, theirs in zip(self.spreads, other.spreads, strict=True):
            for place, count in theirs.items():
                mine[place] = mine.get(place, 0) + count

    @property
    def weight(self) -> tuple[float, ...]:
        """The order of models by their activity; all zero for an idle one."""
        return (self.sums[3] + self.sums[5], sum(self.sums), *self.levels)

    def tree(self) -> dict[str, float | None]:
        """Return the values by name; None for a quantile of nothing."""
        quantiles = {
            f"{name}_{label}": quantile(spread, share)
            for name, spread in zip(SPREADS, self.spreads, strict=True)
            for label, share in QUANTILES
        }
        numbers = zip((*SUMS, *LEVELS), (*self.sums, *self.levels), strict=True)
        return {name: int(value) for name, value in numbers} | quantiles


class _Sample(Struct, frozen=True):
    at: float
    seconds: float
    """Since the sample before."""
    total: Growth
    models: Mapping[str, Growth]
    """The models that did something or hold memory."""
    available: int
    devices: Mapping[str, int]


class MetricsRing:
    """Samples of one hour, oldest first. start: the moment of the first reading, on a clock that never goes back."""

    def __init__(self, start: float) -> None:
        self._samples: deque[_Sample] = deque(maxlen=math.ceil(KEPT / INTERVAL))
        self._marks: deque[Mark] = deque(maxlen=MOST_MARKS)
        self._before: Mapping[str, ModelReading] = {}
        self._last = start

    def add(
        self, at: float, models: Mapping[str, ModelReading], *, available: int = 0, devices: Mapping[str, int] = {}
    ) -> None:
        """Add the readings of a moment. A moment that is not later than the one before is left out.

        An unchanged model may have the reading of the last time, and an unchanged spread, as the same objects: they are
        not compared then.

        available: free main memory in bytes. devices: bytes of models on each device.
        """
        if at <= self._last:
            return
        grown = {
            name: _growth(reading, before)
            for name, reading in models.items()
            if reading is not (before := self._before.get(name)) or any(reading.levels)
        }
        total = Growth()
        for one in grown.values():
            total.add(one, together=True)
        seconds, self._last, self._before = at - self._last, at, models
        self._samples.append(_Sample(at, seconds, total, _busiest(grown), available, dict(devices)))

    def mark(self, mark: Mark) -> None:
        """Note a change of the manifest."""
        self._marks.append(mark)

    def read(
        self, now: float, *, wall: float, since: float, step: float = 0.0, model: str | None = None
    ) -> dict[str, Any]:
        """Return the values of each step since a moment, and of the whole time.

        wall: Unix time at `now`; the times of the answer are relative to it, so a clock that was set moves all alike.
        step: seconds, at least `INTERVAL`; 0 chooses one with some 240 steps. model: the only one to list.
        """
        since = max(since, now - KEPT)
        length = usable_step(now - since, step)
        first = math.floor(since / length)
        steps = [_Step() for _ in range(max(1, math.ceil(now / length) - first))]
        whole = _Step()
        for sample in self._after(first * length):
            place = min(max(0, math.ceil(sample.at / length) - 1 - first), len(steps) - 1)
            steps[place].add(sample)
            whole.add(sample)
        names = [name for name in whole.models if model in (None, name)]
        offset = wall - now
        return {
            "step": length,
            "when": [round(min((first + place + 1) * length, now) + offset, 3) for place in range(len(steps))],
            "seconds": [round(one.seconds, 3) for one in steps],
            "available": [one.available for one in steps],
            "devices": {name: [one.devices.get(name) for one in steps] for name in whole.devices},
            "total": _columns([one.total if one.seconds else None for one in steps]),
            "models": {name: _columns([one.of(name) for one in steps]) for name in names},
            "whole": {
                "seconds": round(whole.seconds, 3),
                "total": whole.total.tree(),
                "models": {name: whole.models[name].tree() for name in names},
            },
            "marks": [
                {"when": round(mark.at + offset, 3), "kind": mark.kind, "message": mark.message,
                 "generation": mark.generation}
                for mark in self._marks if mark.at > first * length
            ],
        }  # fmt: skip

    def _after(self, moment: float) -> Iterable[_Sample]:
        return reversed(list(takewhile(lambda sample: sample.at > moment, reversed(self._samples))))


class _Step(Struct):
    """The samples of one step, added up."""

    seconds: float = 0.0
    total: Growth = field(default_factory=Growth)
    models: dict[str, Growth] = field(default_factory=dict)
    available: int | None = None
    """The least of the step."""
    devices: dict[str, int] = field(default_factory=dict)

    def add(self, sample: _Sample) -> None:
        self.seconds += sample.seconds
        self.total.add(sample.total)
        for name, one in sample.models.items():
            self.models.setdefault(name, Growth()).add(one)
        self.available = sample.available if self.available is None else min(self.available, sample.available)
        for name, count in sample.devices.items():
            self.devices[name] = max(count, self.devices.get(name, 0))

    def of(self, name: str) -> Growth | None:
        """Return the growth of a model; None for a step without a sample."""
        return self.models.get(name, _NOTHING) if self.seconds else None


_NOTHING: Final = Growth()


def usable_step(seconds: float, step: float) -> float:
    """Return the length of a step for a time: a multiple of the interval, so that no step is without a sample."""
    least = max(step or seconds / 240, seconds / MOST_POINTS)
    return max(1, math.ceil(least / INTERVAL - 1e-9)) * INTERVAL


def quantile(spread: Spread, share: float) -> float | None:
    """Return the time in seconds below which a share of the counted times lies, exact to 5 %; None without any."""
    rank = max(1, math.ceil(share * sum(spread.values())))
    seen = 0
    for place in sorted(spread):
        seen += spread[place]
        if seen >= rank:
            return float(f"{2 ** (place / _PLACES):.3g}")
    return None


_UNKNOWN: Final = ModelReading()
_ZEROS: Final = (0,) * len(SUMS)


def _growth(now: ModelReading, before: ModelReading | None) -> Growth:
    """Return the growth since the reading before. A counter that fell counts as unchanged."""
    before = before or _UNKNOWN
    if now is before:
        return Growth(levels=array("d", now.levels))
    return Growth(
        sums=array("d", map(max, _ZEROS, map(sub, now.sums, before.sums))),
        levels=array("d", now.levels),
        spreads=[_grown(new, old) for new, old in zip(now.spreads, before.spreads, strict=True)],
    )


def _grown(now: Spread, before: Spread) -> dict[int, int]:
    if now is before:
        return {}
    return {place: grown for place, count in now.items() if (grown := count - before.get(place, 0)) > 0}


def _busiest(grown: Mapping[str, Growth]) -> dict[str, Growth]:
    """Return the growth of the models that are not idle; of many, the rest as one."""
    active = [(name, one) for name, one in grown.items() if any(one.weight)]
    if len(active) <= MOST_MODELS:
        return dict(active)
    active.sort(key=lambda item: item[1].weight, reverse=True)
    others = Growth()
    for _, one in islice(active, MOST_MODELS, None):
        others.add(one, together=True)
    return {**dict(active[:MOST_MODELS]), OTHERS: others}


def _columns(steps: Sequence[Growth | None]) -> dict[str, list[float | None]]:
    trees = [one.tree() if one is not None else {} for one in steps]
    return {name: [tree.get(name) for tree in trees] for name in _NOTHING.tree()}
