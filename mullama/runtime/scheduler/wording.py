"""Decisions of the scheduler as text, for the log."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.errors import MullamaError
from mullama.runtime.scheduler.events import Command, Event, Serve, UnitKey, WakeAt
from mullama.runtime.scheduler.state import State
from mullama.struct import field_names


def describe(state: State, event: Event, commands: Iterable[Command], now: float) -> str:
    """Return an event, the commands that it leads to, and the running and waiting requests after it.

    state: after the event. now: monotonic seconds.
    """
    done = ", ".join(_value(state, command, now) for command in commands) or "nothing"
    return f"{_value(state, event, now)}: {done} ({len(state.running)} running, {len(state.waiting)} waiting)"


def _value(state: State, value: Event | Command, now: float) -> str:
    """Return an event or a command with its simple fields; its weights and its unit are named by their models."""
    name = type(value).__name__
    if isinstance(value, WakeAt):
        return f"{name} in {max(0.0, value.when - now):.3f} s"
    shown = ((field, _shown(state, field, getattr(value, field))) for field in field_names(value))
    return " ".join((name, *(f"{field}={text}" for field, text in shown if text)))


def _shown(state: State, field: str, value: object) -> str:
    """Return the text of a field; "" for one that is unset, and for the sets of models of a swap."""
    match value:
        case Serve(name=name):
            return name
        case UnitKey():
            return _names(state, (value,))
        case str() if field == "weights":
            return _names(state, (key for key in state.units if key.weights == value)) or value[:8]
        case MullamaError():
            return repr(value.message)
        case True | int() | float() if value:
            return f"{value:g}" if isinstance(value, float) else str(value)
        case str():
            return repr(value) if " " in value else value
        case _:
            return ""


def _names(state: State, keys: Iterable[UnitKey]) -> str:
    names: dict[str, None] = {}
    for key in keys:
        unit = state.units.get(key)
        names |= dict.fromkeys(unit.names if unit and unit.names else (key.context[:8],))
    return "+".join(names)
