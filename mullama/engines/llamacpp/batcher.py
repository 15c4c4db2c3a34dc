"""Which tokens go into the next decode: one turn of every running request, and a bounded slice of waiting prompts.

Running requests come first. A prompt that came after they had begun goes in slices, so that it never stalls their
streams; one that came before, with the same burst, has all the room that is left, because the sooner all of a burst
run together the cheaper each of their tokens is. Of the room for prompts the oldest gets half, so that it is sure to
end; the other half goes to the shortest, so that a short question does not wait behind a long document. Where none
is shorter the oldest gets all: two halves of a prompt are of no use to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mullama.engines.base import MOMENT

LONGEST_STALL = 0.25  # seconds that prompts may add to a step of running requests
SMALLEST_SLICE = 64  # tokens; smaller matrices waste more than they save
FIRST_SLICE = 64  # tokens, while nothing was measured yet
FEW = 4  # requests; of more, one decode for all is always cheaper
_MEASURABLE = 32  # tokens; fewer say little about what a token of a long prompt takes
_WAIT = 0.04  # of what the prompts of a burst take, for more of it to be computed with them
_FIRST_WAIT = 0.003  # seconds, while nothing was measured yet
_YOUNG = 0.125  # of what prompts take, while their decode may be given up for one with more of them
_GAIN = 0.95  # what decoding one by one must save to be chosen
_MEASURE_AGAIN = 128  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingTokens:
    """Tokens that a request wants decoded: its prompt, or what was chosen and not yet decoded.

    rows: how many of the last tokens need logits. each: every token needs them. late: a prompt that came after a
    running request had begun to answer.
    """

    key: int
    tokens: int
    running: bool
    rows: int = 1
    each: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The next `count` tokens of a request; the last `rows` of them get logits; `last` when none remain."""

    key: int
    count: int
    rows: int
    last: bool


def plan(requests: Iterable[PendingTokens], *, room: int, rows: int, prompt_room: int) -> tuple[Slice, ...]:
    """Slices for one decode, running requests first, oldest first; at most `room` tokens and `rows` logits, and at
    most `prompt_room` tokens of late prompts."""
    waiting = [r for r in requests if r.tokens]
    chosen: list[Slice] = []
    for request in (r for r in waiting if r.running):
        part = _slice(request, room, rows)
        if part:
            chosen.append(part)
            room, rows = room - part.count, rows - part.rows
    for late in (False, True):
        prompts = [r for r in waiting if not r.running and r.late is late]
        for request, share in _shares(prompts, min(room, prompt_room) if late else room):
            part = _slice(request, share, rows)
            if part:
                chosen.append(part)
                room, rows = room - part.count, rows - part.rows
    return tuple(chosen)


def _shares(prompts: Sequence[PendingTokens], room: int) -> list[tuple[PendingTokens, int]]:
    """How many tokens of each prompt are wanted now, oldest first."""
    if not prompts or room <= 0:
        return []
    oldest, others = prompts[0], sorted(prompts[1:], key=lambda r: r.tokens)
    shorter = bool(others) and others[0].tokens < oldest.tokens
    given = {oldest.key: min(oldest.tokens, (room + 1) // 2 if shorter else room)}
    room -= given[oldest.key]
    for request in others:
        given[request.key] = min(request.tokens, room)
        room -= given[request.key]
    given[oldest.key] += min(room, oldest.tokens - given[oldest.key])
    return [(r, given[r.key]) for r in prompts if given[r.key]]


def _slice(request: PendingTokens, room: int, rows: int) -> Slice | None:
    count = min(request.tokens, room)
    if request.each:
        count = min(count, rows)
        wanted = count
    else:
        if count == request.tokens and request.rows > rows:
            count -= request.rows
        wanted = request.rows if count == request.tokens else 0
    if count <= 0:
        return None
    return Slice(key=request.key, count=count, rows=wanted, last=count == request.tokens)


class Pace:
    """What decodes took so far, and what follows from it for the next one."""

    def __init__(self) -> None:
        self._token: float | None = None
        self._rows: dict[int, float] = {}
        self._steps_singly = 0

    def observe(self, *, running: int, prompt: int, seconds: float) -> None:
        """A decode of so many tokens took so long."""
        if prompt == 0:
            self._rows[running] = _average(self._rows.get(running), seconds)
        elif prompt >= _MEASURABLE:
            beside = self._rows.get(running, 0.0)
            self._token = _average(self._token, max(seconds - beside, 1e-6) / prompt)

    def singly(self, rows: int) -> bool:
        """Whether to decode so many requests one after the other.

        Matrix products with two or three rows can cost more than as many vector products: on a CPU, with some
        quantisations, two requests together take a third longer than one after the other.
        """
        if not 2 <= rows <= FEW:
            return False
        one, together = self._rows.get(1), self._rows.get(rows)
        if one is None or together is None:
            return one is None
        if one * rows > together * _GAIN:
            return False
        self._steps_singly += 1
        return self._steps_singly % _MEASURE_AGAIN != 0

    def prompt_room(self, room: int) -> int:
        """Tokens of prompts that must not stall what runs, for the next decode."""
        if self._token is None:
            return min(FIRST_SLICE, room)
        tokens = int(LONGEST_STALL / self._token) // SMALLEST_SLICE * SMALLEST_SLICE
        return min(max(tokens, SMALLEST_SLICE), room)

    def worth_waiting(self, tokens: int) -> float:
        """Seconds that prompts of so many tokens, of a burst that has begun, may wait for more; at most a `MOMENT`.

        Requests of one burst arrive within milliseconds. When the first is computed alone, the others wait for all of
        it, come late, and are computed in slices.
        """
        if self._token is None:
            return _FIRST_WAIT if tokens >= _MEASURABLE else 0.0
        return min(tokens * self._token * _WAIT, MOMENT)

    def worth_repeating(self, tokens: int) -> float:
        """Seconds for which a decode of prompts alone, of so many tokens, is given up for one that takes more along."""
        return 0.0 if self._token is None else min(tokens * self._token * _YOUNG, MOMENT)


def _average(old: float | None, new: float) -> float:
    return new if old is None else 0.8 * old + 0.2 * new
