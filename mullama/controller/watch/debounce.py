"""What became of a set of watched files, as values: settle, hold back what shrinks, never act on a half."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

SETTLE = 0.3
STABLE = 5.0


class WatchDecision(StrEnum):
    """What to do with the content that was read."""

    WAIT = "wait"
    SAME = "same"
    APPLY = "apply"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The content seen last, and since when (monotonic seconds). applied: the content that is in force."""

    applied: str
    seen: str = ""
    since: float = 0.0

    def saw(self, digest: str, now: float) -> Watched:
        """The content was read again."""
        return self if digest == self.seen else replace(self, seen=digest, since=now)


def judge(watched: Watched, now: float, *, removes: int, loaded: int) -> WatchDecision:
    """1. unchanged  2. too fresh to trust  3. removals wait longer  4. more than half would go: only `apply` may.

    removes: models that the new content no longer names; loaded: models in memory now. A half-saved file is
    often valid and merely shorter, so what shrinks must prove itself by staying as it is.
    """
    if watched.seen == watched.applied:
        return WatchDecision.SAME
    age = now - watched.since
    if age < SETTLE:
        return WatchDecision.WAIT
    if removes and age < STABLE:
        return WatchDecision.WAIT
    if removes and loaded and removes * 2 > loaded:
        return WatchDecision.HELD
    return WatchDecision.APPLY


def next_look(watched: Watched, now: float, *, removes: int) -> float:
    """Seconds until the content will be old enough to judge again."""
    wanted = STABLE if removes else SETTLE
    return max(0.01, watched.since + wanted - now)
