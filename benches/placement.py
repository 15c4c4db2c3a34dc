"""Measures the placement of models on hosts as both grow: `python -m benches.placement [--sizes 1000x100,10000x1000]`.

Four fifths of the memory of the hosts are wanted; a third of the models have two replicas, and a quarter may have one
half of the hosts only. Prints the processor time of a first placement, of one without a change, and of one after the
loss of a host, with the replicas that moved. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mullama.plan.place import FleetPlacement, HostRoom, MemoryDemand, PlacedModel, place

_GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of processor time, and moved replicas."""

    models: int
    hosts: int
    first: float
    same: float
    lost: float
    moved: int
    unplaced: int


def fleet(models: int, hosts: int, seed: int = 0) -> tuple[list[PlacedModel], list[HostRoom]]:
    """Return models and hosts of several sizes."""
    pick = random.Random(seed)
    rooms = [HostRoom(name=f"h{n:05}", memory=pick.choice((48, 96, 192)) * _GIB) for n in range(hosts)]
    names = tuple(room.name for room in rooms)
    half = names[::2]
    replicas = [1 + (pick.random() < 1 / 3) for _ in range(models)]
    weights = [pick.lognormvariate(0, 0.8) for _ in range(models)]
    room = sum(room.memory or 0 for room in rooms)
    unit = 0.8 * room / sum(count * weight for count, weight in zip(replicas, weights, strict=True))
    largest = 40 * _GIB
    placed = [
        PlacedModel(
            name=f"m{n:06}", hosts=half if pick.random() < 1 / 4 else names, replicas=count,
            need={"": MemoryDemand(parts=((f"w{n}", min(largest, int(unit * weight))), (f"c{n}", _GIB // 64)))},
        )
        for n, (count, weight) in enumerate(zip(replicas, weights, strict=True))
    ]  # fmt: skip
    return placed, rooms


def measure(models: int, hosts: int, seed: int = 0) -> Timed:
    """Return the times of three placements."""
    wanted, rooms = fleet(models, hosts, seed)
    first, found = _timed(wanted, rooms, {})
    same, again = _timed(wanted, rooms, found.hosts)
    if again.hosts != found.hosts:
        raise SystemExit("a placement without a change moves replicas")
    lost, after = _timed(wanted, rooms[1:], found.hosts)
    moved = sum(len(set(after.hosts[name]) - set(having)) for name, having in found.hosts.items())
    return Timed(
        models=models, hosts=hosts, first=first, same=same, lost=lost, moved=moved, unplaced=len(found.unplaced)
    )


def _timed(
    models: list[PlacedModel], rooms: list[HostRoom], current: Mapping[str, tuple[str, ...]]
) -> tuple[float, FleetPlacement]:
    begun = time.process_time()
    found = place(models, rooms, current)
    return time.process_time() - begun, found


def main() -> None:
    """Print a row for each size, and the time that the largest fleet takes by the growth between the last two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="300x30,1000x100,3000x300", help="MODELSxHOSTS, separated by commas")
    options = parser.parse_args()
    columns = ("models", "hosts", "first, s", "unchanged, s", "one host lost, s", "replicas that move", "unplaced")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    rows = []
    for text in options.sizes.split(","):
        models, hosts = map(int, text.split("x"))
        row = measure(models, hosts)
        rows.append(row)
        print(
            f"| {models:,} | {hosts:,} | {row.first:.3f} | {row.same:.3f} | {row.lost:.3f} "
            f"| {row.moved} | {row.unplaced} |",
            flush=True,
        )
    if len(rows) > 1:
        before, last = rows[-2:]
        pairs = last.models * last.hosts
        power = math.log(last.first / before.first) / math.log(pairs / (before.models * before.hosts))
        far = last.first * (100_000 * 10_000 / pairs) ** power
        print(f"\nThe time grows as (models x hosts)^{power:.2f}: 100,000 x 10,000 would take {far:,.0f} s.")


if __name__ == "__main__":
    main()
