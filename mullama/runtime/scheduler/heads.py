"""The first waiting request of each model, in order of their deadlines, and of the turns of their units. Pure.

Both orders follow the changes that the queue notes (`WaitingQueue.changed`), so a pass costs nothing for the requests
that keep their place.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort

from mullama.runtime.scheduler.events import FOREVER
from mullama.runtime.scheduler.state import Asked, Phase, State
from mullama.runtime.scheduler.waiting import QueuedRequest


def deadline(state: State, waiting: QueuedRequest) -> float:
    """Return when a queued request is refused: later while its model loads or is replaced.

    A load that took longer than `queue_timeout` leaves the requests that waited for it their time in the queue.
    """
    serve = state.models[waiting.model]
    queued = waiting.since + waiting.loading + serve.queue_timeout
    return max(queued, waiting.since + serve.load_timeout) if loads(state, waiting.model) else queued


def loads(state: State, model: str) -> bool:
    """Return True for a model that loads or is replaced."""
    target, opening = state.targets[model], Phase.OPENING
    return target.unit.phase is opening or target.worker.phase is opening or model in state.paused


def first_deadline(state: State) -> float:
    """Return the next time at which a request is refused; its model is that of the first entry of `deadlines`.

    An entry is a lower bound, because a load moves a deadline.
    """
    follow(state)
    waiting, heap = state.waiting, state.deadlines
    while heap:
        bound, id, model = heap[0]
        first = next(iter(waiting.of(model)), None)
        if first is None or first.id != id:
            heapq.heappop(heap)
        elif (moment := deadline(state, first)) > bound:
            heapq.heapreplace(heap, (moment, id, model))
        else:
            return bound
    return FOREVER


def asked_units(state: State) -> list[Asked]:
    """Return the closed units that requests wait for, in the order of their turns; see `wants.wanted_cold`."""
    follow(state)
    return state.turns


def follow(state: State) -> None:
    """Bring both orders up to date."""
    for model in state.waiting.changed & state.models.keys():
        if state.waiting.of(model):
            oldest = state.waiting.oldest(model)
            heapq.heappush(state.deadlines, (deadline(state, oldest), oldest.id, model))
        _take_turn(state, model)
    state.waiting.changed.clear()


def _take_turn(state: State, model: str) -> None:
    """Put the unit of a model at its place among the turns, by the oldest request of all its models."""
    target = state.targets[model]
    users = (s.name for s in state.users[target.key] if s.name not in state.paused and state.waiting.of(s.name))
    oldest = min(map(state.waiting.oldest, users), key=lambda request: (request.since, request.order), default=None)
    before = state.turn_of.pop(target.key, None)
    if before is not None:
        del state.turns[bisect_left(state.turns, before)]
    if oldest is not None and target.unit.phase is Phase.COLD:
        entry = Asked(-target.rank, oldest.since, -target.worker.bytes, oldest.order, target)
        insort(state.turns, entry)
        state.turn_of[target.key] = entry
