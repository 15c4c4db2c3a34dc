"""Sound as bytes: 16-bit PCM."""

from __future__ import annotations

import numpy as np

from mullama.audio import Samples

_FULL = 32767


def to_pcm(sound: Samples) -> bytes:
    """Return a sound as signed 16-bit little-endian samples; what is beyond full scale is clipped."""
    return (np.clip(sound, -1, 1) * _FULL).round().astype("<i2").tobytes()
