"""The servers that have forwarded a request, so that routes which lead in a circle end. Pure.

Each server adds its own id to the header before it sends a request to a peer, as RFC 8586 does it for caches.
"""

from __future__ import annotations

import re

HOPS = "mullama-hops"
"""Header with the ids of the servers that have forwarded a request, the first one first."""
_MOST = 4
_ID = re.compile(r"[0-9a-z]{1,32}")


def hops_of(header: str | None) -> tuple[str, ...]:
    """Return the ids of the header; those after the bound, and texts that are no id, only count."""
    if not header:
        return ()
    given = (part.strip() for part in header[:1024].split(",")[: _MOST + 1])
    return tuple(part if _ID.fullmatch(part) else "0" for part in given)


def may_forward(hops: tuple[str, ...], own: str) -> bool:
    """Return True if this server, of the id `own`, may send a request with these hops to a peer.

    A request that was here before, or at more servers than the bound, is answered by models of this server alone.
    """
    return own not in hops and len(hops) < _MOST
