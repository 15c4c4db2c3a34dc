"""The result of a request to a peer in the metrics: a defect is an error, and a client that leaves a cancellation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest

from mullama.chat.types import ChatRequest, text_message
from mullama.runtime.base import Caller
from mullama.runtime.metering import Metered
from mullama.runtime.metrics import ModelMetrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.peers.completion import PeerCompletion

pytestmark = pytest.mark.anyio
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "one"}}]}\n\n'


class OneChunk:
    """A peer that sends one chunk; the connection then has a defect."""

    @asynccontextmanager
    async def stream(self, *_: Any) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield CHUNK
            raise RuntimeError("a defect")

        async with aclosing(pieces()) as some:
            yield some


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_defect_is_an_error_and_a_client_that_leaves_a_cancellation(leaves: bool) -> None:
    metrics, metered = ModelMetrics(), list[Metered]()
    request = ChatRequest(model="m@p", messages=(text_message("user", "x"),))
    caller = Caller(dialect="openai", request_id="1")
    events = PeerCompletion(cast(PeerBook, OneChunk()), request, caller, metrics, metered.append).events()
    assert await anext(events)
    if leaves:
        await events.aclose()
    else:
        with pytest.raises(RuntimeError, match="a defect"):
            await anext(events)
    result = "cancelled" if leaves else "error"
    assert metrics.requests == {result: 1}
    assert [one.result for one in metered] == [result]
