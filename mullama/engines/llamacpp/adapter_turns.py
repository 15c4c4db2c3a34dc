"""Decides whose turn it is among requests with different adapter scales.

llama.cpp applies adapters to a whole context, so one decode computes requests with the same scales only. A set of
scales keeps its turn for some decodes, because the decode after a switch first plans its graph again: a context has
one schedule, and `llama_context::set_adapters_lora` drops its reservation even for a set that it had before. That
costs as much as several tokens (measured processor time, medians of three runs on two busy cores: 17 to 29 ms for the
built-in model, 37 to 100 ms for SmolLM2 135M).
"""

from __future__ import annotations

from collections.abc import Collection

from mullama.engines.llamacpp.cache.checkpoints import Scales

TURN_SECONDS = 0.1
"""Duration of a turn while other sets wait. The decode that passes it is the last one of the turn."""


class AdapterTurns:
    """The turns of one context. Of the sets that wait, the one without a turn for longest is next.

    A set that is new counts from its arrival, so a stream of new sets does not overtake the others. current: the set
    that has its turn.
    """

    def __init__(self, current: Scales) -> None:
        self.current = current
        self._began = 0.0
        self._count = 0
        self._waits_since: dict[Scales, int] = {}  # number of the turn at which each set began to wait

    def choose(self, wanted: Collection[Scales], now: float) -> Scales:
        """Return the set of the next decode. wanted: the sets with something to decode; now: in seconds."""
        others = [scales for scales in dict.fromkeys(wanted) if scales != self.current]
        if not others:
            self._waits_since.clear()
            return self.current
        self._waits_since = {scales: self._waits_since.get(scales, self._count) for scales in others}
        if self.current in wanted and now - self._began < TURN_SECONDS:
            return self.current
        self._count += 1
        chosen = min(others, key=lambda scales: self._waits_since[scales])
        del self._waits_since[chosen]
        if self.current in wanted:
            self._waits_since[self.current] = self._count
        self.current, self._began = chosen, now
        return chosen
