"""The laws of the scheduler where everything happens: loads fail, workers die, manifests and budgets change."""

from __future__ import annotations

import copy
import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.errors import EngineFailed, MullamaError, Refused
from mullama.runtime.scheduler import events as ev
from mullama.runtime.scheduler.decide import decide
from mullama.runtime.scheduler.events import FOREVER, GroupBound, Rules, Serve, UnitKey
from mullama.runtime.scheduler.room import Taken, used
from mullama.runtime.scheduler.state import State
from mullama.struct import replace

_NAMES = tuple(f"m{number}" for number in range(6))
_ACTIONS = 40
_CALM, _CALM_TICKS = 3000.0, 4000  # seconds after the storm, and ticks in them
_LEFT = EngineFailed("the client left")


def _sizes(unit: UnitKey) -> dict[str, Any]:
    """The memory of a unit: half of it is on a device for every second number."""
    weights, context = int(unit.weights[1:]), int(unit.context[1:])
    return {
        "weights_bytes": 10 * weights + 10,
        "context_bytes": 3 * context + 1,
        "weights_on": {"gpu": 5 * weights + 5} if weights % 2 else {},
        "context_on": {"gpu": context + 1} if weights % 2 else {},
    }


class Storm:
    """A pool with its clients, all at random from a seed. The laws are checked after every event.

    The commands take time, as those of a pool do: loads, opens and closes end later, or fail, or their worker dies.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.state, self.now, self.tick = State(), 100.0, FOREVER
        self.ids, self.order = count(1), count()
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.asked: set[int] = set()
        self.granted: dict[int, UnitKey] = {}
        self.refused: dict[int, MullamaError] = {}
        self.live: set[int] = set()
        self.starts: dict[str, int] = {}
        self.workers: dict[str, int] = {}
        self.pins: set[UnitKey] = set()
        self.ticks, self.calm = 0, False
        self.feed(ev.Swap(models=self.models(), rules=self.rules()))

    # What is at random

    def models(self) -> dict[str, Serve]:
        r = self.random
        found: dict[str, Serve] = {}
        for _ in range(r.randint(1, 5)):
            unit = UnitKey(f"w{r.randint(0, 3)}", f"c{r.randint(0, 2)}")
            load, name = r.choice(["start", "room", "demand"]), r.choice(_NAMES)
            found[name] = Serve(
                name=name, unit=unit, **_sizes(unit), parallel=r.randint(1, 3), queue=r.randint(1, 6),
                queue_timeout=r.choice([5.0, 30.0, 300.0]), load_timeout=r.choice([5.0, 60.0]),
                ttl=FOREVER if load == "room" else r.choice([0.0, 5.0, 60.0, FOREVER]),
                priority=r.choice([0, 0, 0, 1, -1]), at_start=load == "start", when_room=load == "room",
                drain_timeout=r.choice([1.0, 20.0]),
            )  # fmt: skip
        return found

    def rules(self) -> Rules:
        r = self.random
        bound = GroupBound(name="g", models=frozenset(r.sample(_NAMES, 3)), most=r.randint(1, 2))
        places = {"gpu": r.choice([10, 20, 40])} if r.random() < 0.3 else {}
        return Rules(
            concurrency=r.choice([1, 2, 64]), queue=r.choice([3, 256]), budget=r.choice([None, 20, 45, 60, 100]),
            places=places | ({"": r.choice([30, 60, 100])} if r.random() < 0.3 else {}),
            groups=(bound,) if r.random() < 0.4 else (),
        )  # fmt: skip

    def act(self) -> None:
        r, state, roll = self.random, self.state, self.random.random()
        if roll < 0.06 and self.workers:
            self.kill(r.choice(list(self.workers)))
        elif roll < 0.12:
            self.reload()
        elif roll < 0.14 and state.units:
            unit = r.choice(list(state.units))
            self.pins.discard(unit)
            self.feed(ev.Unpin(unit=unit))
        elif roll < 0.17 and state.paused:
            for model in sorted(state.paused):
                self.feed(ev.Resume(model=model))
        elif not state.models:
            return
        elif roll < 0.22:
            serve = r.choice(list(state.models.values()))
            unit = r.choice([serve.unit, UnitKey(serve.unit.weights, "c3"), UnitKey("w4", "c0")])
            self.pins.add(unit)
            self.feed(ev.Pin(serve=replace(serve, unit=unit, **_sizes(unit))))
        elif roll < 0.24:
            for serve in state.users[r.choice(list(state.models.values())).unit]:  # the reconciler pauses all or none
                self.feed(ev.Pause(model=serve.name))
        elif roll < 0.28:
            self.feed(ev.SetTtl(model=r.choice(list(state.models)), seconds=r.choice([None, 0.0, 5.0, FOREVER]),
                                forced=r.random() < 0.2, ends_load=r.random() < 0.3))  # fmt: skip
        elif roll < 0.3:
            self.feed(ev.Retry(model=r.choice(list(state.models))))
        else:
            self.request(r.choice(list(state.models)))

    def reload(self) -> None:
        """Change the models, the rules, or the name of one model."""
        r, models, moved = self.random, dict(self.state.models), {}
        if r.random() < 0.5:
            models = self.models()
        if models and r.random() < 0.3:
            old, new = r.choice(list(models)), f"n{next(self.order)}"
            models[new], moved = replace(models.pop(old), name=new), {old: new}
        rules = self.rules() if r.random() < 0.5 else self.state.rules
        self.pins -= {serve.unit for serve in models.values()}
        self.feed(ev.Swap(models=models, rules=rules, moved=moved))

    def request(self, model: str) -> None:
        r, id = self.random, next(self.ids)
        self.asked.add(id)
        priority, alone, falls_back = r.choice([0, 0, 1]), r.random() < 0.05, r.random() < 0.3
        self.feed(ev.Request(id=id, model=model, priority=priority, alone=alone, falls_back=falls_back))
        if r.random() < 0.1:
            self.put(r.uniform(0, 20), lambda: self.leave(id))

    def leave(self, id: int) -> None:
        if id not in self.refused and (id in self.live or id not in self.granted):
            if id not in self.granted:
                self.refused[id] = _LEFT
            self.live.discard(id)
            self.feed(ev.Leave(id=id))

    def kill(self, weights: str) -> None:
        del self.workers[weights]
        for id in [id for id in self.live if self.granted[id].weights == weights]:
            self.put(0.001, lambda id=id: self.leave(id))  # type: ignore[misc]
        self.feed(
            ev.WorkerLost(
                weights=weights,
                error=EngineFailed("died"),
                excused=self.random.random() < 0.5,
                away=self.random.random() < 0.2,
            )
        )

    # What a pool does

    def put(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + delay, next(self.order), action))

    def feed(self, event: ev.Event) -> None:
        whole = copy.deepcopy(self.state)
        whole.due = -FOREVER
        commands = decide(self.state, event, self.now)
        every = _effects(decide(whole, event, self.now))
        # A request to an idle unit that yields may end the yielding, which is looked at again after the next event.
        yielding = any(unit.yielding for unit in self.state.units.values())
        assert yielding or _effects(commands) == every, f"{event} leaves out {every - _effects(commands)}"
        if any(isinstance(command, ev.StartWorker | ev.OpenUnit) for command in commands):
            memory = Taken(self.state).memory
            assert used(self.state) <= memory.total <= (self.state.rules.budget or FOREVER)
            for place, bound in self.state.rules.places.items():
                opened = [c.unit for c in commands if isinstance(c, ev.OpenUnit)]
                takes = sum(self.state.units[unit].on.get(place, 0) for unit in opened)
                assert not takes or memory.places[place] <= bound
        for command in commands:
            self.obey(command)
        assert set(self.state.running) == self.live
        assert sum(self.state.places.values()) == len(self.live)
        assert not any(waiting.id in self.granted or waiting.id in self.refused for waiting in self.state.waiting)

    def obey(self, command: ev.Command) -> None:
        r = self.random
        match command:
            case ev.StartWorker(weights=weights):
                assert weights not in self.starts
                start = self.starts[weights] = next(self.order)
                luck = 0.0 if self.calm else r.random()
                self.put(r.uniform(0.1, 8), lambda: self.started(weights, start, luck))
            case ev.StopWorker(weights=weights):
                self.starts.pop(weights, None)
                self.workers.pop(weights, None)
                self.put(r.uniform(0, 2), lambda: self.feed(ev.WorkerStopped(weights=weights)))
            case ev.OpenUnit(unit=unit):
                worker, luck = self.workers[unit.weights], 0.0 if self.calm else r.random()
                self.put(r.uniform(0, 2), lambda: self.opened(unit, worker, luck))
            case ev.CloseUnit(unit=unit):
                assert not [id for id in self.live if self.granted[id] == unit], "closed under a request"
                self.put(r.uniform(0, 1), lambda: self.feed(ev.UnitClosed(unit=unit)))
            case ev.Grant(id=id, unit=unit):
                assert id not in self.granted
                assert id not in self.refused
                self.granted[id] = unit
                self.live.add(id)
                self.put(r.uniform(0.01, 6), lambda: self.leave(id))
            case ev.Refuse(id=id, error=error):
                assert id not in self.granted
                assert id not in self.refused
                self.refused[id] = error
                self.put(0, lambda: self.feed(ev.Leave(id=id)))
            case ev.Cancel(id=id):
                self.put(0.01, lambda: self.leave(id))
            case ev.Settled(unit=unit):
                self.pins.remove(unit)
            case ev.WakeAt(when=when):
                assert when > self.now
                self.tick = when

    def started(self, weights: str, start: int, luck: float) -> None:
        if self.starts.get(weights) != start:
            return
        del self.starts[weights]
        if luck > 0.85:
            error = EngineFailed("no load")
            self.feed(
                ev.WorkerLost(weights=weights, error=error, permanent=luck > 0.98, excused=luck < 0.9, away=luck < 0.88)
            )
        else:
            self.workers[weights] = start
            self.feed(ev.WorkerReady(weights=weights))

    def opened(self, unit: UnitKey, worker: int, luck: float) -> None:
        if self.workers.get(unit.weights) == worker:
            failed = ev.UnitFailed(unit=unit, error=Refused("no context"))
            self.feed(failed if luck > 0.95 else ev.UnitOpened(unit=unit))

    def until(self, end: float) -> None:
        while True:
            first = self.agenda[0][0] if self.agenda else FOREVER
            if min(first, self.tick) > end:
                self.now = end
                return
            if self.tick < first:
                self.now, self.tick, self.ticks = self.tick, FOREVER, self.ticks + 1
                self.feed(ev.Tick())
            else:
                self.now, _, action = heapq.heappop(self.agenda)
                action()

    def run(self) -> None:
        """A storm, then a time in which nothing fails, then the end of all models."""
        for _ in range(_ACTIONS):
            self.until(self.now + self.random.choice([0.001, 0.01, 0.5, 3, 20]))
            self.act()
        self.calm = True
        for model in tuple(self.state.paused):
            self.feed(ev.Resume(model=model))
        before = self.ticks
        self.until(self.now + _CALM)
        assert self.ticks - before < _CALM_TICKS, "no busy waiting"
        assert not self.pins, "every pin settles"
        assert self.asked == {*self.granted, *self.refused}, "every request is granted or refused"
        for unit in [key for key, unit in self.state.units.items() if unit.pinned]:
            self.feed(ev.Unpin(unit=unit))
        self.feed(ev.Swap(models={}, rules=Rules()))
        self.until(self.now + _CALM)
        state = self.state
        left = (state.units, state.workers, state.running, state.places, state.alone_until, list(state.waiting))
        assert not any(left), "nothing is left"


def _effects(commands: tuple[ev.Command, ...]) -> Counter[str]:
    return Counter(repr(command) for command in commands if not isinstance(command, ev.WakeAt))


@settings(deadline=None, max_examples=settings().max_examples // 4)
@given(st.integers(0, 2**32))
def test_bounds_hold_every_request_and_pin_ends_and_nothing_is_left(seed: int) -> None:
    Storm(seed).run()
