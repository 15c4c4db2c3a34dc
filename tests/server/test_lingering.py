"""What is written in one turn of the event loop leaves in one call, and nothing is left behind by a close."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from mullama.server.protocol import BoundedProtocol, Lingering


class Sent:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def get_write_buffer_size(self) -> int:
        return 10


class Owner:
    """As much of a protocol as the transport asks for."""

    def __init__(self, sent: Sent) -> None:
        self.loop = asyncio.get_running_loop()
        self.sent_at_close: list[bytes] = []
        self._sent = sent

    def hang_up(self, transport: Any) -> None:
        self.sent_at_close = list(self._sent.calls)


def made() -> tuple[Lingering, Sent, Owner]:
    sent = Sent()
    owner = Owner(sent)
    return Lingering(cast(asyncio.Transport, sent), cast(BoundedProtocol, owner)), sent, owner


def test_writes_of_one_turn_leave_together_and_count_until_then() -> None:
    async def run() -> None:
        transport, sent, _ = made()
        transport.write(b"one ")
        transport.write(b"two")
        assert (sent.calls, transport.get_write_buffer_size()) == ([], 17)
        await asyncio.sleep(0)
        assert (sent.calls, transport.get_write_buffer_size()) == ([b"one two"], 10)
        transport.write(b"three")
        await asyncio.sleep(0)
        assert sent.calls == [b"one two", b"three"]

    asyncio.run(run())


def test_what_was_written_leaves_before_the_connection_is_closed() -> None:
    async def run() -> None:
        transport, sent, owner = made()
        transport.write(b"last words")
        transport.close()
        assert owner.sent_at_close == [b"last words"]
        await asyncio.sleep(0)
        assert sent.calls == [b"last words"], "and only once"

    asyncio.run(run())
