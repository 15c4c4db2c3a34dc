"""`mullama ui`: the address of the web page, without a key, in the browser if one is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]


def serve(server: TinyServer, *, ui: bool = True, listen: tuple[str, ...] = (), tls: Any = None) -> None:
    server.answers["GET /api/v1/status"] = Answer({"listen": list(listen), "tls": tls})
    server.answers["GET /api/v1/stack"] = Answer({"manifest": {"server": {"ui": ui}}})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open."""
    found: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: not found.append(address))
    return found


def test_the_address_is_printed_and_opened_only_when_asked(run: Run, tiny: TinyServer, opened: list[str]) -> None:
    serve(tiny)
    assert run("ui", "--host", tiny.url).out == f"{tiny.url}/ui/\n"
    assert opened == []
    assert run("ui", "--open", "--host", tiny.url).code == 0
    assert opened == [f"{tiny.url}/ui/"]


def test_no_key_is_in_the_address(run: Run, tiny: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(tiny)
    monkeypatch.setenv("MULLAMA_API_KEY", "sesame")
    assert run("ui", "--host", tiny.url).out == f"{tiny.url}/ui/\n"


@pytest.mark.parametrize(
    ("listen", "tls", "address"),
    [
        (("unix:/run/m.sock", "127.0.0.1:8080"), None, "http://127.0.0.1:8080/ui/"),
        (("0.0.0.0:8443",), {"valid": True}, "https://127.0.0.1:8443/ui/"),
        (("[::]:9000",), None, "http://[::1]:9000/ui/"),
    ],
)
def test_over_the_control_socket_a_tcp_address_is_named(
    run: Run, tiny_unix: TinyServer, listen: tuple[str, ...], tls: Any, address: str
) -> None:
    serve(tiny_unix, listen=listen, tls=tls)
    assert run("ui", "--host", tiny_unix.url).out == f"{address}\n"


def test_a_server_without_the_page_or_a_tcp_address_says_what_to_do(run: Run, tiny_unix: TinyServer) -> None:
    serve(tiny_unix, ui=False)
    off = run("ui", "--host", tiny_unix.url)
    assert (off.code, "server: {ui: true}" in off.err) == (9, True)
    serve(tiny_unix, listen=("unix:/run/m.sock",))
    sockets = run("ui", "--host", tiny_unix.url)
    assert (sockets.code, "a browser needs one" in sockets.err) == (4, True)
