"""The calls of a controller to one host, over loopback."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mullama.client.address import ServerAddress
from mullama.client.http import Client, StreamStop
from mullama.errors import Conflict, Denied, Invalid, NotFound, TimedOut, Unavailable
from mullama.manifest.spec import FleetHost
from mullama.targets.fleet.hosts import FleetHostPort, HostStep, RemoteHost, on_each, remote_host
from tests.cli.tinyserver import Answer, TinyServer
from tests.targets.fleet.fake_hosts import FakeHost

STEP = HostStep(manifest={"models": {}}, expect="abc", fence=7, mark="prod/7.1", by="ann")


def test_a_change_carries_the_fence_and_the_revision_that_it_expects(tiny: TinyServer) -> None:
    tiny.answers["PUT /api/v1/stack"] = Answer(pieces=(b'{"event": "phase"}\n{"event": "result"}\n',))
    tiny.answers["POST /api/v1/undo"] = Answer(pieces=(b'{"event": "result"}\n',))
    host = RemoteHost("a", tiny.client)

    assert [line["event"] for line in host.change(STEP, within=9.0, stop=StreamStop())] == ["phase", "result"]
    back = HostStep(to=3, fence=8, mark="prod/8.1", by="ann")
    assert [line["event"] for line in host.change(back, within=9.0, stop=StreamStop())] == ["result"]

    put, undo = tiny.asked
    assert put.headers["If-Match"] == '"abc"'
    assert put.body["origin"] == {"fleet": "prod/7.1"}
    assert put.body["options"]["fence"] == 7
    assert undo.body == {"to": 3, "by": "ann", "fence": 8, "fleet": "prod/8.1"}


def test_every_error_names_its_host(tiny: TinyServer) -> None:
    tiny.answers["PUT /api/v1/fleet/lease"] = Answer({"error": {"kind": "conflict", "message": "bob has it"}}, 409)
    host = RemoteHost("a", tiny.client)
    with pytest.raises(NotFound, match=r"^a: no /api/v1/fleet/lease"):
        host.lease()
    with pytest.raises(Conflict, match=r"^a: bob has it"):
        host.take_lease("ann", "prod", 30.0, 1)


@contextmanager
def trickling() -> Iterator[ServerAddress]:
    """A server that sends one byte of an endless header at a time, and never ends."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                for _ in itertools.count():
                    if ended.wait(0.01):
                        return
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield ServerAddress(port=listener.getsockname()[1])
        ended.set()
        thread.join()


def test_a_host_that_answers_slowly_and_never_fails_is_slow() -> None:
    with trickling() as address:
        host = RemoteHost("a", Client(address), within=0.2)
        with pytest.raises(TimedOut, match=r"^a is slow: it did not answer within 0\.2s"):
            host.get("/api/v1/status")


def test_a_change_that_takes_too_long_is_slow() -> None:
    with trickling() as address, pytest.raises(TimedOut, match="a is slow"):
        list(RemoteHost("a", Client(address)).change(STEP, within=0.2, stop=StreamStop()))


def test_a_key_that_is_missing_here_is_named_with_its_host() -> None:
    host = FleetHost.model_validate({"url": "http://127.0.0.1:1", "key": {"from_env": "A_KEY"}})
    with pytest.raises(NotFound, match=r"fleet\.hosts\.a\.key: the environment variable A_KEY is missing or empty"):
        remote_host("a", host, {})
    assert remote_host("a", host, {"A_KEY": "secret"}).name == "a"


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_of_authorities_that_cannot_be_read_is_named_with_its_host(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    host = remote_host("a", FleetHost.model_validate({"url": "https://127.0.0.1:1", "ca_file": str(path)}), {})
    message = f"^a: no certificate authorities can be read from {re.escape(str(path))}: "
    for call in (host.lease, lambda: list(host.change(STEP, within=9.0, stop=StreamStop()))):
        with pytest.raises(Invalid, match=message) as raised:
            call()
        assert raised.value.hint == "see fleet.hosts.a.ca_file"


def test_all_hosts_are_called_at_once_and_one_error_hides_no_answer() -> None:
    hosts = [FakeHost(name) for name in "abc"]
    hosts[1].gone = Denied("b: wrong key")
    meet = threading.Barrier(3, timeout=5)

    def call(host: FleetHostPort) -> int:
        meet.wait()
        return int(host.lease()["fence"])

    found = on_each(hosts, call)
    assert list(found) == ["a", "b", "c"]
    assert (found["a"], found["c"]) == (0, 0)
    assert isinstance(found["b"], Denied)
    assert isinstance(on_each(hosts[:1], _closed)["a"], Unavailable)


def _closed(host: object) -> int:
    raise OSError(111, "Connection refused")
