"""The measured duration of decodes by their number of tokens (pure)."""

from __future__ import annotations

from bisect import bisect_left, insort


class DecodeCost:
    """The measured duration of decodes by their number of tokens, and an estimate for other numbers."""

    _ASSUMED = 0.04  # of the shortest decode: a token more, before there are two measurements
    _BULK = 64  # tokens, from which the duration is proportional to the number
    _STALE = 2048  # decodes after which a duration is measured again

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._counts: list[int] = []  # sorted keys of `_seconds`
        self._seen: dict[int, int] = {}
        self._decodes = 0
        self._bulk = 0.0  # seconds per token of a prompt

    def observe(self, *, answers: int, prompts: int, seconds: float) -> None:
        """Record a decode of these numbers of tokens."""
        self._decodes += 1
        if self._decodes % self._STALE == 0:
            self._forget()
        if prompts == 0:
            old = self._seconds.get(answers)
            if old is None:
                insort(self._counts, answers)
                old = seconds
            # A slow decode of a busy machine must not stop speculation for long: shorter ones count more.
            self._seconds[answers] = old + (seconds - old) * (0.5 if seconds < old else 0.2)
            self._seen[answers] = self._decodes
        elif answers == 0 and prompts >= self._BULK:
            self._bulk = seconds / prompts if not self._bulk else 0.8 * self._bulk + 0.2 * seconds / prompts

    def _forget(self) -> None:
        """Forget durations that were not measured for long."""
        for count in [n for n in self._counts if self._decodes - self._seen[n] >= self._STALE]:
            self._counts.remove(count)
            del self._seconds[count], self._seen[count]

    @property
    def known(self) -> bool:
        """True once a decode was observed."""
        return bool(self._counts)

    def seconds(self, tokens: int) -> float:
        """Return the duration of a decode of so many tokens, in seconds; at least one must have been observed.

        Between two measurements it is on the line through them, and beyond the last on the line of the last two. The
        speed of prompts is a measurement of large decodes, where there is no other.
        """
        if tokens in self._seconds:
            return self._seconds[tokens]
        points = [(n, self._seconds[n]) for n in self._counts]
        first = points[0]
        if self._bulk and points[-1][0] < self._BULK:
            points.append((self._BULK, max(first[1], self._bulk * self._BULK)))
        if len(points) == 1:
            return first[1] * (1 + self._ASSUMED * max(0, tokens - first[0]))
        at = min(max(bisect_left(points, (tokens, 0.0)), 1), len(points) - 1)
        (left, low), (right, high) = points[at - 1], points[at]
        value = low + (high - low) * (tokens - left) / (right - left)
        return max(value, first[1] * min(1.0, tokens / first[0]))
