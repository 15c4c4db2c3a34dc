"""Addresses of hosts that a manifest may name, and those of the link."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.manifest.host_addresses import address_of, addresses_in, is_host


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.1.2.3", "10.1.2.3"), ("fe80::1%eth0", "fe80::1"), ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("2852039166", "169.254.169.254"), ("0xa9fea9fe", "169.254.169.254"), ("169.254.43518", "169.254.169.254"),
        ("0251.0376.0xa9.254", "169.254.169.254"), ("0", "0.0.0.0"),
        ("h.example.org", None), ("", None), ("1.2.3.4.5", None), ("256.1", None), ("1.16777216", None),
        ("08.1", None), ("4294967296", None), ("1..2", None), ("0x", None), ("1e3", None), ("\u0661.1", None),
    ],
)  # fmt: skip
def test_a_host_is_read_as_resolvers_read_it(text: str, address: str | None) -> None:
    assert address_of(text) == (None if address is None else ipaddress.ip_address(address))


@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=5), st.sampled_from(["{:d}", "{:#x}", "0{:o}"]))
def test_short_forms_are_those_of_inet_aton(parts: list[int], form: str) -> None:
    text = ".".join(map(form.format, parts))
    try:
        expected = ipaddress.IPv4Address(socket.inet_aton(text))
    except OSError:
        expected = None
    assert address_of(text) == expected


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("10.0.0.1", True), ("127.0.0.1", True), ("8.8.8.8", True), ("::1", True), ("fd00::1", True),
        ("169.254.169.254", False), ("0.0.0.0", False), ("224.0.0.1", False), ("100.100.100.200", False),
        ("fe80::1", False), ("fd00:ec2::254", False), ("::", False), ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False), ("2002:a9fe:a9fe::", False), ("::ffff:10.0.0.1", True),
    ],
)  # fmt: skip
def test_addresses_of_the_link_are_no_hosts(text: str, allowed: bool) -> None:
    assert all(map(is_host, addresses_in(ipaddress.ip_address(text)))) == allowed
