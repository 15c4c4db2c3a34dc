"""The text of pages in the encodings of the web, with right and wrong labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.tools.search.charset import decoded

TEXT = "Grüße – straße"


@pytest.mark.parametrize(
    ("data", "named", "text"),
    [
        (TEXT.encode(), "utf-8", TEXT),
        (TEXT.encode(), "", TEXT),
        (TEXT.encode("cp1252"), "iso-8859-1", TEXT),
        (TEXT.encode("cp1252"), "windows-1252", TEXT),
        (b'<meta charset="windows-1252">' + TEXT.encode("cp1252"), "", '<meta charset="windows-1252">' + TEXT),
        (b"\xef\xbb\xbf" + TEXT.encode(), "iso-8859-1", TEXT),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "", TEXT),
        ("東京".encode("shift_jis"), "Shift_JIS", "東京"),
        ("東京".encode("euc_jp"), "euc-jp", "東京"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет"),
        # A label that does not fit the bytes; one that fits is believed.
        (TEXT.encode(), "ISO-8859-2", TEXT.encode().decode("iso8859-2")),
        (TEXT.encode("cp1252"), "utf-8", "Gr\ufffd\ufffde \ufffd stra\ufffde"),
        (b'<meta charset="cp1252">' + TEXT.encode("cp1252"), "utf-8", '<meta charset="cp1252">' + TEXT),
        # A label that is no encoding of the web.
        (b"abc", "no-such-charset", "abc"),
        (b"abc\\x41", "unicode_escape", "abc\\x41"),
        (b"+AGEAYg-", "utf-7", "+AGEAYg-"),
        (b"xn--abc", "idna", "xn--abc"),
        (b"eJwLAQAAVwBX", "zip", "eJwLAQAAVwBX"),
        (b"a\0b", "utf-8", "a\ufffdb"),
        (b"", "", ""),
    ],
)
def test_the_first_encoding_that_fits_is_used(data: bytes, named: str, text: str) -> None:
    assert decoded(data, named) == text


def test_a_page_that_is_cut_inside_a_character_is_still_utf_8() -> None:
    data = "straße".encode()[:5]
    assert decoded(data, "", cut=True) == "stra"
    assert decoded(data, "") == "stra\ufffd"


@given(st.binary(max_size=400), st.text(max_size=12))
def test_any_bytes_have_a_text(data: bytes, named: str) -> None:
    assert isinstance(decoded(data, named), str)
