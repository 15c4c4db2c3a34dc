"""Bytes, durations and counts as text, and durations and bytes from text: each form is read and written here once."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes as people read them: `139 MiB`, `4.1 GiB`."""
    number, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            break
        number /= 1024
    digits = 0 if unit == "B" or abs(number) >= 100 else 1
    return f"{number:.{digits}f}".removesuffix(".0") + f" {unit}"


def counted(number: int, word: str) -> str:
    """`1 model`, `2 models`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def printable(text: str) -> str:
    """The text with every character that is not printed as itself written as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
