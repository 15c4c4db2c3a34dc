"""Sound of a session: its formats, and the buffer of the client's input."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence

from mullama.dialects import fields
from mullama.errors import Invalid, TooLarge
from mullama.names import JSONValue
from mullama.struct import Struct
from mullama.units import size

_RATES = (8_000, 96_000)
_RATE = fields.integer("rate", *_RATES)
_DEFAULT_RATE = 24_000
_COMPANDED_RATE = 8_000


class SoundFormat(Struct, frozen=True, kw_only=True):
    """A format of samples of one channel."""

    name: str = "audio/pcm"
    """`audio/pcm` (16 bit, little-endian), `audio/pcmu` or `audio/pcma` (G.711)."""
    rate: int = _DEFAULT_RATE
    """Samples of one second."""

    @classmethod
    def read(cls, value: JSONValue, path: str) -> SoundFormat:
        """Return the format of `{type, rate}`. Raises `Invalid` for another one."""
        body = fields.Body(value, path)
        name = body.need(fields.choice("type", ("audio/pcm", *_COMPANDED)))
        if name in _COMPANDED:
            return cls(name=name, rate=_COMPANDED_RATE)
        return cls(rate=body.get(_RATE) or _DEFAULT_RATE)

    def shown(self) -> dict[str, JSONValue]:
        """Return the wire form."""
        return {"type": self.name, **({"rate": self.rate} if self.name == "audio/pcm" else {})}

    def samples(self, data: bytes) -> bytes:
        """Return 16-bit samples. Raises `Invalid` for half a sample."""
        if self.name in _COMPANDED:
            return _little_endian(array("h", map(_COMPANDED[self.name].__getitem__, data)))
        if len(data) % 2:
            raise Invalid("audio has an odd number of bytes: a sample has two", field="audio")
        return data


def _little_endian(samples: array[int]) -> bytes:
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def _of_mu_law(code: int) -> int:
    """Return the sample of a code of mu-law, by ITU-T G.711."""
    code = ~code & 0xFF
    value = ((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)
    return 0x84 - value if code & 0x80 else value - 0x84


def _of_a_law(code: int) -> int:
    """Return the sample of a code of A-law, by ITU-T G.711."""
    code ^= 0x55
    segment, value = (code & 0x70) >> 4, (code & 0x0F) << 4
    value = value + 8 if segment == 0 else value + 0x108 << (segment - 1)
    return value if code & 0x80 else -value


_COMPANDED: Mapping[str, Sequence[int]] = {
    "audio/pcmu": tuple(map(_of_mu_law, range(256))),
    "audio/pcma": tuple(map(_of_a_law, range(256))),
}


class InputBuffer:
    """The sound that the client sent and that is no part of a turn yet. Times are milliseconds of all its sound."""

    def __init__(self, rate: int, most: int) -> None:
        self.rate = rate
        self.most = most
        self._samples = bytearray()
        self._begin = 0  # the place of its first sample

    def __len__(self) -> int:
        """The bytes of the samples."""
        return len(self._samples)

    @property
    def begin(self) -> int:
        """The time of the first sample that is kept."""
        return self._begin * 1000 // self.rate

    @property
    def end(self) -> int:
        """The time after the last sample."""
        return (self._begin + len(self._samples) // 2) * 1000 // self.rate

    def add(self, samples: bytes) -> None:
        """Append 16-bit samples. Raises `TooLarge` for more than one turn may have, and keeps none of them."""
        if len(self._samples) + len(samples) > self.most:
            raise TooLarge(
                f"the input audio buffer would have more than {self.most / 2 / self.rate:g} s ({size(self.most)})",
                hint="commit or clear it, or raise server.limits.sessions or server.limits.media.sound in the manifest",
            )
        self._samples += samples

    def take(self, begin: int, end: int) -> bytes:
        """Return the samples between two times, and drop those before the end."""
        first = max(0, begin * self.rate // 1000 - self._begin)
        last = max(first, end * self.rate // 1000 - self._begin)
        taken = bytes(self._samples[2 * first : 2 * last])
        self._drop(last)
        return taken

    def keep(self, after: int) -> None:
        """Drop the samples before a time."""
        self._drop(after * self.rate // 1000 - self._begin)

    def clear(self) -> None:
        """Drop all samples."""
        self._drop(len(self._samples) // 2)

    def _drop(self, count: int) -> None:
        count = min(max(count, 0), len(self._samples) // 2)
        del self._samples[: 2 * count]
        self._begin += count
