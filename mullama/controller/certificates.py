"""The certificate of the server: follows its files, and keeps the last usable one in use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mullama.controller.conditions import Condition, Conditions, Reason
from mullama.controller.event_log import EventLog
from mullama.errors import MullamaError
from mullama.manifest.spec import Tls

if TYPE_CHECKING:
    import ssl

    from mullama.reconcile.certificate import Certificate, Stamps

_LOOK_SECONDS = 1.0
_RETRY_LOOKS = 60  # files that were refused may be right later: the clock was wrong, or a folder was away


class Certificates:
    """Holds the certificate in use. A failed renewal leaves it in use and sets the condition `CertificateValid`.

    renew: gives new connections another context; `drain` ends the connections that were made with the old one.
    """

    def __init__(
        self,
        renew: Callable[[ssl.SSLContext, bool], Awaitable[None]],
        conditions: Conditions,
        event_log: EventLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._renew, self._conditions, self._event_log = renew, conditions, event_log
        self._current: Certificate | None = None
        self._seen: Stamps = ()
        self._refused: Stamps = ()
        self._looks_to_retry = 0

    @property
    def current(self) -> Certificate | None:
        """The certificate in use; None without `server.tls`."""
        return self._current

    async def read(self, settings: Tls | None, *, starting: bool) -> Certificate | None:
        """Return the certificate of these settings, for a change of the manifest; raise `Invalid` for a bad one.

        Files that are in use already are not read again: a renewal that failed must not fail other changes.
        starting: accept one that has expired, because a restart should not end the service.
        """
        if settings is None:
            return None
        if self._current is not None and self._current.settings == settings:
            return self._current
        from mullama.reconcile.certificate import load_certificate

        return await asyncio.to_thread(load_certificate, settings, now=self._clock(), any_time=starting)

    def use(self, certificate: Certificate | None) -> None:
        """Note that the listeners use this certificate now."""
        if certificate is self._current:
            return
        self._current = certificate
        if certificate is None:
            self._conditions.items.pop(Condition.CERTIFICATE_VALID, None)
        else:
            from mullama.reconcile.certificate import untimely

            self._seen = certificate.stamps
            self._report(untimely(certificate, self._clock()))

    async def follow(self) -> None:
        """Read the files again when they have changed and are stable; endless."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._current is not None:
                await self.look(self._current)

    async def look(self, used: Certificate) -> None:
        """Look at the files once. A change is read at the second look that finds it, because two files change."""
        from mullama.reconcile.certificate import load_certificate, stamps_of, untimely

        stamps = await asyncio.to_thread(stamps_of, used.settings)
        settled, self._seen = stamps == self._seen, stamps
        if stamps == used.stamps:
            self._report(untimely(used, self._clock()))
        elif stamps == self._refused and self._looks_to_retry > 0:
            self._looks_to_retry -= 1
        elif settled:
            try:
                new = await asyncio.to_thread(load_certificate, used.settings, now=self._clock())
                if self._current is not used:
                    return
                await self._renew(new.context, new.stamps[2:] != used.stamps[2:])
            except MullamaError as error:
                self._refused, self._looks_to_retry = stamps, _RETRY_LOOKS
                self._report(error)
            else:
                self._current = new
                self._event_log.add("certificate", used.settings.cert, "the new certificate is in use")
                self._report(None)

    def _report(self, error: MullamaError | None) -> None:
        if error is None:
            self._refused = ()
            self._conditions.set(Condition.CERTIFICATE_VALID, True, Reason.APPLIED)
        elif self._conditions.set(
            Condition.CERTIFICATE_VALID, False, Reason.CERTIFICATE_REFUSED, f"an old certificate is in use; {error}"
        ):
            self._event_log.add("certificate-refused", "", str(error))

    def tree(self) -> dict[str, Any] | None:
        """Return the certificate in use for `status`."""
        used = self._current
        if used is None:
            return None
        return {
            "cert": used.settings.cert,
            "names": list(used.names),
            "expires": used.expires,
            "client_certificates": used.settings.client_ca is not None,
        }
