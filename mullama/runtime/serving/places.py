"""Numbers the answers that decode together in one context, and remembers the last request of each number.

The numbers are those that llama-server's clients know as slots. A place is taken from the begin of an answer to its
end; its number has no effect on the computation.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from itertools import count
from typing import Any

from mullama.chat.inventory import Slot
from mullama.chat.types import Effective, TextRequest
from mullama.engines.base import Begun
from mullama.runtime.scheduler.events import UnitKey
from mullama.struct import Struct, field, field_names, replace

Generated = Callable[[int], int]
"""Returns the tokens of a choice so far."""


class _Place(Struct, eq=False):
    """The present or last answer at one number. It keeps no text of the request."""

    task: int
    request: TextRequest
    effective: Effective
    prompt_tokens: int
    cached_tokens: int
    generated: Callable[[], int]
    busy: bool = True

    def free(self) -> None:
        self.busy, self.generated = False, int


class PlaceBoard:
    """The places of all contexts. `alive` has the contexts that may still be used; the others are forgotten."""

    def __init__(self, alive: Callable[[], Container[UnitKey]]) -> None:
        self._alive = alive
        self._units: dict[UnitKey, list[_Place | None]] = {}
        self._tasks = count()

    def request(
        self, unit: UnitKey, parallel: int, request: TextRequest, effective: Effective, generated: Generated
    ) -> RequestPlaces:
        """Return the places of one request's choices; none is taken yet."""
        if unit not in self._units:
            alive = self._alive()
            self._units = {key: places for key, places in self._units.items() if key in alive}
        places = self._units.setdefault(unit, [None] * max(1, parallel))
        return RequestPlaces(places, self._tasks, _bare(request), replace(effective, constraint=None), generated)

    def slots(self, unit: UnitKey, parallel: int) -> tuple[Slot, ...]:
        """Return the places of a context in order of their numbers."""
        places = self._units.get(unit) or [None] * max(1, parallel)
        return tuple(_slot(number, place) for number, place in enumerate(places))


class RequestPlaces(Struct):
    """Implements `aggregate.Places` for one request."""

    places: list[_Place | None]
    tasks: count[int]
    request: TextRequest
    effective: Effective
    generated: Generated
    _mine: dict[int, tuple[int, _Place]] = field(default_factory=dict)

    def begin(self, choice: int, begun: Begun) -> None:
        number, generated = self._free(), self.generated
        place = _Place(
            next(self.tasks),
            self.request,
            self.effective,
            begun.prompt_tokens,
            begun.cached_tokens,
            lambda: generated(choice),
        )
        self.places[number], self._mine[choice] = place, (number, place)

    def _free(self) -> int:
        """Return the first free number. The engine begins an answer only when one is free, but an end of another
        request may be read later: then the number of the oldest answer is as good as free.
        """
        taken = [(place.task if place and place.busy else -1, number) for number, place in enumerate(self.places)]
        return min(taken)[1]

    def end(self, choice: int) -> int:
        if choice not in self._mine:
            return -1
        number, place = self._mine.pop(choice)
        place.free()
        return number

    def close(self) -> None:
        """Free the places of choices that never ended."""
        for choice in tuple(self._mine):
            self.end(choice)


# The members of requests, of any dialect, that hold texts of the client.
_TEXTS: Mapping[str, object] = {
    "prompts": (), "suffix": None, "system": None, "media": (), "context": (), "messages": (), "tools": (),
    "template_arguments": (), "items": (), "echo": {}, "sent": (), "metadata": {},
}  # fmt: skip


def _bare(request: TextRequest) -> TextRequest:
    """Return a request without its texts, which may be large, and which no other client may see."""
    texts: dict[str, Any] = {name: empty for name, empty in _TEXTS.items() if name in field_names(request)}
    return replace(request, **texts)


def _slot(number: int, place: _Place | None) -> Slot:
    if place is None:
        return Slot(id=number)
    return Slot(
        id=number,
        busy=place.busy,
        task=place.task,
        request=place.request,
        effective=place.effective,
        prompt_tokens=place.prompt_tokens,
        cached_tokens=place.cached_tokens,
        generated=place.generated(),
    )
