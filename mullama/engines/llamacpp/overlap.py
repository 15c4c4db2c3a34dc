"""Decides whether the text of a decode is written while the next one computes (pure)."""

from __future__ import annotations

_SMALL = 0.5  # share of a decode; a larger one delays text by more than it hides
_WEIGHT = 0.25  # of the last measurement


class Overlap:
    """Measures how much of a decode llama.cpp takes to accept it.

    A GPU computes after the call returns, until the logits are read. The CPU computes within the call, so there text
    would wait for a whole decode and nothing would be gained.
    """

    def __init__(self) -> None:
        self._share = 1.0

    @property
    def pays(self) -> bool:
        """True if most of a decode remains once it is accepted."""
        return self._share < _SMALL

    def observe(self, *, accepted: float, computed: float) -> None:
        """Record the seconds from the begin of a decode until it was accepted, and until its logits were there."""
        if computed > 0:
            self._share += _WEIGHT * (accepted / computed - self._share)
