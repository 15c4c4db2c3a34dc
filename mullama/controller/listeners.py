"""The addresses of the HTTP server, kept at those of the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mullama.controller.certificates import Certificates
from mullama.controller.current import CurrentState
from mullama.controller.event_log import EventLog
from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.runtime.base import Access
from mullama.runtime.snapshot import Snapshot
from mullama.struct import replace

if TYPE_CHECKING:
    import ssl


class HttpListeners(Protocol):
    """The part of the HTTP server that a manifest can change."""

    async def listen_on(self, addresses: tuple[str, ...], tls: ssl.SSLContext | None = None) -> tuple[str, ...]:
        """Open new addresses, then close the others; return the actual ones. tls: of the TCP listeners.

        Raises, with the old addresses still open, when a new one cannot be opened.
        """
        ...

    async def renew(self, tls: ssl.SSLContext, *, drain: bool = False) -> None:
        """Use another context for new connections. drain: end the others after their response."""
        ...


class Listeners:
    """Opens the addresses of a manifest and restores those of the snapshot that keeps serving."""

    def __init__(
        self, http: HttpListeners, state: CurrentState, event_log: EventLog, certificates: Certificates
    ) -> None:
        self._http, self._state, self._event_log, self._certificates = http, state, event_log, certificates
        self._declared: tuple[str, ...] = ()  # as the manifest writes them

    async def open(self, desired: Manifest, access: Access) -> None:
        """Open the manifest's addresses, with its API keys in force first."""
        listen, used = desired.server.listen, self._certificates.current
        certificate = await self._certificates.read(desired.server.tls, starting=not self._state.value.started)
        if listen == self._declared and certificate is used:
            return
        # The keys come first, so no address accepts a request without the keys that the manifest asks for.
        before = self._state.value.snapshot
        self._state.update(snapshot=replace(before, access=replace(access, generation=before.generation)))
        try:
            listening = await self._http.listen_on(listen, certificate.context if certificate else None)
        except BaseException:
            self._state.update(snapshot=before)
            raise
        self._certificates.use(certificate)
        self._state.update(listening=listening)
        self._declared = listen
        if listening:
            addresses = ", ".join(listening)
            self._event_log.add("listening", addresses, f"listening on {addresses}")

    async def restore(self, before: Snapshot) -> None:
        """Return to the addresses and keys of this snapshot."""
        listen = before.manifest.server.listen if before.generation else ()
        used, settings = self._certificates.current, before.manifest.server.tls
        if self._declared != listen or (used.settings if used else None) != settings:
            try:
                certificate = await self._certificates.read(settings, starting=True)
                listening = await self._http.listen_on(listen, certificate.context if certificate else None)
                self._certificates.use(certificate)
            except MullamaError as error:
                self._event_log.add("not-listening", "", str(error))
                return
            self._state.update(listening=listening)
            self._declared = listen
        self._state.update(snapshot=before)
