"""Decides how many tokens are worth a guess (pure).

A decode with guesses takes longer, and each accepted guess saves a decode. With a chance p that a guess is accepted
where all before it were, k guesses give p + p^2 + … + p^k tokens more (Leviathan et al., 2023, eq. 1). The policy
chooses the k with the most tokens per second, by measured durations of decodes and measured chances. Zero guesses is
one of the choices, so that speculation is off where it does not pay: in prose, on a processor that computes each token
of a batch at full cost, beside many requests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

LENGTHS = (1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63)
"""Numbers of guesses; few different ones, so that the duration of each is soon known."""
LONGEST = LENGTHS[-1]
MARGIN = 1.08  # guesses must promise this factor more tokens per second

_CLASSES = (4, 6, 12, 24)  # of evidence: the least of each class but the first
_PRIORS = (0.45, 0.55, 0.7, 0.85, 0.95)  # chances by class, before any is measured; from texts in `benches`
_WEIGHT = 4.0  # guesses that a prior counts for
_MEMORY = 96.0  # guesses after which older ones count half

_FAILURES = 4  # more failed drafts than others pause the request
_PAUSE, _LONGEST_PAUSE = 32, 1024  # tokens


class Chances:
    """The measured chance of acceptance of one request's guesses, by the class of their evidence, and its pauses."""

    def __init__(self) -> None:
        self._accepted = [0.0] * len(_PRIORS)
        self._refused = [0.0] * len(_PRIORS)
        self._failures = 0
        self._pause = _PAUSE
        self._resume = 0  # length of the text at which guessing begins again

    def paused(self, length: int) -> bool:
        """True while the request, whose text has this many tokens, gets no guesses."""
        return length < self._resume

    def chance(self, evidence: int) -> float:
        """Return the chance that a guess is accepted where all before it were."""
        at = _class_of(evidence)
        seen = self._accepted[at] + self._refused[at]
        return (self._accepted[at] + _PRIORS[at] * _WEIGHT) / (seen + _WEIGHT)

    def record(self, evidence: int, *, guessed: int, accepted: int, length: int) -> None:
        """Record the verification of a draft of a text of `length` tokens.

        A request is paused when drafts without an accepted guess outnumber the others: longer each time, until a
        draft is accepted after the pause.
        """
        at = _class_of(evidence)
        self._accepted[at] += accepted
        self._refused[at] += accepted < guessed
        if self._accepted[at] + self._refused[at] > _MEMORY:
            self._accepted[at] /= 2
            self._refused[at] /= 2
        if accepted:
            self._failures = max(0, self._failures - 1)
            self._pause = _PAUSE
            return
        self._failures += 1
        if self._failures >= _FAILURES:
            self._failures = _FAILURES // 2
            self._resume = length + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def _class_of(evidence: int) -> int:
    return sum(evidence >= least for least in _CLASSES)


def expected(chance: float, guesses: int) -> float:
    """Return the expected number of accepted guesses."""
    if chance >= 1:
        return float(guesses)
    return chance * (1 - chance**guesses) / (1 - chance)


def best_length(
    chance: float, most: int, *, others: float, tokens: int, seconds: Callable[[int], float], each: float = 0.0
) -> int:
    """Return the number of guesses, at most `most`, with which the next decode gives the most tokens per second.

    The decode has `tokens` tokens without guesses for this request, and `others` is the number of tokens that it
    gives to other requests. seconds: the duration of a decode of so many tokens. each: seconds that one guess takes.
    """
    best, rate = 0, (1 + others) / seconds(tokens) * MARGIN
    for guesses in (*LENGTHS[: bisect_left(LENGTHS, most)], most):
        if not 0 < guesses <= LONGEST:
            continue
        promised = (1 + others + expected(chance, guesses)) / (seconds(tokens + guesses) + each * guesses)
        if promised > rate:
            best, rate = guesses, promised
    return best
