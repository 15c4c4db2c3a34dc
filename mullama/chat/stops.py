"""Finds stop strings in text that arrives in pieces, and holds back only a possible beginning of one.

The search is an Aho-Corasick automaton: each character is read once, for any number of strings.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Splits a stream of text at the first stop string. Empty strings are ignored."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._found: list[str | None] = [None]
        self._fall: list[int] = [0]
        for stop in stops:
            if stop:
                self._add(stop)
        self._link()
        self._state = 0
        self._held = ""
        self.rest = ""  # what followed the stop string in the text that ended with it

    def feed(self, text: str) -> tuple[str, str | None]:
        """Return the text that no stop string can contain any more, and the stop string that was found, if any."""
        if not self._next[0]:
            return text, None
        state = self._state
        if state == 0 and self._next[0].keys().isdisjoint(text):
            return text, None
        held = self._held + text
        start = len(self._held)
        for index in range(start, len(held)):
            state = self._step(state, held[index])
            stop = self._found[state]
            if stop is not None:
                self._state, self._held, self.rest = 0, "", held[index + 1 :]
                return held[: index + 1 - len(stop)], stop
        self._state = state
        keep = len(held) - self._depth[state]
        self._held = held[keep:]
        return held[:keep], None

    @property
    def holds(self) -> bool:
        """True while text is held back."""
        return bool(self._held)

    def flush(self) -> str:
        """Return the held-back text at the end of the stream."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _step(self, state: int, char: str) -> int:
        while state and char not in self._next[state]:
            state = self._fall[state]
        return self._next[state].get(char, 0)

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            following = self._next[state].get(char)
            if following is None:
                following = len(self._next)
                self._next[state][char] = following
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._found.append(None)
                self._fall.append(0)
            state = following
        self._found[state] = stop

    def _link(self) -> None:
        """Return the state after a mismatch: the longest suffix that begins a stop string."""
        queue = list(self._next[0].values())
        for state in queue:
            for char, following in self._next[state].items():
                queue.append(following)
                fall = self._step(self._fall[state], char)
                self._fall[following] = fall
                if self._found[following] is None:
                    self._found[following] = self._found[fall]
