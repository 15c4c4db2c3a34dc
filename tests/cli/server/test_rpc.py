"""`mullama rpc`: what it lends, its warning, its end, and the frames that it passes on."""

from __future__ import annotations

import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from mullama.engines.llamacpp.rpc import frames, lend
from mullama.engines.llamacpp.rpc.ask import HostBusy, LentDevice, ask_devices
from mullama.engines.llamacpp.rpc.lend import MemoryBudget, relay
from mullama.errors import EngineFailed, Unavailable, Unsupported
from tests.cli.conftest import Ran
from tests.lent_devices import MIB, LentDevices, lends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_states_what_it_lends_and_ends_on_a_signal(number: int) -> None:
    with LentDevices(48 * MIB) as lent:
        assert lends(48 * MIB) in lent.lines[0]
        assert "no authentication" not in "".join(lent.lines)
        assert ask_devices(lent.host) == (LentDevice(free=48 * MIB, total=48 * MIB),)

        assert lent.stop(number) == 0
    assert lent.lines[-1] == "stopped"
    with pytest.raises(Unavailable, match="does not answer: Connection refused"):
        ask_devices(lent.host)


def test_an_address_of_other_machines_is_warned_of_and_a_malformed_client_ends_alone() -> None:
    with LentDevices(8 * MIB, listen="0.0.0.0:0") as lent:
        warning = lent.wait_for("warning:")
        assert "0.0.0.0 is reachable from other machines" in warning
        assert "no authentication" in warning
        host = lent.host.replace("0.0.0.0", "127.0.0.1")
        name, _, port = host.rpartition(":")
        with socket.create_connection((name, int(port))) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with suppress(ConnectionResetError):  # the rest of the request was not read
                assert client.recv(100) == b""
        assert "is not llama.cpp's RPC" in lent.wait_for("it sent command 71")
        assert len(ask_devices(host)) == 1  # others are served


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--listen", "nowhere"], "--listen: 'nowhere' is not an address"),
        (["--listen", "[::1]:5"], "--listen: llama.cpp's RPC uses IPv4, not [::1]:5"),
        (["--listen", "unix:./s"], "--listen: llama.cpp's RPC uses IPv4, not unix:./s"),
        (["--memory", "much"], "--memory: "),
        (["--threads", "-1"], "--threads: expected 0 or more"),
        (["--device", "CUDA9", "--listen", "127.0.0.1:0"], "there is no device CUDA9"),
    ],
)
def test_wrong_arguments(run: Callable[..., Ran], arguments: list[str], text: str) -> None:
    ran = run("rpc", *arguments)

    assert ran.code != 0
    assert text in ran.err


def test_an_address_in_use(run: Callable[..., Ran]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ran = run("rpc", "--listen", f"127.0.0.1:{port}")

    assert ran.code != 0
    assert f"127.0.0.1:{port} cannot be used" in ran.err


def test_a_build_without_rpc_is_refused_with_the_reason(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done:
        returncode, stdout, stderr = 0, '{"rpc": false, "devices": []}', ""

    monkeypatch.setattr(lend.subprocess, "run", lambda *_, **__: Done)

    ran = run("rpc")

    assert ran.code != 0
    assert "this build of llama.cpp has no RPC backend" in ran.err
    assert "-DGGML_RPC=ON" in ran.err


# Asking a host


@contextmanager
def host_that(acts: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server on loopback that does this with its first client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                acts(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_another_protocol_is_refused() -> None:
    def old(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(frames.reply(bytes([3, 0, 0, 0])))

    with host_that(old) as host, pytest.raises(Unsupported, match="speaks version 3 of"):
        ask_devices(host)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x04\x00", b""])
def test_another_server_does_not_answer_as_a_host(answer: bytes) -> None:
    def web(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(answer)

    with host_that(web) as host, pytest.raises(Unavailable, match="does not answer"):
        ask_devices(host)


def test_a_host_that_serves_another_client_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(HostBusy, match="does not answer within"):
            ask_devices(host, seconds=0.05)


# The frames between a client and a server


class Relayed:
    """A relay between a client and a server, of which this holds the outer ends."""

    def __init__(self, bound: int | None) -> None:
        self.budget = MemoryBudget(bound)
        self.client, self._inner = _pair()
        self.server, self._outer = _pair()
        self.lines: list[str] = []
        self.questions: list[int] = []
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._inner, self._outer:
            try:
                self.lines += relay(self._inner, self._answer, lambda: self._outer, self.budget)
            except EngineFailed as error:
                self.failure = error

    def _answer(self, command: int, data: bytes) -> bytes:
        self.questions.append(command)
        return b"answer"

    def greet(self) -> None:
        """Answer the greeting with which the relay begins."""
        greeting = frames.request(frames.HELLO, frames.HELLO_DATA)
        assert self.server.recv(len(greeting), socket.MSG_WAITALL) == greeting
        self.server.sendall(frames.reply(bytes(28)))

    def ask(
        self, command: int, data: bytes, answer: bytes | None = None, *, first: bool = False
    ) -> tuple[bytes, bytes]:
        """Send a request; the server answers with `answer`. Return (what the server got, what the client got)."""
        sent = frames.request(command, data)
        self.client.sendall(sent)
        if first:
            self.greet()
        got = b""
        if answer is not None:
            got = self.server.recv(len(sent), socket.MSG_WAITALL)
            self.server.sendall(frames.reply(answer))
        if command not in frames.REPLIED:
            return self.server.recv(len(sent), socket.MSG_WAITALL), b""
        (length,) = frames.LENGTH.unpack(self.client.recv(8, socket.MSG_WAITALL))
        return got, self.client.recv(length, socket.MSG_WAITALL) if length else b""

    def allocate(self, count: int, address: int | None = None, *, first: bool = False) -> int:
        answer = None if address is None else frames.BUFFER.pack(address, count)
        _, reply = self.ask(frames.ALLOC_BUFFER, frames.ALLOCATION.pack(0, count), answer, first=first)
        found: int = frames.BUFFER.unpack(reply)[0]
        return found

    def close(self) -> None:
        self.client.close()
        self._thread.join()
        self.server.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection, as the relay sets options of TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def test_frames_are_passed_on_unchanged() -> None:
    relayed = Relayed(None)
    data = struct.pack("<QQ", 1, 2)

    assert relayed.ask(8, data, b"tensor", first=True) == (frames.request(8, data), b"tensor")
    assert relayed.ask(6, bytes(64 << 10)) == (frames.request(6, bytes(64 << 10)), b"")
    relayed.close()
    assert relayed.failure is None
    assert relayed.lines == ["connected", "disconnected, 0 B are free again"]


def test_questions_about_devices_need_no_server() -> None:
    relayed = Relayed(None)

    for command, data in (
        (frames.HELLO, b"\x01" * 24),
        (frames.DEVICE_COUNT, b""),
        (frames.GET_DEVICE_MEMORY, bytes(4)),
    ):
        assert relayed.ask(command, data) == (b"", b"answer")

    relayed.close()
    assert relayed.questions == [frames.HELLO, frames.DEVICE_COUNT, frames.GET_DEVICE_MEMORY]
    assert relayed.lines == []


def test_memory_is_bounded_over_all_buffers_and_given_back() -> None:
    relayed = Relayed(100)

    assert relayed.allocate(60, address=5, first=True) == 5
    assert relayed.allocate(41) == 0  # refused, and the server is not asked
    assert relayed.allocate(40, address=6) == 6
    assert relayed.budget.seen(1000, 1000) == (0, 100)
    relayed.ask(frames.FREE_BUFFER, frames.ADDRESS.pack(5))
    assert relayed.budget.seen(1000, 1000) == (60, 100)
    assert relayed.allocate(50, address=0) == 0  # the device itself refuses
    relayed.close()
    assert relayed.budget.seen(1000, 1000) == (100, 100)
    assert relayed.lines == [
        "connected", "refused 41 B: only 40 B are left to lend", "disconnected, 40 B are free again",
    ]  # fmt: skip


@pytest.mark.parametrize("linger", [(0, 0), (1, 0)], ids=["closed", "reset"])
def test_a_server_that_ends_ends_its_client(linger: tuple[int, int]) -> None:
    relayed = Relayed(None)
    relayed.client.sendall(sent := frames.request(8, b"x"))
    relayed.greet()
    assert relayed.server.recv(len(sent), socket.MSG_WAITALL) == sent
    relayed.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", *linger))
    relayed.server.close()

    assert relayed.client.recv(1) == b""
    relayed.close()
    assert "its process ended" in str(relayed.failure)


def test_a_server_that_ends_in_a_message_ends_its_client() -> None:
    relayed = Relayed(None)
    relayed.client.sendall(frames.request(6, b"x"))
    relayed.greet()
    relayed.server.recv(1)
    relayed.server.close()  # what it did not read resets the connection
    with suppress(ConnectionError):
        while True:
            relayed.client.sendall(frames.request(6, bytes(64 << 10)))

    relayed.close()
    assert "its process ended" in str(relayed.failure)


def test_a_client_that_resets_its_connection_has_left() -> None:
    relayed = Relayed(None)
    relayed.allocate(60, address=5, first=True)
    relayed.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    relayed.close()
    assert relayed.failure is None
    assert relayed.lines == ["connected", "disconnected, 60 B are free again"]
