"""Listeners: addresses, obstacles, and changes while requests run."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mullama.errors import Invalid, Refused
from mullama.manifest.addresses import TcpAddress, UnixAddress, parse_address
from mullama.server.http.addresses import PortInUse, bind
from mullama.server.http.port_owner import holder_of_port
from tests.server.server_fixture import (
    CHAT,
    SAYS_HELLO,
    RunningServer,
    StubRuntime,
    key,
    read_until,
    request,
    running_server,
)


def test_a_name_is_listened_on_at_all_its_addresses_with_one_port() -> None:
    bound = bind(parse_address("localhost:0"))
    try:
        ports = {each.getsockname()[1] for each in bound.sockets}
        assert ports == {bound.address.port}  # type: ignore[union-attr]
        assert "localhost" in bound.hosts
        assert "127.0.0.1" in bound.hosts
    finally:
        for each in bound.sockets:
            each.close()


def test_a_port_in_use_is_refused_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            bind(TcpAddress(host="127.0.0.1", port=port))
        assert holder_of_port(port) == f"pid {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        assert f"is in use by pid {os.getpid()}" in caught.value.message
    assert holder_of_port(port) is None


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(Refused, match=r"cannot listen on 192\.0\.2\.1:0"):
        bind(TcpAddress(host="192.0.2.1", port=0))
    with pytest.raises(Refused, match=r"cannot listen on no-such-host\.invalid:0"):
        bind(TcpAddress(host="no-such-host.invalid", port=0))


def test_a_unix_socket_is_private_and_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with running_server(listen=(f"unix:{path}",)) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.http.listening == (f"unix:{path}",)
        assert _ask_unix(path, "/livez") == (200, {"status": "ok"})
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with running_server(listen=(f"unix:{path}",)) as server:
        with pytest.raises(PortInUse, match="another process listens"):
            bind(UnixAddress(path=str(path)))
        assert _ask_unix(path, "/livez")[0] == 200
        assert server.http.listening


def test_a_file_is_never_taken_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(Refused, match="not a socket"):
        bind(UnixAddress(path=str(path)))
    assert path.read_text() == "data"


def test_another_servers_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    bound = bind(UnixAddress(path=str(path)))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        bound.unlink()
        assert path.exists() or os.stat(path).st_ino == bound.inode
    bound.sockets[0].close()


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(Invalid, match="107 bytes"):
        bind(UnixAddress(path="/tmp/" + "x" * 120))


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        bind(UnixAddress(path=str(tmp_path / "no" / "m.sock")))


def test_the_control_socket_needs_no_key_and_no_host(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    runtime = StubRuntime(keys=(key("boss", "secret", "admin"),))
    with running_server(runtime, control=str(path)) as server:
        assert server.ask("GET", "/api/v1/status").status == 401
        assert _ask_unix(path, "/api/v1/status", host="whatever")[0] == 200
        assert str(path) not in "".join(server.http.listening)
    assert not path.exists()


def test_an_ordinary_unix_socket_asks_for_the_key(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    runtime = StubRuntime(keys=(key("boss", "secret", "admin"),))
    with running_server(runtime, listen=(f"unix:{path}",)):
        assert _ask_unix(path, "/api/v1/status", host="whatever")[0] == 401


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _ask_unix(path: Path, target: str, host: str = "localhost") -> tuple[int, object]:
    connection = _Unix(path)
    connection.request("GET", target, headers={"host": host})
    response = connection.getresponse()
    answer = (response.status, json.loads(response.read()))
    connection.close()
    return answer


def change(server: RunningServer, *addresses: str) -> tuple[str, ...]:
    return server.wait(server.http.listen_on(addresses))


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()


def test_listeners_change_while_a_stream_continues() -> None:
    runtime = StubRuntime(script=(*SAYS_HELLO[:2], "gate", *SAYS_HELLO[2:]))
    with running_server(runtime) as server, server.connect() as busy, server.connect() as idle:
        old = server.http.listening[0]
        busy.sendall(request("/v1/chat/completions", {**CHAT, "stream": True}))
        read_until(busy, b"Hel")
        both = change(server, "127.0.0.1:0", "127.0.0.2:0")
        assert both[0] == old  # asked for in the same words, so it stays as it is
        assert all(map(answers, both))
        new = change(server, "127.0.0.2:0")
        assert new == both[1:]
        assert idle.recv(1) == b""
        assert not answers(old)
        server.open_gate("gate")
        assert b"[DONE]" in read_until(busy, b"0\r\n\r\n")
        assert busy.recv(1) == b""
        assert answers(new[0])


CROWD = 300
SYSTEM_LIMIT = Path("/proc/sys/net/core/somaxconn")


@pytest.mark.skipif(
    not SYSTEM_LIMIT.exists() or int(SYSTEM_LIMIT.read_text()) < CROWD, reason="the system lets no such crowd wait"
)
def test_many_clients_connect_while_the_server_is_busy() -> None:
    with running_server(StubRuntime()) as server, contextlib.ExitStack() as crowd:
        let_go = threading.Event()
        crowd.callback(let_go.set)

        async def busy() -> None:
            let_go.wait(60)

        asyncio.run_coroutine_threadsafe(busy(), server.loop)
        for _ in range(CROWD):
            crowd.enter_context(socket.create_connection(server.address, timeout=30))
        let_go.set()
        assert server.ask("GET", "/healthz").status == 200


def test_a_new_listener_that_fails_changes_nothing() -> None:
    with running_server() as server, socket.create_server(("127.0.0.1", 0)) as held:
        before = server.http.listening
        taken = f"127.0.0.1:{held.getsockname()[1]}"
        for wanted in ([taken], ["127.0.0.2:0", taken], [*before, "192.0.2.1:1"], ["nonsense"]):
            with pytest.raises((PortInUse, Refused, Invalid)):
                change(server, *wanted)
            assert server.http.listening == before
            assert answers(before[0])


def test_a_wider_bind_of_the_same_port_takes_the_place_of_the_narrow_one() -> None:
    with running_server() as server:
        port = server.port
        server.wait(server.http.listen_on([f"127.0.0.1:{port}"]))
        assert change(server, f"0.0.0.0:{port}") == (f"0.0.0.0:{port}",)
        assert answers(f"127.0.0.1:{port}")
        assert change(server, f"127.0.0.1:{port}") == (f"127.0.0.1:{port}",)
        assert answers(f"127.0.0.1:{port}")


def test_a_narrow_listener_comes_back_when_the_wider_one_fails() -> None:
    with running_server() as server, socket.create_server(("127.0.0.2", 0)) as held:
        port = held.getsockname()[1]
        first = change(server, f"127.0.0.1:{port}")
        with pytest.raises(PortInUse):
            change(server, f"0.0.0.0:{port}")
        assert server.http.listening == first
        assert answers(first[0])


def test_a_server_that_cannot_listen_everywhere_does_not_start(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(PortInUse), running_server(listen=("127.0.0.1:0", taken), control=str(control)):
            pass
    assert not control.exists()


def test_responses_have_a_date() -> None:
    with running_server() as server:
        server.wait(asyncio.sleep(0))
        assert server.ask("GET", "/livez").headers["date"].endswith("GMT")


SET_LIMITS = """
import logging, resource, sys
from mullama.server.http.listen import allow_descriptors
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
print(allow_descriptors(2048), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("hard", "limit"), [(4096, 2048), (256, 256)])
def test_the_limit_is_raised_as_far_as_it_goes(hard: int, limit: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SET_LIMITS.format(hard=hard)], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == [str(limit), str(limit)]
    assert ("raise ulimit -n" in ran.stderr) == (hard < 2048)
