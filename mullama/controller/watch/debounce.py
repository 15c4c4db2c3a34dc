"""When to act on watched files: after the content has settled, later if models would go, never on a half file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mullama.struct import Struct, replace

SETTLE = 0.3
"""Seconds for which content must stay the same before it is applied."""

STABLE = 5.0
"""Seconds for which content that removes models must stay the same."""


class WatchDecision(StrEnum):
    """The action for the content that was read."""

    WAIT = "wait"
    SAME = "same"
    APPLY = "apply"
    HELD = "held"


class Watched(Struct, frozen=True, kw_only=True):
    """The digests of the watched files."""

    applied: str
    """The content in force."""

    seen: str = ""
    """The content that was read last."""

    since: float = 0.0
    """When `seen` was first read, in monotonic seconds."""

    def saw(self, digest: str, now: float) -> Watched:
        """Return the state after the content was read again."""
        return self if digest == self.seen else replace(self, seen=digest, since=now)


def decide(watched: Watched, now: float, *, removes: int, loaded: int) -> WatchDecision:
    """1. unchanged  2. not settled  3. removals settle longer  4. more than half of the models need an `apply`.

    A half-saved file is often valid and merely shorter, so content that removes models must stay the same for longer.

    removes: loaded models that the new content does not name. loaded: models in memory now.
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
    """Return the seconds until the decision can change."""
    wanted = STABLE if removes else SETTLE
    return max(0.01, watched.since + wanted - now)


class ChangedFiles:
    """Finds the files of models whose state has changed and settled since. settle: seconds without a change."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._states: Mapping[str, object] = {}
        self._since = 0.0
        self._touched: set[str] = set()

    def saw(self, states: Mapping[str, object], now: float) -> frozenset[str]:
        """Return the settled files after a look, each once; empty while files change, and when none has changed.

        states: the state of each file that is not as it was described. A file that is so again has changed, too.
        """
        if states != self._states:
            self._touched |= {path for path in (*states, *self._states) if states.get(path) != self._states.get(path)}
            self._states, self._since = states, now
        if now - self._since < self._settle:
            return frozenset()
        settled, self._touched = frozenset(self._touched), set()
        return settled

    def described(self) -> None:
        """Note that the settled files are described as they are now."""
        self._states = {}
