"""The HTTP client against a small real server, over TCP and a unix socket."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest

from mullama.client.address import ServerAddress
from mullama.client.errors import error_from_tree, error_of
from mullama.client.http import Client, _ErrorTranslation
from mullama.errors import (
    Conflict,
    Denied,
    Internal,
    Invalid,
    Kind,
    ManifestError,
    MullamaError,
    NotFound,
    TimedOut,
    Unavailable,
)
from mullama.problems import Location
from tests.cli.tinyserver import Answer, TinyServer


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8080", ServerAddress(port=8080)),
        ("http://localhost", ServerAddress(host="localhost", port=11434)),
        ("http://localhost/", ServerAddress(host="localhost", port=11434)),
        ("https://llm.example.org", ServerAddress(host="llm.example.org", port=443, tls=True)),
        ("box:9000", ServerAddress(host="box", port=9000)),
        ("http://[::1]:9000", ServerAddress(host="::1", port=9000)),
        ("unix:/run/m.sock", ServerAddress(path="/run/m.sock")),
        ("unix:///run/m.sock", ServerAddress(path="/run/m.sock")),
    ],
)
def test_addresses_are_read_in_every_form(text: str, address: ServerAddress) -> None:
    assert ServerAddress.parse(text) == address
    assert ServerAddress.parse(str(address)) == address


@pytest.mark.parametrize("text", ["ftp://x", "http://", "http://h:99999", "http://h:x", "http://h/api", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        ServerAddress.parse(text)


def test_json_is_sent_and_read(tiny: TinyServer) -> None:
    tiny.answers["POST /api/v1/plan"] = lambda asked: Answer({"echo": asked.body})
    assert tiny.client.post("/api/v1/plan", {"ä": 1}) == {"echo": {"ä": 1}}


def test_a_unix_socket_serves_as_well(tiny_unix: TinyServer) -> None:
    tiny_unix.answers["GET /livez"] = Answer({"status": "ok"})
    assert tiny_unix.client.get("/livez") == {"status": "ok"}


def test_the_key_is_sent_as_a_bearer(tiny: TinyServer) -> None:
    tiny.answers["GET /x"] = Answer({})
    Client(tiny.address, key="s3cret").get("/x")
    assert tiny.asked[0].headers["Authorization"] == "Bearer s3cret"


def test_lines_come_one_by_one_before_the_answer_ends(tiny: TinyServer) -> None:
    hold = threading.Event()
    tiny.answers["PUT /s"] = Answer(pieces=(b'{"a":1}\n\n', b'{"a":2}\n'), hold=hold)
    lines = tiny.client.lines("PUT", "/s", {})
    assert [next(lines), next(lines)] == [{"a": 1}, {"a": 2}]
    hold.set()
    assert list(lines) == []


def test_a_stream_that_takes_too_long_is_given_up(tiny: TinyServer) -> None:
    hold = threading.Event()
    tiny.answers["PUT /s"] = Answer(pieces=(b'{"a":1}\n',), hold=hold)
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        list(tiny.client.lines("PUT", "/s", {}, within=0.2))
    assert time.monotonic() - begun < 50, "the server would have held it for a minute"
    hold.set()


def test_events_pass_over_comments_and_stop_when_it_is_quiet() -> None:
    """All events are sent at once, so the idle time starts after them on any machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(ServerAddress(port=server.getsockname()[1])).events("/e", idle=0.2)
        left = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n: ping\n\nid: 1\ndata: {"id": 1}\n\n')
                left.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        assert list(client) == [{"id": 1}]
        left.set()
        thread.join()


def test_a_port_without_a_listener_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # bound and not listening, so no other process can listen there
        with pytest.raises(Unavailable, match=f"no server answers at http://127.0.0.1:{port}"):
            Client(ServerAddress(port=port)).get("/livez")


def test_a_missing_socket_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="No such file"):
        Client(ServerAddress(path="/nonexistent/s.sock")).get("/livez")


def test_an_answer_that_is_not_json_is_no_mullama(tiny: TinyServer) -> None:
    tiny.answers["GET /livez"] = Answer(pieces=(b"<html>",))
    with pytest.raises(Unavailable, match="not JSON"):
        tiny.client.get("/livez")


def test_a_server_that_hangs_up_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(10)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(Unavailable, match="closed the connection"):
            Client(ServerAddress(port=server.getsockname()[1])).get("/livez")
        thread.join()


def test_an_error_of_the_server_comes_back_as_itself(tiny: TinyServer) -> None:
    with pytest.raises(NotFound, match="no /nothing") as caught:
        tiny.client.get("/nothing")
    assert caught.value.hint == "h"


def test_the_problems_of_a_manifest_come_back_with_their_places() -> None:
    error = error_from_tree(
        {
            "kind": "invalid",
            "message": "m",
            "problems": [{"path": "a", "file": "f", "line": 1, "column": 2, "message": "m", "hint": None}],
        }
    )
    assert isinstance(error, ManifestError)
    assert error.problems[0].place == Location("f", 1, 2)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_survives_the_way_over_http(kind: Kind) -> None:
    error = error_from_tree({"kind": kind.value, "message": "m", "hint": "h"})
    assert (error.kind, error.message, error.hint) == (kind, "m", "h")


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (412, b'{"error":{"kind":"conflict","message":"stale"}}', Conflict, "stale"),
        (401, b"", Denied, "server responded with status 401"),
        (404, b'{"error":"model not found"}', NotFound, "model not found"),
        (418, b"[]", Internal, "server responded with status 418"),
        (500, b'{"error":{"kind":"new","message":"m"}}', Internal, "m"),
    ],
)
def test_an_error_in_another_form_gets_the_kind_of_its_status(
    status: int, body: bytes, kind: type[MullamaError], message: str
) -> None:
    error = error_of(status, body, "server")
    assert type(error) is kind
    assert error.message == message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (None, "name the file with the key: --key-file FILE, or set MULLAMA_API_KEY"),
        ("wrong", "correct the key in the file of --key-file, or in MULLAMA_API_KEY"),
    ],
)
def test_a_command_without_a_valid_key_says_how_to_give_one(tiny: TinyServer, key: str | None, hint: str) -> None:
    error = {"error": {"kind": "denied", "message": "no", "hint": "send it as 'Authorization: Bearer KEY'"}}
    tiny.answers["GET /api/v1/status"] = Answer(error, status=401)
    with pytest.raises(Denied) as caught:
        Client(tiny.client.address, key=key).get("/api/v1/status")
    assert (caught.value.message, caught.value.hint) == ("no", hint)


@pytest.mark.parametrize(
    ("tls", "hint"), [(False, "if it speaks HTTPS: --host https://127.0.0.1:"), (True, "--cert-file")]
)
def test_a_server_that_ends_a_connection_without_a_response_expects_another_protocol(tls: bool, hint: str) -> None:
    translated = _ErrorTranslation(ServerAddress(port=1, tls=tls))
    with pytest.raises(Unavailable) as caught, translated:
        raise http.client.RemoteDisconnected("no response")
    assert hint in caught.value.hint
    with pytest.raises(Unavailable) as reset, translated:
        raise ConnectionResetError(104, "reset")
    assert not reset.value.hint
