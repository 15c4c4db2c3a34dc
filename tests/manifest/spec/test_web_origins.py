"""Entries of `server.cors` and `server.allowed_hosts`: what they match, and the right spelling of the others."""

from __future__ import annotations

import pytest

from mullama.errors import Invalid
from mullama.manifest.spec.web_origins import host_pattern, origin_pattern

ORIGINS = {
    "https://ui.example.org", "http://ui.example.org", "https://ui.example.org:8443", "https://a.ui.example.org",
    "https://example.org", "https://x--y.example.org", "http://localhost:3000", "http://localhost", "http://[::1]:3000",
    "https://xn--mnchen-3ya.example", "app://obsidian.md", "chrome-extension://abcdef", "null", "HTTPS://UI.EXAMPLE.ORG",
    "https://ui.example.org/", "https://ui.example.org.evil.example", "https://evilexample.org",
}  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "matched"),
    [
        ("https://ui.example.org", {"https://ui.example.org"}),
        ("https://ui.example.org/", {"https://ui.example.org"}),
        ("HTTPS://UI.example.org", {"https://ui.example.org"}),
        ("https://ui.example.org:443", {"https://ui.example.org"}),
        ("http://ui.example.org:80/", {"http://ui.example.org"}),
        ("https://ui.example.org:8443", {"https://ui.example.org:8443"}),
        ("https://ui.example.org:*", {"https://ui.example.org", "https://ui.example.org:8443"}),
        ("https://*.example.org",
         {"https://ui.example.org", "https://a.ui.example.org", "https://x--y.example.org"}),
        ("http://localhost:*", {"http://localhost", "http://localhost:3000"}),
        ("http://[0:0::1]:3000", {"http://[::1]:3000"}),
        ("https://münchen.example", {"https://xn--mnchen-3ya.example"}),
        ("app://*", {"app://obsidian.md"}),
        ("chrome-extension://*", {"chrome-extension://abcdef"}),
        ("null", {"null"}),
        ("*", ORIGINS),
    ],
)  # fmt: skip
def test_an_entry_matches_the_origins_that_it_means(entry: str, matched: set[str]) -> None:
    pattern = origin_pattern(entry)
    assert {origin for origin in ORIGINS if pattern.fullmatch(origin)} == matched


@pytest.mark.parametrize(
    ("entry", "reason", "spelling"),
    [
        ("ui.example.org", "the scheme is missing", "write https://ui.example.org"),
        ("UI.example.org:8080/", "the scheme is missing", "write https://ui.example.org:8080"),
        ("*.example.org", "the scheme is missing", "write https://*.example.org"),
        ("https://ui.example.org/chat", "nothing else", "write https://ui.example.org"),
        ("http://ui.example.org:3000/?x#y", "nothing else", "write http://ui.example.org:3000"),
        ("https://a.example,https://b.example", "nothing else", "write https://a.example"),
        ("https://me:secret@ui.example.org", "a user name", "write https://ui.example.org"),
        ("https://", "nothing else", "https://ui.example.org"),
        ("https://ui.ex*mple.org", "no valid host name", "* may stand for the first labels: *.example.org"),
        ("https://a.*.org", "no valid host name", "* may stand for the first labels: *.example.org"),
        ("https://ui.example.org:99999", "99999 is not a port", "0 to 65535, or * for every port"),
        ("http://[1:2]", "not an IPv6 address", "http://[::1]:3000"),
        ("", "the scheme is missing", "https://ui.example.org"),
    ],
)
def test_an_entry_that_no_origin_can_match_is_refused_with_the_right_spelling(
    entry: str, reason: str, spelling: str
) -> None:
    with pytest.raises(Invalid) as caught:
        origin_pattern(entry)
    assert reason in caught.value.message
    assert caught.value.hint == spelling
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "good", "bad"),
    [
        ("llm.example.org", "llm.example.org", "a.llm.example.org"),
        ("LLM.Example.org.", "llm.example.org", "example.org"),
        ("*.example.org", "a.b.example.org", "example.org"),
        ("10.0.0.9", "10.0.0.9", "10a0b0.9"),
        ("[fd00:0::5]", "fd00::5", "fd00::6"),
        ("fd00::5", "fd00::5", "fd00::6"),
    ],
)
def test_a_host_entry_matches_the_names_that_it_means(entry: str, good: str, bad: str) -> None:
    assert host_pattern(entry).fullmatch(good)
    assert not host_pattern(entry).fullmatch(bad)
    assert host_pattern("*").fullmatch(bad)


@pytest.mark.parametrize(
    ("entry", "spelling"),
    [
        ("https://LLM.example.org", "write llm.example.org"),
        ("llm.example.org:8080", "write llm.example.org"),
        ("https://llm.example.org:1/x", "write llm.example.org"),
        ("[::1]:80", "write [::1]"),
        ("two words", "llm.example.org or *.example.org"),
        ("", "llm.example.org or *.example.org"),
    ],
)
def test_a_host_entry_that_no_host_can_match_is_refused_with_the_right_spelling(entry: str, spelling: str) -> None:
    with pytest.raises(Invalid) as caught:
        host_pattern(entry)
    assert caught.value.hint == spelling
