"""Decodes the bytes of a web page: byte order mark, header, declaration in the page, UTF-8. Pure."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

_HEAD: Final = 4096
"""Bytes at the start of a page in which its declaration is looked for; HTML requires it in the first 1024."""
_DECLARED = re.compile(rb"<(?:meta\b[^>]*?charset|\?xml\b[^>]*?encoding)\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# The encodings of the web (https://encoding.spec.whatwg.org), by the names of Python. Other codecs are not for pages,
# and some of them take very long for long texts.
_KNOWN: Final = frozenset((
    "utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp866", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "cp874",
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)), *(f"cp125{part}" for part in range(9)),
    "gbk", "gb18030", "big5", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949",
))  # fmt: skip
# Browsers read these as their supersets.
_SUPERSETS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gbk", "shift_jis": "cp932", "euc_kr": "cp949",
}  # fmt: skip


def decoded(data: bytes, named: str = "", *, cut: bool = False) -> str:
    """Return the text of a page.

    named: the charset of the header, "" for none. cut: the page continues, and its last character may be incomplete.

    The first encoding that fits all bytes is used; if none does, UTF-8 with replacement characters.
    """
    for name in _candidates(data, named):
        try:
            return (
                codecs.getincrementaldecoder(name)("strict")
                .decode(data, final=not cut)
                .replace("\0", "\N{REPLACEMENT CHARACTER}")
            )
        except UnicodeDecodeError:
            continue
    return data.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _candidates(data: bytes, named: str) -> Iterator[str]:
    for mark, name in _MARKS:
        if data.startswith(mark):
            yield name
    found = _DECLARED.search(data[:_HEAD])
    for label in (named, found[1].decode("ascii", "replace") if found else "", "utf-8"):
        if label and (name := _codec(label)):
            yield name


def _codec(label: str) -> str:
    """Return the name of the codec for a label of the web; "" for one that is not known."""
    try:
        name = codecs.lookup(label.strip("\"' ")).name
    except (LookupError, ValueError):
        return ""
    name = _SUPERSETS.get(name, name)
    return name if name in _KNOWN else ""
