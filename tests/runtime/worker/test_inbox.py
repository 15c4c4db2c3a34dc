"""Outputs on their way from a worker to a request: together, in order, the failure last."""

from __future__ import annotations

import asyncio

import pytest

from mullama.engines.base import Piece
from mullama.errors import EngineFailed, Unavailable
from mullama.runtime.worker.inbox import Inbox

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (Piece(id=1, text=text, count=1) for text in ("one", "two", "three"))


async def test_all_outputs_since_the_last_read_are_taken_together_and_once() -> None:
    inbox = Inbox()
    inbox.put(ONE)
    inbox.put(TWO)
    assert await inbox.take() == [ONE, TWO]
    inbox.put(THREE)
    assert await inbox.take() == [THREE]


async def test_a_reader_waits_for_the_first_output_and_gets_those_with_it() -> None:
    inbox = Inbox()
    reader = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(ONE)
    inbox.put(TWO)
    assert await reader == [ONE, TWO]


async def test_a_failure_is_raised_after_the_outputs_before_it_and_the_first_counts() -> None:
    inbox = Inbox()
    inbox.put(ONE)
    inbox.fail(EngineFailed("died"))
    inbox.fail(Unavailable("cut"))
    inbox.put(TWO)
    assert await inbox.take() == [ONE]
    for _ in range(2):
        with pytest.raises(EngineFailed, match="died"):
            await inbox.take()


async def test_a_failure_wakes_a_reader_that_waits() -> None:
    inbox = Inbox()
    reader = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.fail(Unavailable("cut"))
    with pytest.raises(Unavailable):
        await reader


async def test_nothing_is_lost_with_a_reader_that_left() -> None:
    inbox = Inbox()
    reader = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    reader.cancel()
    inbox.put(ONE)
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await inbox.take() == [ONE]
