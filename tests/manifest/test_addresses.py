"""Addresses to listen on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid
from mullama.manifest.addresses import TcpAddress, UnixAddress, parse_address

GOOD = [
    ("127.0.0.1:11434", TcpAddress(host="127.0.0.1", port=11434), True),
    ("127.9.9.9:1", TcpAddress(host="127.9.9.9", port=1), True),
    ("localhost:0", TcpAddress(host="localhost", port=0), True),
    ("[::1]:80", TcpAddress(host="::1", port=80), True),
    ("[::]:80", TcpAddress(host="::", port=80), False),
    ("[::ffff:127.0.0.1]:80", TcpAddress(host="::ffff:127.0.0.1", port=80), False),
    ("0.0.0.0:65535", TcpAddress(host="0.0.0.0", port=65535), False),
    ("192.168.1.2:80", TcpAddress(host="192.168.1.2", port=80), False),
    ("llm.example.org:443", TcpAddress(host="llm.example.org", port=443), False),
    ("localhost.example.org:443", TcpAddress(host="localhost.example.org", port=443), False),
    ("unix:/run/mullama.sock", UnixAddress(path="/run/mullama.sock"), True),
]


@pytest.mark.parametrize(("text", "address", "loopback"), GOOD)
def test_an_address_is_read_written_and_known_to_be_loopback_or_not(
    text: str, address: TcpAddress | UnixAddress, loopback: bool
) -> None:
    assert parse_address(text) == address
    assert str(address) == text
    assert address.loopback is loopback


BAD = [
    "127.0.0.1",
    ":11434",
    "11434",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:65536",
    "127.0.0.1:-1",
    "::1:80",
    "[::1]",
    "[::1]80",
    "[x]:80",
    "[1.2.3]:80",
    "256.0.0.1:80",
    "1.2.3:80",
    "127.1:80",
    "*:80",
    "-a:80",
    "a-:80",
    "a..b:80",
    "a_b:80",
    "http://127.0.0.1:80",
    "127.0.0.1:80/x",
    "unix:",
    "tcp:127.0.0.1:80",
    "[127.0.0.1:80",
    "é.example:80",
    "127.0.0.1:000080",
]


@pytest.mark.parametrize("text", [*BAD, "", " 127.0.0.1:80", "127.0.0.1:80\n", "a b:80", "unix:/" + "x" * 200])
def test_what_cannot_be_bound_as_written_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_address(text)
    assert caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_an_address_that_writes_itself_or_is_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except Invalid:
        return
    assert parse_address(str(address)) == address
