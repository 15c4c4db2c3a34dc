"""Files of WAV."""

from __future__ import annotations

import struct


def wav_file(pcm: bytes, *, rate: int = 16_000) -> bytes:
    """Return a WAV file of mono 16-bit PCM."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + len(pcm), b"WAVE") + form + struct.pack("<4sI", b"data", len(pcm)) + pcm
