"""The addresses of the HTTP server, kept at those of the manifest."""

from __future__ import annotations

from typing import Protocol

from mullama.controller.current import CurrentState
from mullama.controller.event_log import EventLog
from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.runtime.base import Access
from mullama.runtime.snapshot import Snapshot
from mullama.struct import replace


class HttpListeners(Protocol):
    """The part of the HTTP server that a manifest can change."""

    async def listen_on(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Open new addresses, then close the others; return the actual ones.

        Raises, with the old addresses still open, when a new one cannot be opened.
        """
        ...


class Listeners:
    """Opens the addresses of a manifest and restores those of the snapshot that keeps serving."""

    def __init__(self, http: HttpListeners, state: CurrentState, event_log: EventLog) -> None:
        self._http, self._state, self._event_log = http, state, event_log
        self._declared: tuple[str, ...] = ()  # as the manifest writes them

    async def open(self, desired: Manifest, access: Access) -> None:
        """Open the manifest's addresses, with its API keys in force first."""
        listen = desired.server.listen
        if listen == self._declared:
            return
        # The keys come first, so no address accepts a request without the keys that the manifest asks for.
        before = self._state.value.snapshot
        self._state.update(snapshot=replace(before, access=replace(access, generation=before.generation)))
        try:
            listening = await self._http.listen_on(listen)
        except BaseException:
            self._state.update(snapshot=before)
            raise
        self._state.update(listening=listening)
        self._declared = listen
        if listening:
            addresses = ", ".join(listening)
            self._event_log.add("listening", addresses, f"listening on {addresses}")

    async def restore(self, before: Snapshot) -> None:
        """Return to the addresses and keys of this snapshot."""
        listen = before.manifest.server.listen if before.generation else ()
        if self._declared != listen:
            try:
                listening = await self._http.listen_on(listen)
            except MullamaError as error:
                self._event_log.add("not-listening", "", str(error))
                return
            self._state.update(listening=listening)
            self._declared = listen
        self._state.update(snapshot=before)
