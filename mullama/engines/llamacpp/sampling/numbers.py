"""Ends the numbers of constrained JSON: a grammar allows digits without end, and small models write them."""

from __future__ import annotations

from typing import Final

# No writer of JSON needs more for a double, or for an integer of 64 bits: 17 significant digits are exact, JavaScript
# writes 21 digits and six zeros after the point without an exponent, and an exponent has three.
INTEGER_DIGITS: Final = 21
FRACTION_DIGITS: Final = 24
EXPONENT_DIGITS: Final = 3

_MOST: Final = {"": 2**31, "integer": INTEGER_DIGITS, "fraction": FRACTION_DIGITS, "exponent": EXPONENT_DIGITS}
_DIGITS: Final = frozenset(b"0123456789")


class NumberGuard:
    """Follows JSON text and counts the digits of the number that is being written.

    mark: strings are not between quotes but between two marks such as `<escape>`, and have no `<` themselves.
    """

    def __init__(self, mark: str = "") -> None:
        self._mark = mark.encode()
        self._tag = b""  # the text from a `<` on
        self._in_string = self._escaped = False
        self._part = ""  # of a number: integer, fraction or exponent
        self._count = 0

    @property
    def full(self) -> bool:
        """True when the present part of a number has as many digits as it may have."""
        return self._count >= _MOST[self._part]

    def feed(self, text: bytes) -> None:
        """Follow the next bytes, which may end inside a character."""
        if self._mark:
            self._feed_marked(text)
            return
        if self._in_string and not self._escaped and b'"' not in text and b"\\" not in text:
            return
        for byte in text:
            if self._in_string:
                self._in_string = self._escaped or byte != 0x22
                self._escaped = not self._escaped and byte == 0x5C
            else:
                self._outside(byte)
                self._in_string = byte == 0x22

    def _feed_marked(self, text: bytes) -> None:
        for byte in text:
            if self._tag:
                self._tag += bytes((byte,))
                if byte == 0x3E:
                    self._in_string ^= self._tag == self._mark
                    self._tag = b""
            elif byte == 0x3C:
                self._tag = b"<"
                self._enter("")
            elif not self._in_string:
                self._outside(byte)

    def _outside(self, byte: int) -> None:
        """Follow a byte outside of strings."""
        if byte in _DIGITS:
            if not self._part:
                self._enter("integer")
            self._count += 1
        elif byte == 0x2E and self._part == "integer":
            self._enter("fraction")
        elif byte in b"eE" and self._part in ("integer", "fraction"):
            self._enter("exponent")
        elif not (byte in b"+-" and self._part == "exponent"):
            self._enter("")

    def _enter(self, part: str) -> None:
        self._part, self._count = part, 0


def without_digits(mask: bytes, digits: int) -> bytes:
    """Return the mask without the tokens that begin with a digit; the mask itself if nothing else is allowed.

    digits: the mask of these tokens, as an integer with the lowest token in the lowest bit.
    """
    left = int.from_bytes(mask, "little") & ~digits
    return left.to_bytes(len(mask), "little") if left else mask
