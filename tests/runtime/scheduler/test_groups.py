"""Groups, models that are loaded when there is room, and the turns that contending models take."""

from __future__ import annotations

import copy
import heapq
from itertools import count

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mullama.errors import EngineFailed, Refused
from mullama.runtime.scheduler import events as ev
from mullama.runtime.scheduler.decide import decide
from mullama.runtime.scheduler.events import FOREVER, GroupBound, Rules, Serve, UnitKey
from mullama.runtime.scheduler.eviction import LEAST_IDLE, LEAST_STAY
from mullama.runtime.scheduler.room import used
from mullama.runtime.scheduler.state import Phase, State
from tests.runtime.scheduler.test_decide import World

A, B, C = (UnitKey(f"w{name}", "c1") for name in "abc")


def serve(name: str, unit: UnitKey, **more: object) -> Serve:
    defaults = {"at_start": False, "ttl": 300.0, "weights_bytes": 10, "queue_timeout": 1e6, **more}
    return Serve(name=name, unit=unit, **defaults)  # type: ignore[arg-type]


def group(*models: str, most: int = 1) -> Rules:
    return Rules(groups=(GroupBound(name="g", models=frozenset(models), most=most),))


def ask(world: World, id: int, model: str) -> None:
    world.feed(ev.Request(id=id, model=model))


def phases(world: World, *units: UnitKey) -> list[str]:
    return [world.phase(unit).value for unit in units]


def test_a_model_of_a_group_replaces_an_idle_one_and_others_stay() -> None:
    world = World(serve("a", A), serve("b", B), serve("c", C, at_start=True), rules=group("a", "b"))
    ask(world, 1, "a")
    ask(world, 2, "b")
    assert phases(world, A, B, C) == ["ready", "cold", "ready"]

    world.feed(ev.Leave(id=1))

    assert phases(world, A, B, C) == ["cold", "ready", "ready"]
    assert ev.Evicted(models="a", reason="to make room for b") in world.log


def test_a_model_of_a_group_replaces_one_that_loads_at_start() -> None:
    world = World(serve("a", A, at_start=True, ttl=FOREVER), serve("b", B), rules=group("a", "b"))
    ask(world, 1, "b")
    assert phases(world, A, B) == ["cold", "ready"]
    world.feed(ev.Leave(id=1))
    assert phases(world, A, B) == ["cold", "ready"], "it comes back with its next request only"
    ask(world, 2, "a")
    assert phases(world, A, B) == ["ready", "cold"]


def test_a_higher_priority_keeps_its_place_in_a_group() -> None:
    world = World(serve("a", A, priority=1), serve("b", B), rules=group("a", "b"))
    ask(world, 1, "a")
    world.feed(ev.Leave(id=1))
    ask(world, 2, "b")
    (refusal,) = (c for c in world.of(ev.Refuse))
    assert isinstance(refusal, ev.Refuse)
    assert isinstance(refusal.error, Refused)
    assert "the group g loads 1 of its models at a time" in refusal.error.message


def test_the_old_and_the_new_unit_of_one_model_have_one_place() -> None:
    world = World(serve("a", A, at_start=True), rules=group("a", "b"))
    world.feed(ev.Pin(serve=serve("a", B)))
    assert phases(world, A, B) == ["ready", "ready"]
    world.swap(serve("a", B), rules=group("a", "b"))
    assert phases(world, A, B) == ["cold", "ready"]


def test_a_busy_model_yields_after_its_turn() -> None:
    world = World(serve("a", A, parallel=2), serve("b", B), rules=group("a", "b"))
    ask(world, 1, "a")
    ask(world, 2, "b")
    ask(world, 3, "a")
    assert list(world.state.running) == [1, 3], "it has its turn"

    world.now += LEAST_STAY
    world.feed(ev.Tick())
    world.feed(ev.Leave(id=1))
    ask(world, 4, "a")
    assert list(world.state.running) == [3], "it gets no further requests"
    world.feed(ev.Leave(id=3))

    assert phases(world, A, B) == ["cold", "ready"]
    assert list(world.state.running) == [2]
    world.now += LEAST_STAY
    world.feed(ev.Leave(id=2))
    assert list(world.state.running) == [4]


def test_two_models_that_replaced_each_other_do_so_no_more_than_once_in_a_turn() -> None:
    world = World(serve("a", A), serve("b", B), rules=group("a", "b"))
    for id, model in enumerate("aba"):
        ask(world, id, model)
        world.feed(ev.Leave(id=id))
    assert phases(world, A, B) == ["ready", "cold"]

    ask(world, 10, "b")
    assert phases(world, A, B) == ["ready", "cold"], "a was closed for b a moment ago"
    wake = world.of(ev.WakeAt)[-1]
    assert wake == ev.WakeAt(when=world.now + LEAST_IDLE)
    world.now += LEAST_IDLE
    world.feed(ev.Tick())
    assert phases(world, A, B) == ["cold", "ready"]


def when_room(name: str, unit: UnitKey) -> Serve:
    return serve(name, unit, when_room=True, ttl=FOREVER)


def test_a_model_for_when_there_is_room_goes_first_and_comes_back() -> None:
    small, big = when_room("small", A), serve("big", B, weights_bytes=15, priority=-5, ttl=60.0)
    world = World(small, big, rules=Rules(budget=20))
    assert phases(world, A, B) == ["ready", "cold"]

    ask(world, 1, "big")
    assert phases(world, A, B) == ["cold", "ready"], "also for a model of a lower priority"
    world.feed(ev.Leave(id=1))
    assert phases(world, A, B) == ["cold", "ready"]

    world.now += 61
    world.feed(ev.Tick())
    assert phases(world, A, B) == ["ready", "cold"]


def test_a_model_for_when_there_is_room_displaces_nothing_until_it_is_asked() -> None:
    world = World(
        serve("big", B, at_start=True, weights_bytes=15, ttl=1e5), when_room("small", A), rules=Rules(budget=20)
    )
    assert phases(world, A, B) == ["cold", "ready"]
    assert not world.of(ev.Refuse)
    ask(world, 1, "small")
    assert phases(world, A, B) == ["ready", "cold"]


def test_a_model_for_when_there_is_room_that_a_client_unloads_stays_unloaded() -> None:
    world = World(when_room("small", A), rules=Rules(budget=20))
    world.feed(ev.SetTtl(model="small", seconds=0.0, ends_load=True))
    assert phases(world, A) == ["cold"]
    ask(world, 1, "small")
    assert phases(world, A) == ["ready"]


def test_only_the_unit_that_makes_the_room_is_closed() -> None:
    """The least recently used one is too small to matter."""
    small, big, new = serve("small", A, weights_bytes=1), serve("big", B, weights_bytes=9), serve("new", C)
    world = World(small, big, new, rules=Rules(budget=11))
    for id, model in enumerate(("small", "big")):
        ask(world, id, model)
        world.feed(ev.Leave(id=id))
    ask(world, 3, "new")
    assert phases(world, A, B, C) == ["ready", "cold", "ready"]


def test_nothing_more_is_closed_while_a_close_makes_the_room() -> None:
    world = World(serve("a", A), serve("b", B), serve("c", C), rules=Rules(budget=20))
    for id, model in enumerate("ab"):
        ask(world, id, model)
        world.feed(ev.Leave(id=id))
    commands = decide(world.state, ev.Request(id=3, model="c"), world.now)
    assert [c for c in commands if isinstance(c, ev.CloseUnit)] == [ev.CloseUnit(unit=A)]
    assert not [c for c in decide(world.state, ev.Tick(), world.now) if isinstance(c, ev.CloseUnit)]


def test_all_units_whose_room_one_needs_yield_together() -> None:
    """A request to one of them while the others end theirs would keep the unit out for ever."""
    small, big, new = serve("small", A, weights_bytes=1), serve("big", B, weights_bytes=9), serve("new", C)
    world = World(small, big, new, rules=Rules(budget=10))
    for id, model in enumerate(("small", "big", "new")):
        ask(world, id, model)
    world.now += LEAST_STAY
    world.feed(ev.Tick())
    world.feed(ev.Leave(id=0))
    ask(world, 3, "small")
    assert list(world.state.running) == [1]
    world.feed(ev.Leave(id=1))
    assert list(world.state.running) == [2]


def test_a_unit_of_the_reconciler_is_woken_for_as_one_of_a_request() -> None:
    world = World(serve("a", A), serve("b", B), rules=Rules(budget=10))
    ask(world, 1, "a")
    opened = world.now
    world.now += 1
    world.feed(ev.Pin(serve=serve("c", C)))
    assert world.of(ev.WakeAt)[-1] == ev.WakeAt(when=opened + LEAST_STAY)
    world.now = opened + LEAST_STAY
    world.feed(ev.Tick(), ev.Leave(id=1))
    assert phases(world, A, C) == ["cold", "ready"]


def test_all_idle_units_in_the_way_are_closed_at_once() -> None:
    small, big, new = serve("small", A, weights_bytes=4), serve("big", B, weights_bytes=6), serve("new", C)
    world = World(small, big, new, rules=Rules(budget=10))
    for id, model in enumerate(("small", "big")):
        ask(world, id, model)
        world.feed(ev.Leave(id=id))
    commands = decide(world.state, ev.Request(id=3, model="new"), world.now)
    assert [c.unit for c in commands if isinstance(c, ev.CloseUnit)] == [A, B]


def test_the_memory_of_a_context_is_kept_free_while_its_weights_load() -> None:
    world = World(serve("a", A, context_bytes=5), serve("b", B), rules=Rules(budget=20), obey=False)
    ask(world, 1, "a")
    ask(world, 2, "b")
    assert world.of(ev.StartWorker) == [ev.StartWorker(weights="wa")]
    world.feed(ev.WorkerReady(weights="wa"))
    assert world.of(ev.OpenUnit) == [ev.OpenUnit(unit=A)]


def test_workers_that_wait_for_memory_of_each_other_stop() -> None:
    """Both were started under a larger budget, and under the new one neither has room for its context."""
    models = [serve(name, unit, context_bytes=5) for name, unit in (("a", A), ("b", B))]
    world = World(*models, rules=Rules(budget=30), obey=False)
    ask(world, 1, "a")
    ask(world, 2, "b")
    world.swap(*models, rules=Rules(budget=25))
    assert ev.StopWorker(weights="wa") in world.feed(ev.WorkerReady(weights="wa"))
    opened = world.feed(ev.WorkerStopped(weights="wa"), ev.WorkerReady(weights="wb"))
    assert [c for c in opened if isinstance(c, ev.OpenUnit)] == [ev.OpenUnit(unit=B)]


def test_a_unit_that_was_open_and_does_not_fit_any_more_blocks_no_other() -> None:
    world = World(serve("a", A), serve("b", B), rules=Rules(budget=20))
    large = serve("c", C, weights_bytes=20)
    world.feed(ev.Pin(serve=large))
    world.swap(serve("a", A), serve("b", B), rules=Rules(budget=10))
    world.feed(ev.WorkerLost(weights="wc", error=EngineFailed("died")))
    world.now += 1
    world.feed(ev.Tick(), ev.Pin(serve=serve("b", B)))
    assert [(c.unit, c.error) for c in world.of(ev.Settled) if isinstance(c, ev.Settled)] == [(C, None), (B, None)]


class Clients:
    """Closed-loop clients: each sends its next request as soon as the last one is answered. Loads take time.

    The bounds are checked after every event.
    """

    def __init__(self, models: list[Serve], rules: Rules, clients: list[str], load: float, answer: float) -> None:
        self.state, self.now, self.load, self.answer = State(), 0.0, load, answer
        self.ids, self.order = count(1), count()
        self.client: dict[int, str] = {}
        self.sent: dict[int, float] = {}
        self.waits: list[float] = []
        self.served: dict[str, int] = {}
        self.opened = 0
        self.tick = FOREVER
        self.compares = False
        self.agenda: list[tuple[float, int, ev.Event]] = []
        self.rules = rules
        self.put(0.0, ev.Swap(models={m.name: m for m in models}, rules=rules))
        for model in clients:
            self.send(model)

    def put(self, when: float, event: ev.Event) -> None:
        heapq.heappush(self.agenda, (when, next(self.order), event))

    def send(self, model: str) -> None:
        id = next(self.ids)
        self.client[id], self.sent[id] = model, self.now
        self.put(self.now + 0.001, ev.Request(id=id, model=model))

    def run(self, seconds: float) -> None:
        while True:
            first = self.agenda[0][0] if self.agenda else FOREVER
            if min(first, self.tick) > seconds:
                return
            if self.tick < first:
                self.now, event = self.tick, ev.Tick()
                self.tick = FOREVER
            else:
                self.now, _, event = heapq.heappop(self.agenda)
            other = copy.deepcopy(self.state) if self.compares else None
            commands = decide(self.state, event, self.now)
            if other is not None:
                other.due = -FOREVER
                assert _effects(commands) == _effects(decide(other, event, self.now)), event
            for command in commands:
                self.obey(command)
            if isinstance(event, ev.Leave):
                self.send(self.client[event.id])
            self.check()

    def obey(self, command: ev.Command) -> None:
        match command:
            case ev.StartWorker(weights=weights):
                self.put(self.now + self.load, ev.WorkerReady(weights=weights))
            case ev.OpenUnit(unit=unit):
                self.opened += 1
                self.put(self.now + 0.01, ev.UnitOpened(unit=unit))
            case ev.CloseUnit(unit=unit):
                self.put(self.now + 0.01, ev.UnitClosed(unit=unit))
            case ev.StopWorker(weights=weights):
                self.put(self.now + 0.01, ev.WorkerStopped(weights=weights))
            case ev.Grant(id=id):
                self.waits.append(self.now - self.sent.pop(id))
                self.served[self.client[id]] = self.served.get(self.client[id], 0) + 1
                self.put(self.now + self.answer, ev.Leave(id=id))
            case ev.WakeAt(when=when):
                self.tick = when  # it replaces the one before, as in the pool
            case ev.Refuse(error=error):
                raise error

    def check(self) -> None:
        if self.rules.budget is not None:
            assert used(self.state) <= self.rules.budget
        loaded = {name for u in self.state.units.values() if u.phase is not Phase.COLD for name in u.names}
        for bound in self.rules.groups:
            assert len(loaded & bound.models) <= bound.most


def _effects(commands: tuple[ev.Command, ...]) -> list[ev.Command]:
    return [command for command in commands if not isinstance(command, ev.WakeAt)]


@pytest.mark.parametrize("rules", [group(*"abc", most=2), Rules(budget=10), Rules(budget=25, concurrency=2)])
def test_an_event_for_which_passes_are_left_out_has_the_same_effects(rules: Rules) -> None:
    models = [serve(name, unit, parallel=3) for name, unit in zip("abc", (A, B, C), strict=True)]
    world = Clients(models, rules, ["a", "a", "a", "a", "b", "b", "c"], load=5.0, answer=4.0)
    world.compares = True
    world.run(60.0)
    assert sum(world.served.values()) > 20


@pytest.mark.parametrize("answer", [1.0, 25.0])
@pytest.mark.parametrize(
    "rules", [group("a", "b", "c"), Rules(budget=10), Rules(budget=25), group("a", "b", "c", most=2)]
)
def test_contending_models_take_turns_and_none_starves(rules: Rules, answer: float) -> None:
    models = [serve(name, unit, parallel=2) for name, unit in zip("abc", (A, B, C), strict=True)]
    world = Clients(models, rules, ["a", "a", "a", "b", "b", "c"], load=5.0, answer=answer)
    world.run(200.0)

    turn = max(LEAST_STAY, LEAST_STAY + answer) + 5.1  # a turn, its last answer, and the load of the next model
    assert max([*world.waits, *(world.now - sent for sent in world.sent.values())]) <= 3 * turn + 2 * answer
    assert set(world.served) == {"a", "b", "c"}
    assert world.opened <= 200.0 / LEAST_STAY * 2 + 3


sizes = st.integers(1, 10)


@settings(max_examples=settings().max_examples * 3 // 10)
@example([(1, False, 1), (2, False, 1), (9, False, 1)], 10, 1, 2.0)  # the second needs the place of both others
@given(
    st.lists(st.tuples(sizes, st.booleans(), st.integers(1, 3)), min_size=2, max_size=6),
    st.integers(10, 30),
    st.integers(1, 3),
    st.floats(2.0, 8.0),
)
def test_no_model_of_equal_rank_starves_and_the_bounds_hold(
    made: list[tuple[int, bool, int]], budget: int, most: int, answer: float
) -> None:
    names = [f"m{n}" for n in range(len(made))]
    models = [
        serve(name, UnitKey(f"w{name}", "c"), weights_bytes=size, parallel=parallel, when_room=room,
              ttl=FOREVER if room else 60.0)
        for name, (size, room, parallel) in zip(names, made, strict=True)
    ]  # fmt: skip
    bound = GroupBound(name="g", models=frozenset(names[: len(names) // 2 + 1]), most=most)
    world = Clients(models, Rules(budget=budget, groups=(bound,)), names, load=2.0, answer=answer)
    world.run(150.0)
    turns = len(names) * (LEAST_STAY + answer + 2.2) * 2
    assert max([*world.waits, *(world.now - sent for sent in world.sent.values())], default=0.0) <= turns
    assert set(world.served) == set(names)
