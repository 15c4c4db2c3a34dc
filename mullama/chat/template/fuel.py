"""The bounds of one rendering: a budget of ticks, a budget of output, and the weight of values.

Fuel is deterministic and needs no clock: the same template and conversation always burn the same amount.
"""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping, ValuesView

from jinja2.runtime import Undefined

MAX_OUTPUT = 4_000_000  # characters of a finished prompt
MAX_WRITTEN = 4 * MAX_OUTPUT  # characters written altogether, buffers of macros included
MAX_ITEMS = 100_000  # elements of one list
MAX_TICKS = 200_000
BASE_TICKS = 20_000
TICKS_PER_NODE = 50


class OutOfFuel(Exception):
    """The rendering exceeded a bound; the message names it."""


class Fuel:
    """The remaining budget of one rendering. Templates can see it, but only spend it."""

    __slots__ = ("_left", "_room")

    def __init__(self, ticks: int) -> None:
        self._left = ticks
        self._room = MAX_WRITTEN

    def burn(self, ticks: int) -> None:
        """Spend ticks, or raise `OutOfFuel`."""
        self._left -= ticks
        if self._left < 0:
            raise OutOfFuel("it takes too much work for this conversation")

    def write(self, characters: int) -> None:
        """Account for text written to the output or to the buffer of a macro."""
        self._room -= characters
        if self._room < 0:
            raise OutOfFuel(f"it writes more than {MAX_OUTPUT} characters")


_SCALARS = frozenset({int, float, bool, type(None)})


def budget(nodes: int, messages: int) -> int:
    """Return the ticks for a conversation of this size.

    nodes: number of its JSON nodes. messages: counted squared, for templates that search all earlier messages.
    """
    return min(MAX_TICKS, BASE_TICKS + TICKS_PER_NODE * nodes + messages * messages)


def weigh(value: object, cap: int = MAX_ITEMS) -> int:
    """Return the approximate work of walking `value`: 1 for each node and each 64 characters; raise beyond `cap`.

    A shared part of a structure counts as often as a walk meets it.
    """
    if isinstance(value, str):
        return 1 + (len(value) >> 6)
    if value is None or isinstance(value, int | float):
        return 1
    total = 0
    stack: list[object] = [value]
    while stack:
        item = stack.pop()
        total += 1
        kind = type(item)
        if kind is dict:
            stack.extend(item)  # type: ignore[arg-type]
            stack.extend(item.values())  # type: ignore[attr-defined]
        elif kind is list or kind is tuple:
            stack.extend(item)  # type: ignore[arg-type]
        elif kind is str:
            total += len(item) >> 6  # type: ignore[arg-type]
        elif kind in _SCALARS:
            pass
        elif isinstance(item, str):
            total += len(item) >> 6
        elif not isinstance(item, int | float | None):
            total += _weigh_odd(item, stack)
        if total + len(stack) > cap:
            raise OutOfFuel("it builds a value that is too large")
    return total


def _weigh_odd(item: object, stack: list[object]) -> int:
    """Weigh values that are neither JSON nor text. A namespace may contain itself, so printing it could never end."""
    if isinstance(item, range):
        return len(item)
    if isinstance(item, Mapping):
        stack.extend(item)
        stack.extend(item.values())
    elif isinstance(item, set | frozenset | KeysView | ValuesView | ItemsView):
        stack.extend(item)
    elif not isinstance(item, Undefined):
        raise TypeError(f"a {type(item).__name__} cannot be printed, compared or filtered")
    return 0


def bound_text(length: int) -> None:
    """Raise if a string of this many characters is too long."""
    if length > MAX_OUTPUT:
        raise OutOfFuel(f"it builds a text of more than {MAX_OUTPUT} characters")


def bound_items(count: int) -> None:
    """Raise if a list of this many elements is too long."""
    if count > MAX_ITEMS:
        raise OutOfFuel(f"it builds a list of more than {MAX_ITEMS} elements")
