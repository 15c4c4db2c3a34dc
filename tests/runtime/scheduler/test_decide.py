"""The scheduler with values alone: admission, loading and eviction."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullama.errors import (
    BadWeights,
    Busy,
    EngineFailed,
    Kind,
    MullamaError,
    NotFound,
    Refused,
    TimedOut,
    TransferFailed,
    Unavailable,
)
from mullama.runtime.scheduler import events as ev
from mullama.runtime.scheduler import eviction, passes
from mullama.runtime.scheduler.decide import CRASH_LIMIT, decide
from mullama.runtime.scheduler.events import FOREVER, Rules, Serve, UnitKey
from mullama.runtime.scheduler.room import Taken, over_budget
from mullama.runtime.scheduler.state import Phase, State, failure
from mullama.runtime.scheduler.wants import RESTARTING, unit_ttl
from mullama.struct import replace

A, B = UnitKey("wa", "c1"), UnitKey("wb", "c1")


def serve(name: str, unit: UnitKey = A, **more: object) -> Serve:
    return replace(Serve(name=name, unit=unit), **more)  # type: ignore[arg-type]


NO_RULES = Rules()
ONE_AT_A_TIME = ev.GroupBound(name="g", models=frozenset("ab"), most=1)


class World:
    """A pool that performs every command at once and records it."""

    def __init__(self, *models: Serve, rules: Rules = NO_RULES, obey: bool = True) -> None:
        self.state, self.now, self.obey = State(), 100.0, obey
        self.log: list[ev.Command] = []
        self.swap(*models, rules=rules)

    def swap(self, *models: Serve, rules: Rules = NO_RULES) -> None:
        self.feed(ev.Swap(models={m.name: m for m in models}, rules=rules))

    def feed(self, *events: ev.Event) -> list[ev.Command]:
        begun = len(self.log)
        for event in events:
            todo = [event]
            while todo:
                commands = decide(self.state, todo.pop(0), self.now)
                self._check_index()
                self.log += commands
                if self.obey:
                    todo += [answer for command in commands for answer in _answers(command)]
        return self.log[begun:]

    def _check_index(self) -> None:
        """What is open, and whose turn it is, is what the units and the queue say."""
        state, cold = self.state, Phase.COLD
        assert state.live_units.keys() == {key for key, unit in state.units.items() if unit.phase is not cold}
        assert state.live_workers.keys() == {key for key, worker in state.workers.items() if worker.phase is not cold}
        asked = {state.models[name].unit for name in state.waiting.models if name not in state.paused}
        assert state.turn_of.keys() == {key for key in asked if key not in state.live_units} or state.waiting.changed

    def of(self, kind: type) -> list[ev.Command]:
        return [command for command in self.log if isinstance(command, kind)]

    def phase(self, unit: UnitKey) -> Phase:
        return self.state.units[unit].phase if unit in self.state.units else Phase.COLD


def _answers(command: ev.Command) -> Iterable[ev.Event]:
    match command:
        case ev.StartWorker(weights=weights):
            yield ev.WorkerReady(weights=weights)
        case ev.OpenUnit(unit=unit):
            yield ev.UnitOpened(unit=unit)
        case ev.CloseUnit(unit=unit):
            yield ev.UnitClosed(unit=unit)
        case ev.StopWorker(weights=weights):
            yield ev.WorkerStopped(weights=weights)


def test_a_model_that_loads_at_start_is_opened_by_the_swap() -> None:
    world = World(serve("a"))

    assert world.phase(A) is Phase.READY


def test_a_model_on_demand_is_opened_by_its_first_request_and_closed_after_its_ttl() -> None:
    world = World(serve("a", at_start=False, ttl=60.0))
    assert world.phase(A) is Phase.COLD

    commands = world.feed(ev.Request(id=1, model="a"))
    assert ev.Grant(id=1, unit=A) in commands
    world.feed(ev.Leave(id=1))

    world.now += 59
    world.feed(ev.Tick())
    assert world.phase(A) is Phase.READY
    world.now += 2
    world.feed(ev.Tick())
    assert world.phase(A) is Phase.COLD
    assert world.of(ev.StopWorker) == [ev.StopWorker(weights="wa")]


def test_two_models_over_the_same_unit_load_it_once() -> None:
    world = World(serve("a"), serve("b"))

    assert len(world.of(ev.StartWorker)) == 1
    assert len(world.of(ev.OpenUnit)) == 1


def test_two_contexts_over_the_same_weights_share_one_worker() -> None:
    world = World(serve("a"), serve("long", UnitKey("wa", "c2")))

    assert len(world.of(ev.StartWorker)) == 1
    assert len(world.of(ev.OpenUnit)) == 2


def test_requests_beyond_parallel_wait_in_order_and_priority_goes_first() -> None:
    world = World(serve("a", parallel=1))
    world.feed(ev.Request(id=1, model="a"), ev.Request(id=2, model="a"), ev.Request(id=3, model="a", priority=5))

    world.feed(ev.Leave(id=1))
    world.feed(ev.Leave(id=3))

    assert [c.id for c in world.of(ev.Grant)] == [1, 3, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(("queue", "waiting", "refused"), [(0, 1, True), (1, 1, False), (1, 2, True)])
def test_a_full_queue_refuses_with_a_time_to_retry(queue: int, waiting: int, refused: bool) -> None:
    world = World(serve("a", parallel=1, queue=queue))
    world.feed(ev.Request(id=1, model="a"))
    for number in range(waiting):
        world.feed(ev.Request(id=10 + number, model="a"))

    errors = [c.error for c in world.of(ev.Refuse)]  # type: ignore[union-attr]

    assert bool(errors) is refused
    assert all(isinstance(error, Busy) and error.retry_after >= 1 for error in errors)


def test_a_queued_request_is_refused_at_its_deadline() -> None:
    world = World(serve("a", parallel=1, queue_timeout=30.0))
    world.feed(ev.Request(id=1, model="a"), ev.Request(id=2, model="a"))
    wake = world.of(ev.WakeAt)[-1]
    assert wake == ev.WakeAt(when=130.0)

    world.now = 130.0
    (refusal, *_) = [c for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)]

    assert refusal.id == 2
    assert isinstance(refusal.error, TimedOut)


@pytest.mark.parametrize(("queue_timeout", "load_timeout", "waits"), [(30.0, 600.0, 600.0), (30.0, 2.0, 30.0)])
def test_a_request_waits_for_a_load_for_a_limited_time(queue_timeout: float, load_timeout: float, waits: float) -> None:
    limits = {"queue_timeout": queue_timeout, "load_timeout": load_timeout}
    world = World(serve("a", at_start=False, **limits), obey=False)
    world.feed(ev.Request(id=1, model="a"))

    world.now += waits - 1
    assert not [c for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)]
    world.now += 1
    (refusal,) = [c for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)]
    assert isinstance(refusal.error, Unavailable)
    assert refusal.error.retry_after == 10.0


@pytest.mark.parametrize("unit", [A, UnitKey("wa", "c2")], ids=["the model that loads", "another context"])
def test_a_long_load_takes_no_time_in_the_queue(unit: UnitKey) -> None:
    """After it, a request may wait for a place as long as before: the load is not time in the queue."""
    limits = {"at_start": False, "parallel": 1, "queue_timeout": 30.0}
    world = World(serve("a", **limits), serve("b", unit, **limits), obey=False)
    world.feed(*(ev.Request(id=id, model=name) for id, name in ((0, "a"), (1, "b"), (2, "b"))))
    world.now += 60.0
    world.feed(ev.Request(id=3, model="b"), ev.WorkerReady(weights="wa"))
    world.now += 40.0
    opened = world.feed(*(ev.UnitOpened(unit=key) for key in dict.fromkeys((A, unit))))
    assert [c.id for c in opened if isinstance(c, ev.Grant)] == [0, 1]
    assert not world.of(ev.Refuse)

    world.now += 29.0
    assert not [c for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)]
    assert world.of(ev.WakeAt)[-1] == ev.WakeAt(when=100.0 + 130.0)
    world.now += 1.0
    assert [c.id for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)] == [2, 3]


def test_a_replacement_takes_no_time_in_the_queue() -> None:
    world = World(serve("a"))
    world.feed(ev.Pause(model="a"), ev.Request(id=1, model="a"))
    world.now += 100.0
    assert ev.Grant(id=1, unit=A) in world.feed(ev.Resume(model="a"))


def test_the_time_in_the_queue_is_that_of_all_turns() -> None:
    """A request that waits for the turn of its model waits no longer than one that waits for a place."""
    world = World(
        serve("a", parallel=1), serve("b", B, at_start=False), rules=Rules(groups=(ONE_AT_A_TIME,)), obey=False
    )
    world.feed(ev.WorkerReady(weights="wa"), ev.UnitOpened(unit=A), ev.Request(id=1, model="a"))
    world.feed(ev.Request(id=2, model="b"))
    world.now += 20.0
    world.feed(ev.Tick())  # the turn of `a` is over, and its request still runs
    world.now += 10.0
    (refusal,) = [c for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)]
    assert (refusal.id, type(refusal.error)) == (2, TimedOut)


def test_a_request_waits_for_a_replacement_for_a_limited_time() -> None:
    world = World(serve("a", load_timeout=60.0), obey=False)
    world.feed(ev.Pause(model="a"), ev.Request(id=1, model="a"))
    world.now += 60
    assert [c.id for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)] == [1]


UNLOAD = ev.SetTtl(model="a", seconds=0.0, ends_load=True)
STOP_A = ev.StopWorker(weights="wa")


def opening(*models: Serve, opened: bool = False) -> World:
    """A world whose loads do not end. opened: the worker of A is ready, and its context opens."""
    world = World(*models, obey=False)
    if opened:
        world.feed(ev.WorkerReady(weights="wa"))
    return world


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize(
    ("events", "ends"),
    [
        ([ev.SetTtl(model="a", seconds=0.0)], True),
        ([ev.SetTtl(model="a", seconds=0.0, forced=True)], True),
        ([ev.Request(id=1, model="a"), ev.SetTtl(model="a", seconds=0.0)], False),
        ([ev.Request(id=1, model="a"), ev.SetTtl(model="a", seconds=0.0, forced=True)], True),
        ([ev.Request(id=1, model="a"), UNLOAD], True),
        ([ev.Request(id=1, model="a"), ev.Leave(id=1)], False),
        ([ev.SetTtl(model="a", seconds=60.0)], False),
        ([ev.SetTtl(model="b", seconds=0.0)], False),
        ([ev.Swap(models={}, rules=NO_RULES)], True),
        ([ev.Swap(models={"b": serve("b", B)}, rules=NO_RULES)], True),
        ([ev.Swap(models={"a2": serve("a2", A)}, rules=NO_RULES)], False),
        ([ev.Stop()], False),  # the pool cancels all starts itself
    ],
)
def test_a_load_ends_when_it_is_unloaded_or_no_model_leads_to_it(
    opened: bool, events: list[ev.Event], ends: bool
) -> None:
    world = opening(serve("a"), serve("b", B), opened=opened)
    assert (STOP_A in world.feed(*events)) is ends

    if ends:  # a request loads it again
        world.feed(ev.Swap(models={"a": serve("a", at_start=False)}, rules=NO_RULES))
        world.obey = True
        world.feed(ev.WorkerStopped(weights="wa"))
        assert ev.Grant(id=2, unit=A) in world.feed(ev.Request(id=2, model="a"))


def test_a_load_for_the_reconciler_ends_when_it_lets_go() -> None:
    world = opening()
    world.feed(ev.Pin(serve=serve("a")))
    assert STOP_A in world.feed(ev.Unpin(unit=A))


@pytest.mark.parametrize("served", [(), ("a",)])
def test_a_load_for_the_reconciler_ends_when_a_client_unloads_the_model(served: tuple[str, ...]) -> None:
    world = opening(*map(serve, served))
    world.feed(ev.Pin(serve=serve("a")))
    assert STOP_A not in world.feed(ev.SetTtl(model="a", seconds=0.0))
    commands = world.feed(UNLOAD)
    assert STOP_A in commands
    assert [c.unit for c in commands if isinstance(c, ev.Settled) and c.error is not None] == [A]


def test_a_context_that_opens_beside_another_one_is_left_alone() -> None:
    """Its worker serves, so the worker cannot be stopped for it."""
    world = World(serve("a"))
    world.obey = False
    world.swap(serve("a"), serve("long", UnitKey("wa", "c2")))
    assert STOP_A not in world.feed(ev.SetTtl(model="long", seconds=0.0))


def test_the_old_unit_serves_its_requests_to_the_end_after_a_swap() -> None:
    world = World(serve("a"))
    world.feed(ev.Request(id=1, model="a"))

    world.swap(serve("a", B))
    commands = world.feed(ev.Request(id=2, model="a"))

    assert ev.Grant(id=2, unit=B) in commands
    assert world.phase(A) is Phase.READY
    world.feed(ev.Leave(id=1))
    assert world.phase(A) is Phase.COLD
    assert A not in world.state.units
    assert "wa" not in world.state.workers


def test_a_drain_deadline_cancels_running_requests() -> None:
    world = World(serve("a", drain_timeout=120.0))
    world.feed(ev.Request(id=1, model="a"))
    world.swap(serve("a", B))

    world.now += 121
    assert ev.Cancel(id=1) in world.feed(ev.Tick())


def test_a_pinned_unit_is_opened_before_the_swap_and_settled() -> None:
    world = World(serve("a"))

    commands = world.feed(ev.Pin(serve=serve("a", B)))

    assert ev.Settled(unit=B, error=None) in commands
    assert world.phase(A) is world.phase(B) is Phase.READY


def test_a_pinned_unit_whose_worker_dies_is_settled_with_the_error_and_the_old_one_serves() -> None:
    world = World(serve("a"), obey=True)
    world.obey = False
    world.feed(ev.Pin(serve=serve("a", B)))

    error = EngineFailed("died")
    commands = world.feed(ev.WorkerLost(weights="wb", error=error))

    assert ev.Settled(unit=B, error=error) in commands
    world.obey = True
    assert ev.Grant(id=1, unit=A) in world.feed(ev.Request(id=1, model="a"))
    assert not [c for c in world.feed(ev.Tick()) if isinstance(c, ev.StartWorker)]


def test_an_unpinned_unit_is_closed() -> None:
    world = World(serve("a"))
    world.feed(ev.Pin(serve=serve("a", B)))

    world.feed(ev.Unpin(unit=B))

    assert B not in world.state.units


def test_a_paused_model_closes_its_unit_and_keeps_its_requests_waiting() -> None:
    world = World(serve("a"))

    world.feed(ev.Pause(model="a"))
    commands = world.feed(ev.Request(id=1, model="a"))

    assert world.phase(A) is Phase.COLD
    assert not [c for c in commands if isinstance(c, ev.Grant | ev.Refuse)]
    assert ev.Grant(id=1, unit=A) in world.feed(ev.Resume(model="a"))


def test_a_dead_worker_is_restarted_with_growing_delay_a_limited_number_of_times() -> None:
    world = World(serve("a"))
    starts, delays = len(world.of(ev.StartWorker)), []
    for _ in range(CRASH_LIMIT - 1):
        world.obey = False
        world.feed(ev.WorkerLost(weights="wa", error=EngineFailed("SIGSEGV")))
        delays.append(world.state.workers["wa"].retry_at - world.now)
        world.now = world.state.workers["wa"].retry_at
        world.obey = True
        world.feed(ev.Tick())
        starts += 1
        assert len(world.of(ev.StartWorker)) == starts

    assert delays == [0.5, 1.0, 2.0, 4.0]
    world.feed(ev.WorkerLost(weights="wa", error=EngineFailed("SIGSEGV")))
    world.now += 3600
    world.feed(ev.Tick())
    assert len(world.of(ev.StartWorker)) == starts
    (refusal,) = [c for c in world.feed(ev.Request(id=1, model="a")) if isinstance(c, ev.Refuse)]
    assert isinstance(refusal.error, EngineFailed)


def test_deaths_that_a_request_caused_delay_the_next_start_and_never_end_it() -> None:
    world = World(serve("a"))
    delays = []
    for _ in range(CRASH_LIMIT + 3):
        world.obey = False
        world.feed(ev.WorkerLost(weights="wa", error=EngineFailed("SIGSEGV"), excused=True))
        delays.append(world.state.workers["wa"].retry_at - world.now)
        world.now = world.state.workers["wa"].retry_at
        world.obey = True
        world.feed(ev.Tick())
        assert world.phase(A) is Phase.READY
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def refused(commands: Iterable[ev.Command]) -> dict[int, MullamaError]:
    return {c.id: c.error for c in commands if isinstance(c, ev.Refuse)}


DIED = ev.WorkerLost(weights="wa", error=EngineFailed("SIGSEGV"))


def test_a_request_with_a_fallback_leaves_at_the_first_death_and_the_restarts_continue_without_it() -> None:
    world = World(serve("a", at_start=False, ttl=0.0), obey=False)
    world.feed(ev.SetTtl(model="a", seconds=0.0, forced=True))  # it was unloaded before
    world.feed(ev.Request(id=1, model="a", falls_back=True))
    left = refused(world.feed(DIED))
    assert type(left[1]) is Unavailable
    assert str(left[1]) == "model 'a' cannot be served: SIGSEGV"

    for failures in range(2, CRASH_LIMIT + 1):
        assert [*refused(world.feed(ev.Request(id=10 + failures, model="a", falls_back=True)))] == [10 + failures]
        restart = world.state.workers["wa"].retry_at
        assert world.log[-1] == ev.WakeAt(when=restart)
        world.now = restart
        assert ev.StartWorker(weights="wa") in world.feed(ev.Tick())
        during = world.feed(ev.Request(id=20 + failures, model="a", falls_back=True))
        assert [*refused(during)] == [20 + failures]
        world.feed(DIED)
    (last,) = refused(world.feed(ev.Request(id=30, model="a", falls_back=True))).values()
    assert isinstance(last, EngineFailed)


def test_a_restart_for_requests_that_fell_back_ends_when_it_is_ready_or_nobody_asks() -> None:
    world = World(serve("a", at_start=False, ttl=30.0))
    world.obey = False
    world.feed(ev.Request(id=1, model="a", falls_back=True), ev.Request(id=2, model="a"))
    assert [*refused(world.feed(DIED))] == [1], "a request without a fallback waits"
    world.feed(ev.Leave(id=2))
    world.now, world.obey = world.state.workers["wa"].retry_at, True
    world.feed(ev.Tick())
    assert granted(world.feed(ev.Request(id=3, model="a", falls_back=True))) == [3]
    world.feed(ev.Leave(id=3))
    world.now += 31
    world.feed(ev.Tick())
    assert world.phase(A) is Phase.COLD

    world.obey = False
    world.feed(ev.Request(id=4, model="a", falls_back=True), DIED, ev.SetTtl(model="a", seconds=0.0))
    world.now += 1
    assert ev.StartWorker(weights="wa") not in world.feed(ev.Tick()), "a client unloaded it"
    world.feed(ev.Request(id=5, model="a", falls_back=True))
    assert world.phase(A) is Phase.COLD
    assert world.state.workers["wa"].phase is Phase.OPENING, "and another one asks for it"
    world.feed(DIED)
    world.now += RESTARTING
    assert ev.StartWorker(weights="wa") not in world.feed(ev.Tick())
    assert not world.state.restarting


@pytest.mark.parametrize("phase", [Phase.COLD, Phase.OPENING, Phase.READY])
def test_a_request_with_a_fallback_waits_for_a_model_that_did_not_fail(phase: Phase) -> None:
    world = World(serve("a", at_start=False, parallel=1), obey=phase is Phase.READY)
    if phase is not Phase.COLD:
        world.feed(ev.Request(id=1, model="a"))
    commands = world.feed(ev.Request(id=2, model="a", falls_back=True))
    assert not refused(commands)
    assert world.state.queued("a") == (1 if phase in (Phase.COLD, Phase.READY) else 2)


def granted(commands: Iterable[ev.Command]) -> list[int]:
    return [c.id for c in commands if isinstance(c, ev.Grant)]


def test_a_suspected_request_runs_alone_on_its_worker() -> None:
    long = UnitKey("wa", "c2")
    world = World(serve("a", parallel=4), serve("long", long, parallel=4), serve("b", B, parallel=4))
    assert granted(world.feed(ev.Request(id=1, model="a"))) == [1]

    assert granted(world.feed(ev.Request(id=2, model="a", alone=True))) == [], "it waits until the worker is free"
    assert granted(world.feed(ev.Request(id=3, model="a"), ev.Request(id=4, model="long"))) == [], "later ones wait"
    assert granted(world.feed(ev.Request(id=5, model="b"))) == [5], "another worker is not concerned"
    assert granted(world.feed(ev.Leave(id=1))) == [2]
    assert granted(world.feed(ev.Leave(id=2))) == [3, 4]


def test_suspected_requests_run_one_after_the_other() -> None:
    world = World(serve("a", parallel=4))
    assert granted(world.feed(*(ev.Request(id=n, model="a", alone=True) for n in (1, 2, 3)))) == [1]
    assert granted(world.feed(ev.Leave(id=1))) == [2]
    assert granted(world.feed(ev.Leave(id=2))) == [3]


def test_a_suspected_request_keeps_others_from_its_worker_for_a_limited_time() -> None:
    world = World(serve("a", parallel=4))
    world.feed(ev.Request(id=1, model="a", alone=True))
    assert granted(world.feed(ev.Request(id=2, model="a"))) == []
    assert ev.WakeAt(when=world.now + ev.ALONE_SECONDS) in world.log

    world.now += ev.ALONE_SECONDS
    assert granted(world.feed(ev.Tick())) == [2]


@pytest.mark.parametrize("error", [BadWeights("cut short"), NotFound("cut short"), TransferFailed("cut short")])
def test_requests_to_a_model_with_bad_files_end_with_unavailable(error: MullamaError) -> None:
    world = World(serve("a"), obey=False)
    world.feed(ev.Request(id=1, model="a"))
    commands = world.feed(ev.WorkerLost(weights="wa", error=error, permanent=True))
    commands += world.feed(ev.Request(id=2, model="a"))

    refused = {c.id: (c.error.kind, c.error.message) for c in commands if isinstance(c, ev.Refuse)}
    assert refused == dict.fromkeys((1, 2), (Kind.UNAVAILABLE, "model 'a' cannot be served: cut short"))


def test_a_retry_starts_a_permanently_failed_model_again() -> None:
    world = World(serve("a"), obey=False)
    world.feed(ev.WorkerLost(weights="wa", error=EngineFailed("no"), permanent=True))

    world.obey = True
    world.feed(ev.Retry(model="a"))

    assert world.phase(A) is Phase.READY


def test_a_context_that_fails_to_open_refuses_its_requests_only() -> None:
    world = World(serve("a"), serve("b", UnitKey("wa", "c2"), at_start=False))
    world.obey = False
    world.feed(ev.Request(id=1, model="b"))
    error = Refused("too large")

    commands = world.feed(ev.UnitFailed(unit=UnitKey("wa", "c2"), error=error))

    assert ev.Refuse(id=1, error=error) in commands
    assert ev.Grant(id=2, unit=A) in world.feed(ev.Request(id=2, model="a"))


def test_an_idle_unit_on_demand_is_evicted_for_one_of_equal_rank() -> None:
    both = (serve("a", at_start=False, weights_bytes=60), serve("b", B, at_start=False, weights_bytes=60))
    world = World(*both, rules=Rules(budget=100))
    world.feed(ev.Request(id=1, model="a"), ev.Leave(id=1))

    commands = world.feed(ev.Request(id=2, model="b"))

    assert ev.CloseUnit(unit=A) in commands
    assert ev.Evicted(models="a", reason="to make room for b") in commands
    assert ev.Grant(id=2, unit=B) in commands


def used_once(*models: Serve) -> World:
    """A world in which each model has answered a request, in this order."""
    world = World(*models, rules=Rules(budget=1000))
    for number, model in enumerate(models):
        world.now += 1
        world.feed(ev.Request(id=number, model=model.name), ev.Leave(id=number))
    return world


C = UnitKey("wc", "c")


@pytest.mark.parametrize(
    ("budget", "left"),
    [(200, {A, B, C}), (180, {A, B, C}), (179, {A, C}), (120, {A, C}), (100, {A}), (60, {A}), (10, {A})],
)
def test_a_lowered_budget_unloads_idle_models_on_demand_the_least_recently_used_first(
    budget: int, left: set[UnitKey]
) -> None:
    stays = serve("a", weights_bytes=60)
    models = (stays, serve("b", B, at_start=False, weights_bytes=60), serve("c", C, at_start=False, weights_bytes=60))
    world = used_once(*models)

    world.swap(*models, rules=Rules(budget=budget))

    assert {unit for unit in (A, B, C) if world.phase(unit) is Phase.READY} == left
    reason = "because the budget was lowered"
    gone = [name for name, unit in (("b", B), ("c", C)) if unit not in left]
    assert world.of(ev.Evicted) == [ev.Evicted(models=name, reason=reason) for name in gone]
    assert over_budget(world.state) is (budget < 60)


def test_a_busy_model_is_unloaded_after_its_request_when_the_budget_was_lowered() -> None:
    model = serve("b", B, at_start=False, weights_bytes=60)
    world = used_once(model)
    world.feed(ev.Request(id=9, model="b"))

    world.swap(model, rules=Rules(budget=10))
    assert world.phase(B) is Phase.READY
    assert over_budget(world.state)

    world.feed(ev.Leave(id=9))
    assert world.phase(B) is Phase.COLD
    assert not over_budget(world.state)


def test_a_busy_unit_is_awaited_and_never_evicted() -> None:
    both = (serve("a", at_start=False, weights_bytes=60), serve("b", B, at_start=False, weights_bytes=60))
    world = World(*both, rules=Rules(budget=100))
    world.feed(ev.Request(id=1, model="a"))

    commands = world.feed(ev.Request(id=2, model="b"))
    assert not [c for c in commands if isinstance(c, ev.CloseUnit | ev.Refuse | ev.Grant)]

    assert ev.Grant(id=2, unit=B) in world.feed(ev.Leave(id=1))


def test_a_unit_that_never_fits_is_refused_with_numbers() -> None:
    world = World(serve("a", at_start=False, weights_bytes=200 << 30), rules=Rules(budget=100 << 30))

    (refusal,) = [c for c in world.feed(ev.Request(id=1, model="a")) if isinstance(c, ev.Refuse)]

    assert isinstance(refusal.error, Refused)
    assert "200.00 GiB needed" in refusal.error.message
    assert "100.00 GiB" in refusal.error.message


def test_a_higher_priority_evicts_an_idle_model_that_stays_loaded() -> None:
    low = serve("low", A, weights_bytes=60)
    high = serve("high", B, weights_bytes=60, at_start=False, priority=10)
    world = World(low, high, rules=Rules(budget=100))

    assert ev.Grant(id=1, unit=B) in world.feed(ev.Request(id=1, model="high"))


def on(name: str, unit: UnitKey, **devices: int) -> Serve:
    """A model on demand with weights of 60 bytes, of which these are on devices."""
    return serve(name, unit, at_start=False, weights_bytes=60, weights_on=devices)


TWO_DEVICES = Rules(budget=1000, places={"": 1000, "gpu0": 100, "gpu1": 100})


def test_a_full_device_evicts_a_model_on_it_and_no_other() -> None:
    """The least recently used model is on the other device: to unload it would free nothing that is needed."""
    models = (on("other", A, gpu1=60), on("same", B, gpu0=60), on("new", C, gpu0=60))
    world = World(*models, rules=TWO_DEVICES)
    for number, name in enumerate(("other", "same")):
        world.now += 1
        world.feed(ev.Request(id=number, model=name), ev.Leave(id=number))

    commands = world.feed(ev.Request(id=9, model="new"))

    assert world.of(ev.Evicted) == [ev.Evicted(models="same", reason="to make room for new")]
    assert ev.Grant(id=9, unit=C) in commands
    assert world.phase(A) is Phase.READY


def test_models_on_different_devices_are_loaded_together() -> None:
    world = World(on("a", A, gpu0=60), on("b", B, gpu1=60), rules=TWO_DEVICES)

    world.feed(ev.Request(id=1, model="a"), ev.Request(id=2, model="b"))

    assert (world.phase(A), world.phase(B)) == (Phase.READY, Phase.READY)


def test_a_model_that_no_device_holds_is_refused_with_the_device() -> None:
    large = serve("a", at_start=False, weights_bytes=300 << 30, weights_on={"gpu1": 200 << 30})
    world = World(large, rules=Rules(budget=1000 << 30, places={"": 900 << 30, "gpu1": 100 << 30}))

    (refusal,) = [c for c in world.feed(ev.Request(id=1, model="a")) if isinstance(c, ev.Refuse)]

    assert isinstance(refusal.error, Refused)
    assert "not enough memory on gpu1: 200.00 GiB needed, 0 B of 100.00 GiB in use" in refusal.error.message
    assert "gpu.layers" in refusal.error.hint


def test_a_context_counts_on_its_device() -> None:
    small = serve("a", at_start=False, weights_bytes=50, weights_on={"gpu0": 50}, context_bytes=60)
    world = World(replace(small, context_on={"gpu0": 60}), rules=TWO_DEVICES)
    (refusal,) = [c for c in world.feed(ev.Request(id=1, model="a")) if isinstance(c, ev.Refuse)]
    assert "on gpu0: 110 B needed" in str(refusal.error)

    world = World(replace(small, context_on={"gpu1": 60}), rules=TWO_DEVICES)
    assert ev.Grant(id=1, unit=A) in world.feed(ev.Request(id=1, model="a"))


def test_a_lowered_budget_of_a_device_unloads_models_on_it() -> None:
    models = (on("a", A, gpu0=60), on("b", B, gpu1=60))
    world = World(*models, rules=TWO_DEVICES)
    world.feed(ev.Request(id=1, model="a"), ev.Leave(id=1), ev.Request(id=2, model="b"), ev.Leave(id=2))

    world.swap(*models, rules=replace(TWO_DEVICES, places={"gpu1": 10}))

    assert (world.phase(A), world.phase(B)) == (Phase.READY, Phase.COLD)


def test_a_model_unloaded_by_a_client_stays_unloaded_until_the_next_request() -> None:
    world = World(serve("a"))

    world.feed(ev.SetTtl(model="a", seconds=0.0))
    assert world.phase(A) is Phase.COLD
    world.feed(ev.Tick())
    assert world.phase(A) is Phase.COLD

    assert ev.Grant(id=1, unit=A) in world.feed(ev.Request(id=1, model="a"))


def test_a_request_chooses_the_ttl_of_its_own_model_alone() -> None:
    """`keep_alive` of one name does not unload another one that is declared to stay."""
    world = World(serve("a"), serve("other", A, at_start=False, ttl=5.0))

    for seconds in (0.0, 5.0):
        world.feed(ev.Request(id=int(seconds), model="other"), ev.Leave(id=int(seconds)))
        world.feed(ev.SetTtl(model="other", seconds=seconds))
        world.now += 60
        world.feed(ev.Tick())
        assert world.phase(A) is Phase.READY

    world.feed(ev.SetTtl(model="a", seconds=0.0))
    assert world.phase(A) is Phase.READY
    world.now += 5
    world.feed(ev.Tick())
    assert world.phase(A) is Phase.COLD


def test_an_unload_closes_the_context_of_all_its_models() -> None:
    world = World(serve("a"), serve("other", A, at_start=False, ttl=5.0))

    world.feed(ev.SetTtl(model="other", seconds=0.0, ends_load=True))
    world.feed(ev.Tick())

    assert world.phase(A) is Phase.COLD


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([], 5.0),
        ([ev.SetTtl(model="a", seconds=0.0)], 3.0),
        ([ev.SetTtl(model="b", seconds=60.0)], 60.0),
        ([ev.SetTtl(model="b", seconds=60.0), ev.SetTtl(model="b", seconds=None)], 5.0),
        ([ev.SetTtl(model="b", seconds=60.0), ev.SetTtl(model="a", seconds=1.0, ends_load=True)], 1.0),
    ],
)
def test_a_context_closes_after_the_longest_ttl_of_its_models(events: list[ev.Event], seconds: float) -> None:
    world = World(serve("a", ttl=5.0), serve("b", A, ttl=3.0))
    world.feed(ev.Request(id=1, model="a"), ev.Leave(id=1), *events)

    assert unit_ttl(world.state, A) == seconds
    world.now += seconds - 0.5
    world.feed(ev.Tick())
    assert world.phase(A) is Phase.READY
    world.now += 1
    world.feed(ev.Tick())
    assert world.phase(A) is Phase.COLD


def test_a_forced_unload_cancels_running_requests_and_refuses_waiting_ones() -> None:
    world = World(serve("a", parallel=1), serve("b", B))
    world.feed(ev.Request(id=1, model="a"), ev.Request(id=2, model="a"), ev.Request(id=3, model="b"))

    done = world.feed(ev.SetTtl(model="a", seconds=0.0, forced=True))

    assert ev.Cancel(id=1) in done
    assert [command.id for command in done if isinstance(command, ev.Refuse)] == [2]
    world.feed(ev.Leave(id=1))
    assert world.phase(A) is Phase.COLD
    assert world.phase(B) is Phase.READY


def test_a_client_may_extend_the_declared_ttl() -> None:
    world = World(serve("a", at_start=False, ttl=10.0))
    world.feed(ev.Request(id=1, model="a"), ev.Leave(id=1), ev.SetTtl(model="a", seconds=FOREVER))

    world.now += 10_000
    world.feed(ev.Tick())

    assert world.phase(A) is Phase.READY


def test_a_stop_refuses_new_requests_and_closes_after_the_last_one() -> None:
    world = World(serve("a"))
    world.feed(ev.Request(id=1, model="a"))

    world.feed(ev.Stop())
    (refusal,) = [c for c in world.feed(ev.Request(id=2, model="a")) if isinstance(c, ev.Refuse)]

    assert isinstance(refusal.error, Unavailable)
    assert world.phase(A) is Phase.READY
    world.feed(ev.Leave(id=1))
    assert all(worker.phase is Phase.COLD for worker in world.state.workers.values())


def test_a_model_that_leaves_the_manifest_refuses_its_queue() -> None:
    world = World(serve("a", parallel=1))
    world.feed(ev.Request(id=1, model="a"), ev.Request(id=2, model="a"))

    world.swap()

    assert [c.id for c in world.of(ev.Refuse)] == [2]  # type: ignore[union-attr]


_UNITS = st.sampled_from([A, B, UnitKey("wa", "c2")])
_NAMES = st.sampled_from(["m1", "m2", "m3"])
_SERVES = st.builds(
    Serve,
    name=_NAMES,
    unit=_UNITS,
    parallel=st.integers(1, 3),
    queue=st.integers(0, 3),
    ttl=st.sampled_from([0.0, 5.0, FOREVER]),
    at_start=st.booleans(),
    priority=st.integers(0, 2),
    weights_bytes=st.integers(0, 60),
    context_bytes=st.integers(0, 60),
)
_EVENTS = st.one_of(
    st.builds(ev.Swap, models=st.lists(_SERVES, max_size=3).map(lambda s: {m.name: m for m in s}),
              rules=st.builds(Rules, budget=st.sampled_from([None, 100]), concurrency=st.integers(1, 3))),
    st.builds(ev.Request, id=st.integers(1, 10**9), model=_NAMES, priority=st.integers(0, 1)),
    st.builds(ev.Leave, id=st.integers(0, 3)),
    st.builds(ev.Pin, serve=_SERVES),
    st.builds(ev.Unpin, unit=_UNITS),
    st.builds(ev.Pause, model=_NAMES),
    st.builds(ev.Resume, model=_NAMES),
    st.builds(ev.SetTtl, model=_NAMES, seconds=st.sampled_from([None, 0.0, 5.0, FOREVER])),
    st.builds(ev.WorkerLost, weights=st.sampled_from(["wa", "wb"]), error=st.just(EngineFailed("died")),
              permanent=st.booleans()),
    st.just(ev.Tick()),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(st.tuples(_EVENTS, st.floats(0, 40)), max_size=40))
def test_every_request_ends_once_and_bounds_hold(events: list[tuple[ev.Event, float]]) -> None:
    """Each request gets at most one grant and one refusal; parallel and concurrency are never exceeded."""
    world = World()
    asked: list[int] = []
    for event, pause in events:
        world.now += pause
        if isinstance(event, ev.Request):
            if event.model not in world.state.models or event.id in asked:
                continue
            asked.append(event.id)
        if isinstance(event, ev.Leave):
            running = list(world.state.running)
            if not running:
                continue
            event = ev.Leave(id=running[event.id % len(running)])
        lost = event.weights if isinstance(event, ev.WorkerLost) else None
        cut = [id for id, (_, unit) in world.state.running.items() if unit.weights == lost]
        world.feed(event, *(ev.Leave(id=id) for id in cut))  # what a dead worker was at ends with it

        assert len(world.state.running) <= 3
        for unit in world.state.units.values():
            assert not (unit.leases and unit.phase is Phase.COLD)
    ended = [c.id for c in world.log if isinstance(c, ev.Grant | ev.Refuse)]
    assert len(ended) == len(set(ended))
    world.now += 1e6
    world.feed(ev.Stop())
    assert not world.state.waiting


def test_a_unit_that_never_fits_evicts_no_other() -> None:
    world = World(
        serve("a", A, ttl=60.0, weights_bytes=50),
        serve("b", B, at_start=False, priority=1, weights_bytes=500),
        rules=Rules(budget=100),
    )

    commands = world.feed(ev.Request(id=1, model="b"))

    assert [type(c.error) for c in commands if isinstance(c, ev.Refuse)] == [Refused]
    assert world.phase(A) is Phase.READY


def test_a_model_refused_for_memory_is_tried_when_there_is_room_again() -> None:
    a, b = serve("a", A, weights_bytes=80), serve("b", B, at_start=False, weights_bytes=80)
    world = World(a, b, rules=Rules(budget=100))
    world.feed(ev.Request(id=1, model="b"))
    assert world.phase(B) is Phase.COLD

    world.feed(ev.SetTtl(model="a", seconds=0.0))

    assert ev.Grant(id=2, unit=B) in world.feed(ev.Request(id=2, model="b"))


def test_a_resumed_model_has_no_drain_deadline() -> None:
    world = World(serve("a", drain_timeout=10.0))
    world.feed(ev.Request(id=1, model="a"), ev.Pause(model="a"), ev.Resume(model="a"))

    world.now += 11
    world.feed(ev.Tick())

    assert world.of(ev.Cancel) == []


def test_requests_of_a_paused_model_wait_for_its_replacement() -> None:
    world = World(serve("a", queue_timeout=30.0))
    world.feed(ev.Pause(model="a"), ev.Request(id=1, model="a"))

    world.now += 300
    world.feed(ev.Tick())

    assert world.of(ev.Refuse) == []


def test_a_request_to_a_removed_model_is_refused_and_one_to_a_renamed_model_follows() -> None:
    world = World(serve("old"), serve("gone", B))
    world.feed(ev.Swap(models={"new": serve("new")}, rules=NO_RULES, moved={"old": "new"}))

    assert ev.Grant(id=1, unit=A) in world.feed(ev.Request(id=1, model="old"))
    (refusal,) = [c for c in world.feed(ev.Request(id=2, model="gone")) if isinstance(c, ev.Refuse)]
    assert "removed" in str(refusal.error)


def test_no_request_waits_for_a_host_that_is_away_and_the_starts_continue_without_them() -> None:
    gone = EngineFailed("the RPC host h:1 does not answer", hint="start it")
    lost = ev.WorkerLost(weights="wa", error=gone, excused=True, away=True)
    world = World(serve("a", at_start=False, ttl=0.0), obey=False)
    world.feed(ev.Request(id=1, model="a"))  # waits for the first start
    assert isinstance(refused(world.feed(lost))[1], Unavailable)

    error = refused(world.feed(ev.Request(id=2, model="a")))[2]
    assert (error.message, error.hint) == ("model 'a' cannot be served: the RPC host h:1 does not answer", "start it")
    assert isinstance(error, Unavailable)
    assert not isinstance(error, EngineFailed)  # the service would send the request again
    assert error.retry_after == 1.0
    for _ in range(5):
        world.now = world.state.workers["wa"].retry_at
        world.feed(ev.Tick())
        world.feed(lost)
    error = refused(world.feed(ev.Request(id=3, model="a")))[3]
    assert isinstance(error, Unavailable)
    assert error.retry_after == world.state.workers["wa"].retry_at - world.now == 16.0

    world.obey = True
    world.now = world.state.workers["wa"].retry_at
    assert not refused(world.feed(ev.Request(id=4, model="a")))  # its start is due
    assert world.phase(A) is Phase.READY
    assert not refused(world.feed(ev.Request(id=5, model="a")))


def test_a_host_that_is_away_is_the_reason_until_the_model_serves_again() -> None:
    gone = EngineFailed("the RPC host h:1 does not answer")
    world = World(serve("a"))
    world.obey = False
    for lost, while_it_starts in (({"excused": True, "away": True}, gone), ({}, None)):
        world.feed(ev.WorkerLost(weights="wa", error=gone, **lost))
        assert failure(world.state, "a") is gone
        world.now = world.state.workers["wa"].retry_at
        world.feed(ev.Tick())
        assert world.state.workers["wa"].phase is Phase.OPENING
        assert failure(world.state, "a") is while_it_starts
    world.feed(ev.WorkerReady(weights="wa"))
    assert failure(world.state, "a") is None


def test_a_wait_for_a_worker_that_does_not_start_ends_as_no_death_of_a_worker() -> None:
    """The service sends a request again whose worker died; this one would wait twice as long."""
    world = World(serve("a", queue_timeout=30.0))
    world.obey = False
    world.feed(ev.WorkerLost(weights="wa", error=EngineFailed("the host is gone", hint="start it"), excused=True))
    world.feed(ev.Request(id=1, model="a"))

    world.now += 31
    world.feed(ev.Tick())

    ((refused,),) = [world.of(ev.Refuse)]
    assert isinstance(refused, ev.Refuse)
    error = refused.error
    assert isinstance(error, Unavailable)
    assert not isinstance(error, EngineFailed)
    assert (error.message, error.hint) == ("model 'a' cannot be served: the host is gone", "start it")
    assert error.retry_after is not None


@pytest.mark.parametrize("late", [ev.UnitOpened(unit=A), ev.WorkerReady(weights="wa")])
def test_an_event_from_before_a_death_reopens_nothing(late: ev.Event) -> None:
    world = World(serve("a"))
    world.feed(ev.WorkerLost(weights="wa", error=EngineFailed("died")))

    world.feed(late)

    assert world.phase(A) is Phase.COLD


def test_a_pin_is_settled_when_the_server_stops() -> None:
    world = World(obey=False)
    world.feed(ev.Pin(serve=serve("a")))

    stopped = world.feed(ev.Stop())
    late = world.feed(ev.Pin(serve=serve("b", B)))

    for commands, unit in ((stopped, A), (late, B)):
        (settled,) = [c for c in commands if isinstance(c, ev.Settled)]
        assert settled.unit == unit
        assert isinstance(settled.error, Unavailable)


def test_a_deadline_without_effect_asks_for_no_tick() -> None:
    """A pinned unit past its time to live must not make the event loop spin."""
    world = World()
    world.feed(ev.Pin(serve=serve("a", ttl=1.0)))
    world.now += 100

    assert not [c for c in world.feed(ev.Tick()) if isinstance(c, ev.WakeAt)]


@pytest.mark.parametrize("unit", [None, A], ids=["weights", "adapters"])
def test_a_pin_of_files_that_are_described_again_fails_at_once(unit: UnitKey | None) -> None:
    """Its owner may hold the lock for which the new description waits."""
    world = World(serve("a"), obey=False)
    error = Unavailable("changed")
    if unit is not None:
        world.feed(ev.WorkerReady(weights="wa"))
    world.feed(ev.Pin(serve=serve("a")))

    early = world.feed(ev.FilesChanged(weights="wa", unit=unit, error=error))
    late = world.feed(ev.Pin(serve=serve("a")))

    assert [c for c in (*early, *late) if isinstance(c, ev.Settled)] == [ev.Settled(unit=A, error=error)] * 2
    world.obey = True
    world.feed(ev.UnitFailed(unit=A, error=error) if unit else ev.WorkerStopped(weights="wa"))
    assert ev.Settled(unit=A, error=None) in world.feed(ev.Pin(serve=serve("a")))


def test_requests_wait_as_for_a_load_while_files_are_described_again() -> None:
    world = World(serve("a", at_start=False, queue_timeout=1.0), obey=False)
    world.feed(ev.Request(id=1, model="a"))
    world.feed(ev.FilesChanged(weights="wa", error=Unavailable("changed")))
    world.now += 500.0
    assert not [c for c in world.feed(ev.Tick()) if isinstance(c, ev.Refuse)]

    world.obey = True
    world.swap(serve("a", B, at_start=False))
    world.feed(ev.WorkerStopped(weights="wa"))
    assert ev.Grant(id=1, unit=B) in world.log


def test_the_memory_is_counted_only_for_a_unit_that_is_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting looks at every unit, and a request to a loaded model would pay for it."""
    world = World(serve("a"), serve("b", B, at_start=False), rules=Rules(budget=10))
    counts: list[State] = []

    class Counted(Taken):
        def __init__(self, state: State) -> None:
            counts.append(state)
            super().__init__(state)

    for module in (passes, eviction):
        monkeypatch.setattr(module, "Taken", Counted)
    world.feed(ev.Request(id=1, model="a"), ev.Leave(id=1), ev.Tick())
    assert counts == []
    world.feed(ev.Request(id=2, model="b"))
    assert counts


@pytest.mark.parametrize(
    ("served", "later", "both"),
    [
        ((100, {}), (200, {}), (200, {})),
        ((200, {}), (100, {}), (200, {})),
        ((None, {}), (100, {}), (None, {})),
        ((100, {}), (None, {}), (None, {})),
        ((100, {"": 60, "g": 40}), (110, {"": 50, "g": 60}), (110, {"": 60, "g": 60})),
        ((100, {"": 60}), (130, {"": 60, "g": 70}), (130, {"": 60, "g": 70})),
        ((130, {"": 60, "g": 70}), (60, {"": 60}), (130, {"": 60, "g": 70})),
    ],
)
def test_the_larger_bounds_of_two_rules_hold_between_them(
    served: tuple[int | None, dict[str, int]],
    later: tuple[int | None, dict[str, int]],
    both: tuple[int | None, dict[str, int]],
) -> None:
    before, after, expected = (Rules(queue=7, budget=b, places=p) for b, p in (served, later, both))
    assert before.widened(replace(after, queue=9)) == expected


def test_a_unit_is_prepared_within_the_bounds_of_the_rules_to_come() -> None:
    first, second = serve("a", weights_bytes=60), serve("b", B, weights_bytes=60)
    world = World(first, rules=Rules(budget=100))
    world.feed(ev.Request(id=1, model="a"))  # so that it cannot be unloaded for the other

    world.feed(ev.SetBounds(rules=Rules(budget=200)), ev.Pin(serve=second))

    assert world.phase(A) is world.phase(B) is Phase.READY
