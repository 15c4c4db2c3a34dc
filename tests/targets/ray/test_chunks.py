"""Events that arrive in short succession travel as one message, in order, and errors and ends are not delayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from mullama.errors import Busy
from mullama.targets.ray.chunks import coalesced

pytestmark = pytest.mark.anyio


class Source:
    def __init__(self, *lists: list[int], error: Exception | None = None, hold: bool = False) -> None:
        self.lists, self.error, self.hold, self.closed = lists, error, hold, False

    async def __call__(self) -> AsyncGenerator[list[int], None]:
        try:
            for items in self.lists:
                yield items
                await asyncio.sleep(0)
            if self.hold:
                await asyncio.Event().wait()
            if self.error:
                raise self.error
        finally:
            self.closed = True


@pytest.mark.parametrize("gap", [0.0, 0.001, 60.0])
async def test_all_items_arrive_in_order_and_the_end_waits_for_no_gap(gap: float) -> None:
    source = Source([1], [2, 3], [4], [5])
    found = [items async for items in coalesced(source(), [gap])]
    assert [item for items in found for item in items] == [1, 2, 3, 4, 5]
    assert found[0] == [1], "the first items wait for nothing"
    assert len(found) == 2 or gap < 60, "the rest is one message"
    assert [items async for items in coalesced(Source()(), [gap])] == []


async def test_each_message_has_its_gap_and_the_last_one_repeats() -> None:
    source = Source(*([number] for number in range(20)))
    found = [items async for items in coalesced(source(), [0.0, 0.0, 60.0])]
    assert [item for items in found for item in items] == list(range(20))
    assert len(found) == 4, "two without a gap, and then all others together"


async def test_an_error_comes_after_the_items_before_it() -> None:
    events, found = coalesced(Source([1], [2], error=Busy("full"))(), [60.0]), list[int]()
    found += await anext(events)
    found += await anext(events)
    with pytest.raises(Busy):
        await anext(events)
    assert found == [1, 2]
    with pytest.raises(Busy):
        await anext(coalesced(Source(error=Busy("full"))(), [0.001]))


async def test_closing_it_closes_the_stream() -> None:
    source = Source([1], hold=True)
    events = coalesced(source(), [0.001])
    assert await anext(events) == [1]
    await events.aclose()
    assert source.closed
