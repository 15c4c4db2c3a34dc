"""The policy of a pool that is too small for all: by values, and by laws over random loads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.llamacpp.pool_policy import Demand, may_begin, recompute, reserve_of, to_set_aside


@pytest.mark.parametrize(("size", "reserve"), [(8192, 512), (131_072, 8192), (1024, 64), (512, 64), (40, 40)])
def test_the_reserve_is_a_sixteenth_and_never_more_than_a_request(size: int, reserve: int) -> None:
    assert reserve_of(size) == reserve


@pytest.mark.parametrize(
    ("pending", "left", "others", "free", "begins"),
    [
        (900, 100, [], 0, True),  # alone: what is idle makes room
        (900, 100, [(0, 500)], 964, False),
        (900, 100, [(0, 500)], 1028, True),  # 900 + 64, and 64 of the other
        (900, 10, [(0, 5)], 915, True),  # an answer of 10 tokens needs no more
        (900, 100, [(400, 100), (0, 3)], 900 + 64 + 464 + 3, True),
        (900, 100, [(400, 100), (0, 3)], 900 + 64 + 464 + 2, False),
        (0, -1, [(0, 0)], 0, True),
    ],
)
def test_a_request_begins_where_all_keep_their_reserve(
    pending: int, left: int, others: list[tuple[int, int]], free: int, begins: bool
) -> None:
    running = [Demand(pending=p, left=n) for p, n in others]
    assert may_begin(Demand(pending=pending, left=left), running, free=free, reserve=64) is begins


def test_the_youngest_is_set_aside_and_the_oldest_never() -> None:
    assert to_set_aside([4, 7, 9]) == 9
    assert to_set_aside([4]) is None
    assert to_set_aside([]) is None


@pytest.mark.parametrize(
    ("tokens", "size", "room", "token_seconds", "again"),
    [
        (100, 1000, 999, None, True),  # no room for the state
        (100, 1000, 1000, None, False),  # the speed is not known yet
        (1000, 100_000_000, 10**9, 1e-3, False),  # 1 s to compute, 0.1 s to copy
        (1000, 100_000_000, 10**9, 5e-5, True),  # 0.05 s to compute on a fast device
        (0, 0, 0, 1e-3, True),
    ],
)
def test_a_state_is_kept_where_computing_it_takes_longer(
    tokens: int, size: int, room: int, token_seconds: float | None, again: bool
) -> None:
    assert recompute(tokens, size, room, token_seconds) is again


@dataclass
class Simulated:
    """A request of a simulation. `base` counts its known tokens when a request last began."""

    id: int
    prompt: int
    answer: int
    held: int = 0
    known: int = 0
    base: int = 0

    @property
    def demand(self) -> Demand:
        return Demand(pending=self.known - self.held, left=self.prompt + self.answer - self.known)


class Simulation:
    """Decodes requests by the policy, as a context does: at most `batch` tokens at once, with `guesses` for answers.

    Every step checks the laws.
    """

    def __init__(self, requests: list[Simulated], *, pool: int, size: int, parallel: int, guesses: int) -> None:
        self.pool, self.parallel, self.guesses = pool, parallel, guesses
        self.reserve = reserve_of(size)
        self.queue = requests
        self.running: list[Simulated] = []
        self.aside: list[Simulated] = []
        self.begun: list[int] = []
        self.set_asides = 0
        for request in requests:
            request.known = request.prompt

    @property
    def used(self) -> int:
        return sum(r.held for r in self.running)

    def run(self) -> None:
        for _ in range(100_000):
            if not (self.queue or self.running or self.aside):
                return
            self.step()
        raise AssertionError("a request is starved")

    def step(self) -> None:
        self._begin()
        wanted = self._fitting(self._wanted())
        oldest = self.running[0]
        assert wanted[oldest.id] > 0, "the oldest advances"
        for request in self.running:
            request.held += wanted.get(request.id, 0)
            if request.held >= request.known:
                request.known = min(request.held + 1, request.prompt + request.answer)
        assert self.used <= self.pool, "never over the pool"
        self.running = [r for r in self.running if r.held < r.prompt + r.answer]

    def _wanted(self) -> dict[int, int]:
        room, wanted = BATCH, {}
        for r in self.running:
            pending, left = r.demand.pending, r.demand.left
            guesses = min(self.guesses, left) if pending == 1 else 0
            wanted[r.id] = min(pending + guesses, room)
            room -= wanted[r.id]
        return wanted

    def _fitting(self, wanted: dict[int, int]) -> dict[int, int]:
        while self.used + sum(wanted.values()) > self.pool:
            if self.guesses and any(wanted[r.id] > r.demand.pending for r in self.running):
                wanted = {r.id: min(wanted[r.id], r.demand.pending) for r in self.running}
                continue
            victim = to_set_aside([r.id for r in self.running])
            assert victim is not None, "one request alone fits"
            request = self.running.pop()
            assert request.id == victim
            grown = max(r.held + wanted[r.id] - r.base for r in (*self.running, request))
            assert grown > self.reserve, "no request is set aside before another used up its reserve"
            request.held = 0
            self.aside.insert(0, request)
            self.set_asides += 1
            wanted = self._wanted()
        return wanted

    def _begin(self) -> None:
        while (waiting := self.aside or self.queue) and len(self.running) < self.parallel:
            others = [r.demand for r in self.running]
            free = self.pool - self.used
            if not may_begin(waiting[0].demand, others, free=free, reserve=self.reserve):
                return
            request = waiting.pop(0)
            self.begun.append(request.id)
            assert not self.running or self.running[-1].id < request.id, "the order of age stays"
            self.running.append(request)
            for r in self.running:
                r.base = r.known


BATCH = 64
shapes = st.tuples(st.integers(1, 300), st.integers(0, 300))


@given(
    shapes=st.lists(shapes, min_size=1, max_size=12),
    parallel=st.integers(1, 6),
    guesses=st.integers(0, 8),
    spare=st.integers(0, 800),
)
def test_every_request_ends_in_order_within_the_pool(
    shapes: list[tuple[int, int]], parallel: int, guesses: int, spare: int
) -> None:
    size = 600
    requests = [Simulated(id, prompt, answer) for id, (prompt, answer) in enumerate(shapes)]
    simulation = Simulation(requests, pool=size + spare, size=size, parallel=parallel, guesses=guesses)
    simulation.run()
    first = list(dict.fromkeys(simulation.begun))
    assert first == sorted(first), "waiting requests begin in their order"
    # The tokens between two set-asides of one request bound their number.
    decoded = sum(prompt + answer for prompt, answer in shapes)
    assert simulation.set_asides <= parallel * (1 + decoded // reserve_of(size))


def test_a_pool_that_is_too_small_for_all_sets_requests_aside() -> None:
    requests = [Simulated(id, 200, 300) for id in range(6)]
    simulation = Simulation(requests, pool=600, size=600, parallel=4, guesses=0)
    simulation.run()
    assert simulation.set_asides > 0
    assert len(set(simulation.begun)) == 6
