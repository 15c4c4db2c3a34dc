"""Checks of Host and Origin, on values and through a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from mullama.server.guard import check_host, check_origin, preflight_headers
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
    assert all(check_origin({"origin": origin}, CORS) == origin for origin in GOOD_ORIGINS)
    for origin in BAD_ORIGINS:
        with pytest.raises(Rejection) as caught:
            check_origin({"origin": origin}, CORS)
        assert caught.value.status == 403


def test_a_cross_site_request_without_an_origin_is_refused() -> None:
    with pytest.raises(Rejection):
        check_origin({"sec-fetch-site": "cross-site"}, CORS)
    for site in ("same-origin", "same-site", "none"):
        assert check_origin({"sec-fetch-site": site}, CORS) is None
    assert check_origin({"sec-fetch-site": "cross-site", "origin": CORS[0]}, CORS) == CORS[0]


def test_a_preflight_grants_only_known_headers() -> None:
    asked = "content-type, X-Stainless-Arch, x-stainless-lang, anthropic-beta, x-api-key, x-evil, cookie"
    granted = preflight_headers({"access-control-request-headers": asked})
    allowed = granted["access-control-allow-headers"]
    assert allowed == "content-type, X-Stainless-Arch, x-stainless-lang, anthropic-beta, x-api-key"


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


def test_a_page_that_may_gets_its_cors_headers_also_on_errors(server: RunningServer) -> None:
    headers = {"origin": CORS[0]}
    for answer in (
        server.ask("POST", "/v1/chat/completions", CHAT, {**headers, "content-type": "application/json"}),
        server.ask("GET", "/v1/nothing", headers=headers),
        server.ask("GET", "/v1/messages", headers=headers),
    ):
        assert answer.headers["access-control-allow-origin"] == CORS[0]
        assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-origin" not in server.ask("GET", "/v1/models").headers


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
