"""The processor time of the scheduler's decisions: `python -m benches.decisions`.

1,000 models in 50 groups of 2 places, memory for 40 of them, 2,000 waiting requests. An arrival and a departure usually
concern one model alone. A tick, a load and a unit that becomes idle run all passes.
"""

from __future__ import annotations

import random
import statistics
import time

from mullama.runtime.scheduler import events as ev
from mullama.runtime.scheduler.decide import decide
from mullama.runtime.scheduler.events import GroupBound, Rules, Serve, UnitKey
from mullama.runtime.scheduler.state import State

NAMES = [f"m{number}" for number in range(1000)]
NOW = 100.0


def _feed(state: State, first: ev.Event) -> None:
    """Apply an event, and the answers of a pool that performs every command at once."""
    events: list[ev.Event] = [first]
    while events:
        for command in decide(state, events.pop(0), NOW):
            match command:
                case ev.StartWorker(weights=weights):
                    events.append(ev.WorkerReady(weights=weights))
                case ev.OpenUnit(unit=unit):
                    events.append(ev.UnitOpened(unit=unit))
                case ev.CloseUnit(unit=unit):
                    events.append(ev.UnitClosed(unit=unit))
                case ev.StopWorker(weights=weights):
                    events.append(ev.WorkerStopped(weights=weights))


def main() -> None:
    """Print the median and the mean of each kind of event in milliseconds."""
    pick = random.Random(1)
    models = {
        name: Serve(
            name=name, unit=UnitKey(f"w{name}", "c"), parallel=2, at_start=False, weights_bytes=10, queue=10**6,
            queue_timeout=1e6,
        )
        for name in NAMES
    }  # fmt: skip
    groups = tuple(
        GroupBound(name=f"g{first}", models=frozenset(NAMES[first : first + 20]), most=2)
        for first in range(0, len(NAMES), 20)
    )
    state = State()
    _feed(state, ev.Swap(models=models, rules=Rules(concurrency=200, queue=10**6, budget=400, groups=groups)))
    for number in range(2100):
        _feed(state, ev.Request(id=number, model=pick.choice(NAMES)))
    taken: dict[str, list[float]] = {"Request": [], "Leave": [], "Tick": []}
    for number in range(2100, 2150):
        for event in (
            ev.Request(id=number, model=pick.choice(NAMES)),
            ev.Leave(id=pick.choice(list(state.running) or [0])),
            ev.Tick(),
        ):
            begun = time.process_time()
            decide(state, event, NOW)
            taken[type(event).__name__].append(1e3 * (time.process_time() - begun))
    for kind, times in taken.items():
        print(f"{kind:8} median {statistics.median(times):7.3f} ms, mean {statistics.mean(times):7.3f} ms")


if __name__ == "__main__":
    main()
