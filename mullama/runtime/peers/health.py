"""The health of a peer by the outcomes of its requests. Pure: the time is an argument.

A peer that fails several times in a row gets no requests for a while, which doubles with each further failure. After it
one probe decides, so no client waits for a server that is still away (passive ejection with probes).
"""

from __future__ import annotations

from mullama.struct import Struct

_FAILURES = 3
"""Failures in a row that eject a peer."""
_FIRST = 5.0
_LONGEST = 60.0
"""Seconds without requests: at first, and at most."""


class PeerHealth(Struct):
    """Counts the failures of one peer."""

    failures: int = 0
    """In a row."""
    ejections: int = 0
    """Since the last success."""
    until: float = 0.0
    """Time of the next probe; 0 for a peer that is not ejected."""
    reason: str = ""
    """The last failure; "" after a success."""

    @property
    def ejected(self) -> bool:
        """True while the peer gets no requests."""
        return self.until > 0

    def succeeded(self) -> bool:
        """Note an answer; return True if it ends an ejection."""
        ended = self.ejected
        self.failures, self.ejections, self.until, self.reason = 0, 0, 0.0, ""
        return ended

    def failed(self, now: float, reason: str) -> bool:
        """Note a failure; return True if it ejects the peer, and `until` is the time of its probe then.

        The failures of requests that were sent before an ejection do not prolong it.
        """
        self.failures, self.reason = self.failures + 1, reason
        if self.ejected and now < self.until:
            return False
        if not self.ejected and self.failures < _FAILURES:
            return False
        self.until = now + min(_LONGEST, _FIRST * 2.0**self.ejections)
        self.ejections += 1
        return True


def crowded(own: int, all: int, share: float) -> bool:
    """Return True if a peer has so many requests more than its share that the next one belongs elsewhere.

    A peer with fewer requests than a server answers at the same time has room for one more, whatever the others have:
    the caches of conversations that move are worth more than equal loads of idle hosts (`benches/affinity.py`).

    own: its requests. all: those of all peers of the route. share: of its weight in theirs.

    Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2017, with their factor of 1.25.
    """
    return own >= _AT_ONCE and own + 1 > -(-_FACTOR * (all + 1) * share // 1)


_FACTOR = 1.25
_AT_ONCE = 4
"""The requests that a model answers at the same time by default, see `limits.parallel`."""
