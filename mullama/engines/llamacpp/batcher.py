"""Chooses the tokens of the next decode: one step of every running request, and a bounded slice of waiting prompts.

Running requests come first. A prompt that arrived after they began is late: it is computed in slices, so that it
never stalls their streams. A prompt that arrived before, in the same burst, gets all the remaining room: the sooner
all requests of a burst run together, the cheaper each of their tokens is.

Of the room for prompts the oldest gets half, so that it is sure to complete. The other half goes to the shortest, so
that a short question does not wait behind a long document. Where none is shorter the oldest gets all, because two
half-computed prompts help no request.

A prompt that needs several decodes leaves no small rest for the last one: llama.cpp's flash attention on the CPU
computes fewer than 64 tokens one by one, so that 8 of them take longer over a long context than 64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mullama.engines.base import COALESCE_SECONDS
from mullama.engines.llamacpp.decode_cost import DecodeCost
from mullama.struct import Struct

LONGEST_STALL = 0.25  # seconds that prompts may add to a step of running requests
SMALLEST_SLICE = 64  # tokens; smaller matrices waste more than they save
FIRST_SLICE = 64  # tokens, before the first measurement
FEW = 4  # requests; for more, one decode for all is always cheaper
WAIT_SHARE = 0.04  # of a prompt's duration: the wait costs less than decoding a late prompt in slices
RESTART_SHARE = 0.125  # of a prompt's duration: a restart wastes less than it saves
_MEASURABLE = 32  # tokens; fewer do not predict the time per token of a long prompt
_FIRST_WAIT = 0.003  # seconds, before the first measurement
_GAIN = 0.95  # decoding one by one must take less than this share of the time to be chosen
_MEASURE_AGAIN = 128  # steps


class PendingTokens(Struct, frozen=True, kw_only=True):
    """Tokens that a request needs decoded: its prompt, or chosen tokens that are not in memory yet."""

    key: int
    """The request."""
    tokens: int
    running: bool
    """The prompt is in memory."""
    rows: int = 1
    """Number of last tokens that need logits."""
    all_logits: bool = False
    """Every token needs logits."""
    late: bool = False
    """The prompt arrived after a running request had begun to answer."""


class Slice(Struct, frozen=True, kw_only=True):
    """The next tokens of a request."""

    key: int
    """The request."""
    count: int
    """Tokens."""
    rows: int
    """Number of last tokens that get logits."""
    last: bool
    """No tokens remain after these."""


def plan(requests: Iterable[PendingTokens], *, room: int, rows: int, prompt_room: int) -> tuple[Slice, ...]:
    """Return slices for one decode, running requests first, each group oldest first.

    They have at most `room` tokens, `rows` rows of logits, and `prompt_room` tokens of late prompts.
    """
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
    """Divide `room` tokens among the prompts; return (prompt, tokens), oldest first."""
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
    if request.all_logits:
        count = min(count, rows)
        wanted = count
    else:
        if count == request.tokens and request.rows > rows:
            count -= request.rows
        rest = request.tokens - count
        if not request.running and 0 < rest < SMALLEST_SLICE and count >= 2 * SMALLEST_SLICE:
            count -= SMALLEST_SLICE - rest
        wanted = request.rows if count == request.tokens else 0
    if count <= 0:
        return None
    return Slice(key=request.key, count=count, rows=wanted, last=count == request.tokens)


class Pace:
    """Measures decodes and predicts the next one.

    `wait_share` and `restart_share` are shares of a prompt's duration, see `batch_delay` and `restart_window`;
    `longest` bounds both, in seconds.
    """

    def __init__(
        self,
        *,
        wait_share: float = WAIT_SHARE,
        restart_share: float = RESTART_SHARE,
        longest: float = COALESCE_SECONDS,
        cost: DecodeCost | None = None,
    ) -> None:
        self.longest = longest
        self.cost = DecodeCost() if cost is None else cost
        self._wait_share = wait_share
        self._restart_share = restart_share
        self._token: float | None = None  # seconds per token of a prompt
        self._rows: dict[int, float] = {}  # seconds of a decode by its number of answers
        self._steps_singly = 0

    @property
    def token_seconds(self) -> float | None:
        """The time to compute one token of a prompt, None before the first measurement."""
        return self._token

    def observe(self, *, running: int, prompt: int, seconds: float) -> None:
        """Record the duration of a decode of `running` tokens of answers and `prompt` tokens of prompts."""
        self.cost.observe(answers=running, prompts=prompt, seconds=seconds)
        if prompt == 0:
            self._rows[running] = _average(self._rows.get(running), seconds)
        elif prompt >= _MEASURABLE:
            answers = self._rows.get(running, 0.0)
            self._token = _average(self._token, max(seconds - answers, 1e-6) / prompt)

    def faster_singly(self, rows: int) -> bool:
        """Return True to decode this number of requests one after the other.

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
        """Return the tokens of late prompts for the next decode, which must not stall running requests."""
        if self._token is None:
            return min(FIRST_SLICE, room)
        tokens = int(LONGEST_STALL / self._token) // SMALLEST_SLICE * SMALLEST_SLICE
        return min(max(tokens, SMALLEST_SLICE), room)

    def batch_delay(self, tokens: int) -> float:
        """Return the seconds that a burst of prompts of this many tokens may wait for more prompts.

        Requests of one burst arrive within milliseconds. If the first is computed alone, the others wait for all of
        it, are late, and are computed in slices.
        """
        if self._token is None:
            return _FIRST_WAIT if tokens >= _MEASURABLE else 0.0
        return min(tokens * self._token * self._wait_share, self.longest)

    def restart_window(self, tokens: int) -> float:
        """Return the seconds for which a decode of this many prompt tokens is restarted to include another prompt."""
        return 0.0 if self._token is None else min(tokens * self._token * self._restart_share, self.longest)


def _average(old: float | None, new: float) -> float:
    return new if old is None else 0.8 * old + 0.2 * new
