"""Pages of the web: their limits, and the addresses that are never asked."""

from __future__ import annotations

import gzip

import pytest

from mullama.errors import MullamaError, Refused, TimedOut, Unavailable, Unsupported
from mullama.sources.network import Allowed
from mullama.tools.search.web_requests import FetchedPage, fetch_page
from tests.tools.search.stub_web import StubWeb, only_here

pytestmark = pytest.mark.anyio


async def fetch(url: str, *, most: int = 10_000, seconds: float = 20, allowed: Allowed = only_here) -> FetchedPage:
    return await fetch_page(url, lambda host: host != "denied.example", most=most, seconds=seconds, allowed=allowed)


async def test_a_page(web: StubWeb) -> None:
    page = await fetch(web.page("/a", "<p>hello", "text/html; charset=ISO-8859-1"))
    assert page == FetchedPage(url=f"{web.url}/a", media="text/html", charset="ISO-8859-1", data=b"<p>hello", cut=False)
    ((_, headers),) = web.requests
    assert headers["user-agent"].startswith("mullama/")
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers


async def test_a_redirect_leads_to_another_page(web: StubWeb) -> None:
    web.page("/b", "text", "text/plain")
    page = await fetch(web.redirect("/a", "/b"))
    assert (page.url, page.media, page.charset, page.data) == (f"{web.url}/b", "text/plain", "", b"text")


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.2/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://2130706434/",
        "http://0x7f.2/",
        "http://denied.example/",
    ],
)
async def test_no_redirect_leads_to_an_address_that_is_not_allowed(web: StubWeb, target: str) -> None:
    with pytest.raises(Refused):
        await fetch(web.redirect("/a", target))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "[fe80::1]"])
async def test_only_public_addresses_are_asked_without_a_word_of_the_test(host: str) -> None:
    with pytest.raises(Refused, match="not a public address"):
        await fetch_page(f"http://{host}:9/", lambda _: True, most=10, seconds=20)


async def test_redirects_without_an_end_and_to_other_schemes(web: StubWeb) -> None:
    with pytest.raises(Unavailable, match="more than 5 redirects"):
        await fetch(web.redirect("/a", "/a"))
    for target in ("file:///etc/passwd", "ftp://h/", "javascript:alert(1)"):
        with pytest.raises(Unavailable):
            await fetch(web.redirect("/b", target))


async def test_a_large_page_is_cut(web: StubWeb) -> None:
    page = await fetch(web.page("/a", "x" * 50_000), most=1000)
    assert (len(page.data), page.cut) == (1000, True)
    page = await fetch(web.page("/b", "x" * 1000), most=1000)
    assert (len(page.data), page.cut) == (1000, False)


async def test_an_endless_page_is_cut(web: StubWeb) -> None:
    page = await fetch(web.endless("/a", b"x" * 4096), most=100_000)
    assert (len(page.data), page.cut) == (100_000, True)


async def test_a_slow_page_without_an_end_gives_the_part_that_came_in_time(web: StubWeb) -> None:
    page = await fetch(web.endless("/a", b"word ", pause=0.02), seconds=1.0)
    assert page.cut
    assert page.data.startswith(b"word word")


async def test_a_silent_page_ends_in_time(web: StubWeb) -> None:
    with pytest.raises((TimedOut, Unavailable)):
        await fetch(web.silent("/a"), seconds=0.3)


@pytest.mark.parametrize(
    ("media", "kind"),
    [
        ("image/png", Unsupported),
        ("application/pdf", Unsupported),
        ("application/octet-stream", Unsupported),
        ("text/event-stream", Unsupported),
        ("nonsense", Unsupported),
        ("text/markdown", None),
        ("application/ld+json", None),
        ("application/xhtml+xml;charset=utf-8", None),
    ],
)
async def test_only_text_is_read(web: StubWeb, media: str, kind: type[MullamaError] | None) -> None:
    url = web.page("/a", b"data", media)
    if kind is None:
        assert (await fetch(url)).data == b"data"
    else:
        with pytest.raises(kind, match="only text is read"):
            await fetch(url)


async def test_a_page_that_is_not_there(web: StubWeb) -> None:
    with pytest.raises(Unavailable, match="status 404"):
        await fetch(web.url + "/none?token=SECRET")
    with pytest.raises(Unavailable, match="cannot be fetched"):
        await fetch("http://127.0.0.1:1/")


async def test_a_compressed_page_is_refused(web: StubWeb) -> None:
    def answer(one: object) -> None:
        from http.server import BaseHTTPRequestHandler

        assert isinstance(one, BaseHTTPRequestHandler)
        data = gzip.compress(b"<p>" * 10_000)
        one.send_response(200)
        one.send_header("Content-Type", "text/html")
        one.send_header("Content-Encoding", "gzip")
        one.send_header("Content-Length", str(len(data)))
        one.end_headers()
        one.wfile.write(data)

    web.answers["/a"] = answer
    with pytest.raises(Unavailable, match="compressed"):
        await fetch(web.url + "/a")
