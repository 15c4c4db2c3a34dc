"""Sound as samples: voice activity, rates, windows of long sounds. Pure, over numpy.

All sound here is mono at 16 kHz in float32 from -1 to 1, and places are counted in its samples from the beginning.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]

RATE = 16_000
"""Samples of one second."""
FRAME = 512
"""Samples of one frame, for which a detector gives a score: 32 ms."""


def seconds(samples: int) -> float:
    """Return the duration of a number of samples."""
    return samples / RATE


def samples(seconds: float) -> int:
    """Return the number of samples of a duration."""
    return round(seconds * RATE)
