"""The connection of the page to its server: found again after it was lost, and followed by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from mullama.cli.app.exit_codes import as_mullama_error
from mullama.client.http import Client, StreamStop
from mullama.errors import MullamaError, Unavailable

LinkState = Literal["connecting", "live", "lost"]

_SILENCE = 20.0  # seconds without an update, of which a server sends one every two seconds
_PAUSES = (0.5, 1.0, 2.0, 4.0)


class LinkServer(Protocol):
    """A server that a link follows."""

    @property
    def client(self) -> Client: ...


class LiveLink:
    """Follows `/api/v1/live` on a thread of its own, and again after the connection was lost.

    find: returns the server, or raises. took: called with each update. changed: called with the state of the
    connection, and the error that ended it. Both are called on the thread of the link.
    """

    def __init__(
        self,
        find: Callable[[], LinkServer],
        took: Callable[[Mapping[str, Any]], None],
        changed: Callable[[LinkState, MullamaError | None], None],
    ) -> None:
        self._find, self._took, self._changed = find, took, changed
        self._over = threading.Event()
        self._stop = StreamStop()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end, without a wait for it."""
        self._over.set()
        self._stop.stop()

    def close(self) -> None:
        """End the thread. Nothing is called after the return."""
        self.stop()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        failures = 0
        while not self._over.is_set():
            error: MullamaError | None = None
            try:
                for update in self._find().client.events("/api/v1/live", idle=_SILENCE, stop=self._stop):
                    if self._over.is_set():
                        return
                    if "status" in update and "sample" not in update:
                        failures = 0
                        self._changed("live", None)
                    self._took(update)
            except Exception as raised:  # noqa: BLE001 - the thread outlives every failure
                error = as_mullama_error(raised)
            if self._over.is_set():
                return
            self._changed("lost", error or Unavailable("the server closed the connection"))
            self._over.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1
