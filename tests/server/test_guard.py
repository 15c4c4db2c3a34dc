"""Checks of Host and Origin, on values and through a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import pytest

from mullama.server.guard import check_host, check_origin, cors_headers, is_own_page, preflight_headers
from mullama.server.http.exchange import Listener, Rejection
from tests.server.server_fixture import CHAT, RunningServer, StubRuntime, manifest, read_all, running_server

LOOPBACK = Listener(hosts=("127.0.0.1",))
EVERYWHERE = Listener(hosts=("0.0.0.0",))
NAMED = Listener(hosts=("box.lan", "192.168.1.5"))
ALLOWED = ("models.example.org", "*.corp.example", "10.0.0.9")

GOOD_HOSTS = [
    "localhost",
    "localhost:11434",
    "LOCALHOST:1",
    "localhost.",
    "app.localhost",
    "127.0.0.1",
    "127.0.0.1:11434",
    "127.8.9.10",
    "[::1]",
    "[::1]:11434",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]:80",
]
ALLOWED_HOSTS = ["models.example.org", "Models.Example.Org:443", "a.corp.example", "a.b.corp.example", "10.0.0.9"]
BAD_HOSTS = [
    "evil.example",
    "evil.example:11434",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "notlocalhost",
    "x.local",
    "x.internal",
    "corp.example",
    "evilcorp.example",
    "models.example.org.evil.example",
    "8.8.8.8",
    "0.0.0.0",
    "[::]",
    "[fe80::1]",
    "[::1",
    "::1",
    "2130706433",
    "0x7f.0.0.1",
    "127.1",
    "",
    " ",
    "localhost/",
    "localhost/..",
    "localhost?x",
    "localhost#x",
    "user@localhost",
    "localhost@evil.example",
    "localhost:port",
    "localhost:123456",
    "localhost localhost",
    "localhost, localhost",
    "localhost\\",
    "lo%63alhost",
    "localhost:11434:1",
    "ⓛocalhost",
]


def admits(
    host: str | None, listener: Listener, local: str | None = "127.0.0.1", allowed: tuple[str, ...] = ()
) -> bool:
    try:
        check_host(host, listener, local, allowed)
    except Rejection:
        return False
    return True


def test_a_wrong_host_is_403_and_a_missing_one_400() -> None:
    for host, status in (("evil.example", 403), (None, 400)):
        with pytest.raises(Rejection) as caught:
            check_host(host, LOOPBACK, "127.0.0.1", ())
        assert (caught.value.status, caught.value.close) == (status, True)


@pytest.mark.parametrize("listener", [LOOPBACK, EVERYWHERE, NAMED])
def test_loopback_names_are_ours_on_every_listener(listener: Listener) -> None:
    assert all(admits(host, listener) for host in GOOD_HOSTS)


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_other_names_are_not_ours(host: str) -> None:
    assert not admits(host, LOOPBACK, allowed=ALLOWED)


def test_allowed_hosts_are_ours() -> None:
    assert all(admits(host, LOOPBACK, allowed=ALLOWED) for host in ALLOWED_HOSTS)
    assert not any(admits(host, LOOPBACK) for host in ALLOWED_HOSTS)


def test_the_hosts_of_a_listener_are_ours() -> None:
    assert admits("box.lan:80", NAMED, local="192.168.1.5")
    assert admits("192.168.1.5", NAMED, local="192.168.1.5")
    assert admits("0.0.0.0:11434", EVERYWHERE)


def test_on_a_wide_bind_only_the_address_that_was_reached_is_ours() -> None:
    assert admits("192.168.1.5:11434", EVERYWHERE, local="192.168.1.5")
    assert not admits("192.168.1.6", EVERYWHERE, local="192.168.1.5")
    assert not admits("box.lan", EVERYWHERE, local="192.168.1.5")
    assert admits("[fd00::5]", EVERYWHERE, local="fd00:0:0::5")


def test_a_unix_socket_is_not_asked_for_its_host() -> None:
    assert admits("anything", Listener(kind="unix"), local=None)
    assert admits(None, Listener(kind="control"), local=None)


GOOD_ORIGINS = [
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:8443",
    "http://127.0.0.1:5173",
    "http://0.0.0.0:8080",
    "http://[::1]:3000",
    "app://obsidian.md",
    "tauri://localhost",
    "vscode-webview://abc123",
    "vscode-file://vscode-app",
    "https://chat.example.org",
]
BAD_ORIGINS = [
    "null",
    "",
    "https://evil.example",
    "http://localhost.evil.example",
    "http://localhost@evil.example",
    "http://localhost:3000.evil.example",
    "https://chat.example.org.evil.example",
    "https://chat.example.org:8443",
    "http://chat.example.org",
    "HTTPS://CHAT.EXAMPLE.ORG",
    "https://chat.example.org/",
    "chrome-extension://abc",
    "ftp://localhost",
    "*",
    "http://localhost, http://localhost",
]
CORS = ("https://chat.example.org",)


def test_origins_are_matched_exactly() -> None:
    for origin in GOOD_ORIGINS:
        check_origin({"origin": origin}, CORS)
    for origin in BAD_ORIGINS:
        with pytest.raises(Rejection) as caught:
            check_origin({"origin": origin}, CORS)
        assert caught.value.status == 403


def test_a_cross_site_request_without_an_origin_is_refused() -> None:
    with pytest.raises(Rejection):
        check_origin({"sec-fetch-site": "cross-site"}, CORS)
    for site in ("same-origin", "same-site", "none"):
        check_origin({"sec-fetch-site": site}, CORS)
    check_origin({"sec-fetch-site": "cross-site", "origin": CORS[0]}, CORS)
    check_origin({"sec-fetch-site": "cross-site"}, ("*",))


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("content-type, X-Stainless-Arch, x-api-key", "content-type, X-Stainless-Arch, x-api-key"),
        ("x-title,http-referer,traceparent", "x-title, http-referer, traceparent"),
        ("x-good, bad name, x-(), , x-\x00, x-also", "x-good, x-also"),
        ("", ""),
        (", ".join(f"x-{n}" for n in range(100)), ", ".join(f"x-{n}" for n in range(64))),
    ],
)
def test_a_preflight_grants_the_headers_that_the_page_asks_for(asked: str, granted: str) -> None:
    assert preflight_headers({"access-control-request-headers": asked})["access-control-allow-headers"] == granted


@pytest.mark.parametrize(
    ("allowed", "origin", "origin_header", "credentials"),
    [
        ((), None, None, None),
        ((), "https://evil.example", None, None),
        ((), "http://localhost:3000", "http://localhost:3000", "true"),
        (CORS, "https://chat.example.org", "https://chat.example.org", "true"),
        (("HTTPS://Chat.Example.org:443/",), "https://chat.example.org", "https://chat.example.org", "true"),
        (("https://*.example.org",), "https://a.b.example.org", "https://a.b.example.org", "true"),
        (("https://*.example.org",), "https://example.org", None, None),
        (("*",), "http://web.mydomain.fr", "http://web.mydomain.fr", None),
        (("*",), "null", "null", None),
        (("*", "https://a.example"), "https://a.example", "https://a.example", "true"),
    ],
)
def test_the_cors_headers_name_the_origin_of_an_allowed_page(
    allowed: tuple[str, ...], origin: str | None, origin_header: str | None, credentials: str | None
) -> None:
    headers = cors_headers({"origin": origin} if origin is not None else {}, allowed)
    assert headers.get("access-control-allow-origin") == origin_header
    assert headers.get("access-control-allow-credentials") == credentials
    assert headers["vary"] == "Origin"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(StubRuntime(manifest=manifest(server={"cors": list(CORS)}))) as running:
        yield running


def ask(server: RunningServer, method: str, path: str, host: str, origin: str | None) -> int:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Length: 0", "Connection: close"]
    if origin is not None:
        lines.append(f"Origin: {origin}")
    with server.connect() as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        return int(read_all(connection).split(b" ", 2)[1])


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PATHS = ["/", "/api/tags", "/v1/models", "/v1/messages", "/livez", "/api/v1/stack", "/nothing"]


def test_no_method_and_no_path_is_open_to_a_wrong_host_or_origin(server: RunningServer) -> None:
    """Every cell of host × origin × method × path that is wrong in one of the first two is 400 or 403."""
    hosts = ["localhost", "evil.example", "localhost@evil.example"]
    origins = [None, "http://localhost:3000", "https://evil.example", "null"]
    for method, path in itertools.product(METHODS, PATHS):
        for host, origin in itertools.product(hosts, origins):
            status = ask(server, method, path, host, origin)
            wrong = host != "localhost" or origin in ("https://evil.example", "null")
            assert (status == 403) == wrong, (method, path, host, origin, status)


CALLS = {
    "a stream": ("POST", "/v1/chat/completions", CHAT, {"content-type": "application/json"}),
    "an answer": ("POST", "/api/chat", {**CHAT, "stream": False}, {"content-type": "application/json"}),
    "another media type": ("POST", "/v1/chat/completions", CHAT, {"content-type": "text/plain"}),
    "no such path": ("GET", "/v1/nothing", None, {}),
    "another method": ("GET", "/v1/messages", None, {}),
    "invalid JSON": ("POST", "/v1/messages", b"{", {"content-type": "application/json"}),
    "two lengths": ("GET", "/livez", None, {"content-length": "0", "transfer-encoding": "chunked"}),
    "a foreign host": ("GET", "/livez", None, {"host": "evil.example"}),
    "liveness": ("GET", "/livez", None, {}),
    "metrics": ("GET", "/metrics", None, {}),
    "OPTIONS without a preflight": ("OPTIONS", "/v1/models", None, {}),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_page_that_may_gets_its_cors_headers_with_every_response(call: str, server: RunningServer) -> None:
    method, path, body, headers = CALLS[call]
    answer = server.ask(method, path, body, {"origin": CORS[0], **headers})
    assert answer.headers["access-control-allow-origin"] == CORS[0]
    assert answer.headers["vary"] == "Origin"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    foreign = server.ask(method, path, body, {"origin": "https://evil.example", **headers})
    assert "access-control-allow-origin" not in foreign.headers
    assert foreign.headers["vary"] == "Origin"


def test_caches_learn_that_responses_differ_by_origin(server: RunningServer) -> None:
    answer = server.ask("GET", "/v1/models")
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"


def test_a_preflight_is_answered_before_keys_and_routes(server: RunningServer) -> None:
    headers = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
        "access-control-request-private-network": "true",
    }
    answer = server.ask("OPTIONS", "/v1/chat/completions", headers=headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-headers"] == "authorization"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "Access-Control-Request-Headers" in answer.headers["vary"]


def test_the_refusal_gives_the_reason_in_the_format_of_the_api(server: RunningServer) -> None:
    host = server.ask("GET", "/v1/messages", headers={"host": "evil.example"})
    assert host.json["type"] == "error"
    assert "server.allowed_hosts" in host.json["error"]["message"]
    origin = server.ask("GET", "/api/tags", headers={"origin": "https://evil.example"})
    assert "server.cors" in origin.json["error"]


@pytest.mark.parametrize("path", ["/%00", "/v1/models/a%0ab", "/api/tags%7f"])
def test_a_control_character_in_the_path_is_400(server: RunningServer, path: str) -> None:
    answer = server.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://box.lan:11434", "box.lan:11434", True),
        ("http://BOX.lan.:11434", "box.lan:11434", True),
        ("http://192.168.1.5:11434", "192.168.1.5:11434", True),
        ("http://[::1]:11434", "[0:0::1]:11434", True),
        ("https://models.example.org", "models.example.org", True),
        ("https://models.example.org", "models.example.org:443", True),
        ("https://models.example.org:8443", "models.example.org:8443", True),
        ("http://box.lan:8080", "box.lan:11434", False),
        ("http://box.lan", "box.lan:11434", False),
        ("http://evil.example:11434", "box.lan:11434", False),
        ("http://evil.example:11434", "evil.example:11434", False),
        ("http://box.lan:11434@evil.example", "box.lan:11434", False),
        ("null", "box.lan:11434", False),
        ("file://", "box.lan:11434", False),
        ("", "box.lan:11434", False),
    ],
)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_page_is_the_servers_own_with_the_host_and_port_of_its_request(
    origin: str, host: str, own: bool, kind: Literal["tcp", "unix"]
) -> None:
    listener = Listener(kind=kind, hosts=NAMED.hosts)
    assert is_own_page({"origin": origin, "host": host}, listener, None, ALLOWED) is own


@pytest.mark.parametrize(("site", "own"), [("same-origin", True), ("same-site", False), ("cross-site", False)])
def test_a_page_is_not_the_servers_own_where_the_browser_says_otherwise(site: str, own: bool) -> None:
    headers = {"origin": "http://box.lan:1", "host": "box.lan:1", "sec-fetch-site": site}
    assert is_own_page(headers, NAMED, None, ()) is own


def test_an_own_page_is_admitted_and_a_foreign_one_refused() -> None:
    headers = {"origin": "http://box.lan:1"}
    check_origin(headers, (), own=True)
    with pytest.raises(Rejection):
        check_origin(headers, ())
