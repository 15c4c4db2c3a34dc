"""The transport that uvicorn writes to: a response's head and body take one write, and close loses nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from mullama.server.http.protocol import BoundedProtocol, LingeringTransport

pytestmark = pytest.mark.anyio


class Sent:
    """A transport that records its writes."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def get_write_buffer_size(self) -> int:
        return 10


class Owner:
    """The part of a protocol that the transport uses."""

    def __init__(self, sent: Sent) -> None:
        self.loop = asyncio.get_running_loop()
        self.sent_at_close: list[bytes] = []
        self._sent = sent

    def close_gracefully(self, transport: Any) -> None:
        self.sent_at_close = list(self._sent.calls)


def made() -> tuple[LingeringTransport, Sent, Owner]:
    sent = Sent()
    owner = Owner(sent)
    return LingeringTransport(cast(asyncio.Transport, sent), cast(BoundedProtocol, owner)), sent, owner


async def test_the_head_of_an_answer_leaves_with_what_follows_and_counts_until_then() -> None:
    transport, sent, _ = made()
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert (sent.calls, transport.get_write_buffer_size()) == ([], 29)
    transport.write(b"one")
    assert (sent.calls, transport.get_write_buffer_size()) == ([b"HTTP/1.1 200 OK\r\n\r\none"], 10)
    transport.write(b"two")
    assert sent.calls[1:] == [b"two"]
    await asyncio.sleep(0)
    assert len(sent.calls) == 2


async def test_a_head_that_nothing_follows_leaves_at_the_end_of_the_turn() -> None:
    transport, sent, _ = made()
    transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    await asyncio.sleep(0)
    assert sent.calls == [b"HTTP/1.1 204 No Content\r\n\r\n"]
    transport.write(b"after")
    assert sent.calls[1:] == [b"after"]


async def test_what_was_written_leaves_before_the_connection_is_closed() -> None:
    transport, sent, owner = made()
    transport.write(b"HTTP/1.1 last words")
    transport.close()
    assert owner.sent_at_close == [b"HTTP/1.1 last words"]
    await asyncio.sleep(0)
    assert sent.calls == [b"HTTP/1.1 last words"], "and only once"
