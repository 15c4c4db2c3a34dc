"""Decisions of the scheduler as lines of the log."""

from __future__ import annotations

from mullama.errors import Unavailable
from mullama.runtime.scheduler import events as ev
from mullama.runtime.scheduler.decide import decide
from mullama.runtime.scheduler.events import Rules, Serve, UnitKey
from mullama.runtime.scheduler.state import State
from mullama.runtime.scheduler.wording import describe


def lines(state: State, *events: ev.Event) -> list[str]:
    return [describe(state, event, decide(state, event, 100.0), 100.0) for event in events]


def test_a_decision_names_the_event_its_commands_and_the_models() -> None:
    state, unit = State(), UnitKey("wa", "c1")
    models = {name: Serve(name=name, unit=unit, at_start=False, ttl=60.0) for name in ("chat", "draft")}

    assert lines(
        state,
        ev.Swap(models=models, rules=Rules()),
        ev.Request(id=1, model="chat", priority=3),
        ev.WorkerReady(weights="wa"),
        ev.UnitOpened(unit=unit),
        ev.WorkerLost(weights="wa", error=Unavailable("it died"), excused=True),
    ) == [
        "Swap: nothing (0 running, 0 waiting)",
        "Request id=1 model=chat priority=3: StartWorker weights=chat+draft, "
        "WakeAt in 600.000 s (0 running, 1 waiting)",
        "WorkerReady weights=chat+draft: OpenUnit unit=chat+draft, WakeAt in 600.000 s (0 running, 1 waiting)",
        "UnitOpened unit=chat+draft: Grant id=1 unit=chat+draft (1 running, 0 waiting)",
        "WorkerLost weights=chat+draft error='it died' excused=True: WakeAt in 0.500 s (1 running, 0 waiting)",
    ]
