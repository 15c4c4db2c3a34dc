"""Counts the loads that were begun and not finished, so that weights which end the server are not tried forever."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from mullama.errors import Refused
from mullama.struct import Struct, field


class Attempts(Struct, kw_only=True):
    """Counts the loads that were begun and not finished, also across restarts of the server.

    A load that ends the server with it leaves no other trace.
    """

    counts: dict[str, int] = field(default_factory=dict)
    """By weights."""
    save: Callable[[Mapping[str, int]], None] = lambda counts: None
    """Writes the counts to disk."""

    LIMIT = 3
    EARLY = "early"
    """Counts the load whose weights are not known yet."""

    def begin_early(self) -> bool:
        """Count an early load before it begins. Return False while a load that ended the server is counted."""
        if self.counts:
            return False
        self.counts[self.EARLY] = 1
        self._save()
        return True

    def begin(self, weights: str) -> None:
        """Count a load before it begins. Raises `Refused` for weights whose last `LIMIT` loads ended the server."""
        count = self.counts.get(weights, 0)
        if count >= self.LIMIT:
            raise Refused(
                f"the server ended {count} times while it loaded these weights",
                hint="mullama apply tries them again",
            )
        self.counts[weights] = count + 1
        self._save()

    def clear(self) -> None:
        """Allow all weights again, after an explicit apply."""
        if self.counts:
            self.counts.clear()
            self._save()

    def finish(self, weights: str) -> None:
        """Forget a load that ended, and the early one, which it took over or which was ended before."""
        ended = [name for name in (weights, self.EARLY) if self.counts.pop(name, None) is not None]
        if ended:
            self._save()

    def _save(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not prevent a load
            self.save(self.counts)
