"""The bound of open connections: a new one takes the place of the one that has been idle for longest. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)


class ConnectionCap(Generic[C]):
    """Counts connections. An *idle* one has no request whose headers are complete."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[C] = set()
        self._idle: dict[C, None] = {}  # in the order in which they became idle

    @property
    def exceeded(self) -> bool:
        """True while there are more connections than allowed, because all others have requests."""
        return len(self._open) > self._most

    @property
    def far_exceeded(self) -> bool:
        """True at twice the bound: up to it a refusal is sent, beyond it that costs too much."""
        return len(self._open) > 2 * self._most

    def opened(self, connection: C) -> C | None:
        """Count a new connection, which is idle. Return the connection to close for it, None if there is room."""
        self._open.add(connection)
        self._idle[connection] = None
        oldest = next(iter(self._idle))
        if not self.exceeded or oldest is connection:
            return None
        self.closed(oldest)
        return oldest

    def busy(self, connection: C) -> None:
        """Note that a connection has a request."""
        self._idle.pop(connection, None)

    def idle(self, connection: C) -> None:
        """Note that the request of a connection is answered."""
        if connection in self._open:
            self._idle[connection] = None

    def closed(self, connection: C) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)
