"""Bytes, durations, counts and rates: their texts and their numbers. No other module reads or writes these forms."""

from __future__ import annotations

import math
import re

# Patterns are text, which `re` compiles once at the first use: `mullama --help` imports this module and uses none.
_SIZE = r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kKMGT]i?B?|B)?"
_DURATION = r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+"
_DURATION_PART = r"([0-9.]+)(ms|s|m|h|d)"
_RATE = r"([0-9]{1,15})(?:\.([0-9]{1,9}))?([kMG]?)/(s|m|h|d)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_GO_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_GO_DURATION = f"(?:{_GO_PART})+"
_GO_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_MAX_LENGTH = 64  # the regular expression is matched against text of clients

_AGES = (
    ("year", 31_536_000),
    ("month", 2_592_000),
    ("week", 604_800),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
)


def size(count: int, *, digits: int | None = None) -> str:
    """Return bytes for display: `139 MiB`, `4.1 GiB`; with `digits` behind the point, `4.10 GiB`."""
    number, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            break
        number /= 1024
    if digits is not None and unit != "B":
        return f"{number:.{digits}f} {unit}"
    digits = 0 if unit == "B" or abs(number) >= 100 else 1
    return f"{number:.{digits}f}".removesuffix(".0") + f" {unit}"


def parse_size(text: str) -> int:
    """Return the bytes of `8MiB`, `200MB` or `1024`; raise ValueError for other text."""
    if not (m := re.fullmatch(_SIZE, text.strip())):
        raise ValueError("expected a size, such as 512MiB, 8GiB or a number of bytes")
    unit = (m[2] or "").removesuffix("B").upper()
    base = 1024 if unit.endswith("I") else 1000
    exponent: int = " KMGT".index(unit[:1] or " ")
    return round(float(m[1]) * float(base) ** exponent)


def size_literal(count: int) -> str:
    """Return bytes as a manifest spells them: `8MiB`, `2GiB`; the number where no unit divides it."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % length == 0:
            return f"{count // length}{unit}"
    return str(count)


def duration(seconds: float) -> str:
    """Return seconds for display: `12 s`, `4 min`, `2 h`, `3 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def parse_duration(text: str) -> float:
    """Return the seconds of `30s`, `1h30m` or `never` (infinity); raise ValueError for other text."""
    if text == "never":
        return math.inf
    if not re.fullmatch(_DURATION, text.strip()):
        raise ValueError("expected a duration, such as 30s, 10m, 1h30m or never")
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in re.findall(_DURATION_PART, text))


def parse_rate(text: str) -> tuple[int, float]:
    """Return (count, seconds) of `60/m`, `200k/h` or `5M/d`; raise ValueError for other text."""
    found = re.fullmatch(_RATE, text.strip())
    if found is None:
        raise ValueError("expected a rate, such as 60/m, 200k/h or 5M/d")
    whole, decimals, factor, unit = found.groups(default="")
    count, rest = divmod(int(whole + decimals) * 1000 ** " kMG".index(factor or " "), 10 ** len(decimals))
    if rest:
        raise ValueError("expected a rate of a whole number, such as 90/h in place of 1.5/m")
    if not 1 <= count <= 10**15:
        raise ValueError("expected a rate, such as 60/m, 200k/h or 5M/d")
    return count, _SECONDS[unit]


def rate_literal(count: int, seconds: float) -> str:
    """Return a rate as a manifest spells it: `60/m`, `200k/h`."""
    unit = next(unit for unit, length in _SECONDS.items() if length == seconds)
    for letter, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count % factor == 0:
            return f"{count // factor}{letter}/{unit}"
    return f"{count}/{unit}"


def parse_go_duration(text: str) -> float:
    """Return the seconds of Go's notation without a sign: `5m`, `1h30m`, `.5s`; raise ValueError for other text."""
    if len(text) > _GO_MAX_LENGTH or not re.fullmatch(_GO_DURATION, text):
        raise ValueError("expected a duration, such as 5m or 1h30m")
    return sum(float(number) * _GO_SECONDS[unit] for number, unit in re.findall(_GO_PART, text))


def duration_literal(seconds: float) -> str:
    """Return seconds as a manifest spells them: `30s`, `10m`, `1h`."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def ago(seconds: float) -> str:
    """Return an age for display: `3 hours ago`, `just now`."""
    for word, length in _AGES:
        if (number := int(seconds // length)) > 0:
            return f"{counted(number, word)} ago"
    return "just now"


def counted(number: int, word: str) -> str:
    """Return `1 model`, `2 models`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def printable(text: str) -> str:
    """Return the text with every unprintable character replaced by its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
