"""Fetches an image or a sound that a client names by its address.

Only hosts that the manifest allows are asked, also after a redirect, and each of their addresses must be public.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from mullama.errors import Refused, TimedOut, Unavailable, masked
from mullama.sources.base import Cancelled
from mullama.sources.http_client import TransientError, Web
from mullama.sources.network import Allowed, Cancellation, is_public
from mullama.sources.settings import Timeouts

LONGEST: Final = 30.0
"""Seconds for one file, with all redirects."""
_WAITS: Final = Timeouts(connect=5.0, headers=10.0, idle=10.0)


def fetch_medium(
    url: str,
    permits: Callable[[str], bool],
    most: int,
    cancelled: Cancelled = lambda: False,
    take: Callable[[int], None] = lambda count: None,
    *,
    allowed: Allowed = is_public,
) -> bytes:
    """Return the file behind an address of at most `most` bytes.

    permits: returns True for a host that may be asked. cancelled: returns True once the file is no longer needed.
    take: is called with the bytes of each piece as it arrives, and may raise.
    allowed: decides on the addresses of a host.
    Raises `Refused` for a host or an address that is not allowed, `TooLarge`, `TimedOut`, `TransferFailed`, and
    `Unavailable` where the host does not send the file.
    """
    end = time.monotonic() + LONGEST

    def over() -> bool:
        return cancelled() or time.monotonic() > end

    def check(host: str) -> None:
        if not permits(host):
            raise Refused(
                f"{host or 'an address without a host'} is not a host from which media are fetched",
                hint="server.fetch_media in the manifest lists such hosts; send the file itself as a data: URI",
            )

    shown = masked(url)[:200]
    try:
        with Web(waits=_WAITS, allowed=allowed, cancelled=over, each_host=check) as web:  # noqa: SIM117
            with web.get(url) as response:
                if response.status != 200:
                    raise Unavailable(f"{shown} answered {response.status}", hint="check the address")
                return response.body(most, take)
    except Cancellation as error:
        raise TimedOut(f"{shown} took longer than {LONGEST:g} s", hint="send the file itself") from error
    except TransientError as error:
        raise Unavailable(f"{shown} could not be fetched: {error}", hint="check the address") from error
