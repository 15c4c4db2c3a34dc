"""Accepting connections while the system has no descriptor left: one attempt and at most one line of the log each time.

asyncio tries as many times as the backlog is long, and reports each failure with a traceback.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
REPORT_EVERY = 60.0  # seconds
_ASYNCIO_TEXT = "socket.accept() out of system resource"  # of BaseSelectorEventLoop._accept_connection


class ListeningSocket(socket.socket):
    """A socket whose `accept` fails once when the system has no descriptor left, then has nothing to accept.

    asyncio ends its round of accepts there. It tries again after a second.
    """

    _exhausted = False

    def accept(self) -> tuple[socket.socket, Any]:
        if self._exhausted:
            self._exhausted = False
            raise BlockingIOError(errno.EAGAIN, "no descriptor was left for the connection before")
        try:
            return super().accept()
        except OSError as error:
            self._exhausted = error.errno in EXHAUSTED
            raise


class AcceptReports:
    """An exception handler of an event loop: reports exhausted descriptors seldom, in one line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") != _ASYNCIO_TEXT:
            loop.default_exception_handler(context)
        elif self._clock() >= self._due:
            self._due = self._clock() + REPORT_EVERY
            logging.getLogger(__name__).warning(
                "new connections wait: %s; raise the limit of open files (ulimit -n)", context.get("exception")
            )
