"""Lends the devices of this machine: a listener, and for each client a process with llama.cpp's own RPC server.

The frames pass through this process, which bounds the memory of all clients together. One more process answers the
clients that only ask for devices. llama.cpp's server ends on a malformed message; here that ends one client.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep

from mullama.engines.llamacpp.rpc import frames
from mullama.engines.llamacpp.rpc.ask import receive
from mullama.errors import EngineFailed, NotFound, Refused, Unsupported
from mullama.units import size

_START_SECONDS = 60.0  # that a process may take to listen: a driver may need long for its first start
_POLL_SECONDS = 0.01
_FREED_SECONDS = 0.2
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds of silence before the first question to a client, seconds between two, and questions without an answer."""
_BLOCK = 1 << 20  # bytes that are passed on at once
_MOST_FRAME = 1 << 44  # bytes; a longer length is no frame


@dataclass(frozen=True, slots=True, kw_only=True)
class LendableDevice:
    """A device of this machine; sizes in bytes."""

    name: str
    description: str
    free: int
    total: int


def lendable(env: Mapping[str, str], names: Sequence[str] = ()) -> tuple[LendableDevice, ...]:
    """Return the devices that can be lent: those with these names, without names all GPUs, or the CPU without any.

    Raises `Unsupported` for a build of llama.cpp without RPC, `NotFound` for a name that is not there.
    """
    found = _devices(env)
    known = {device.name.casefold(): device for device in found}
    for name in names:
        if name.casefold() not in known:
            there = ", ".join(device.name for device in found)
            raise NotFound(f"there is no device {name}", name=name, hint=f"there are {there}")
    return tuple(known[name.casefold()] for name in names) or found


def _devices(env: Mapping[str, str]) -> tuple[LendableDevice, ...]:
    command = [sys.executable, "-I", "-m", "mullama.engines.llamacpp.binding.devices", "lend"]
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=_START_SECONDS, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
        raise EngineFailed(f"llama.cpp does not start: {last[0]}")
    tree = json.loads(done.stdout)
    if not tree["rpc"]:
        hint = "build it with CMAKE_ARGS=-DGGML_RPC=ON, as .ci/install does"
        raise Unsupported("this build of llama.cpp has no RPC backend", hint=hint)
    return tuple(
        LendableDevice(name=d["name"], description=d["description"], free=d["free"], total=d["total"])
        for d in tree["devices"]
    )


class MemoryBudget:
    """The bytes that all clients together may allocate. Thread-safe."""

    def __init__(self, bound: int | None) -> None:
        self.bound = bound
        self._used = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Count an allocation; return False for one beyond the bound."""
        with self._lock:
            if self.bound is not None and self._used + count > self.bound:
                return False
            self._used += count
            return True

    def give(self, count: int) -> None:
        with self._lock:
            self._used -= count

    def seen(self, free: int, total: int) -> tuple[int, int]:
        """Return free and total bytes of a device as clients see them."""
        if self.bound is None:
            return free, total
        with self._lock:
            return min(free, max(0, self.bound - self._used)), min(total, self.bound)


@dataclass(eq=False)
class _Server:
    """One process of llama.cpp's RPC server."""

    process: subprocess.Popen[bytes]
    port: int

    def connect(self) -> socket.socket:
        """Connect when it listens. Raises `EngineFailed` for a process that ended or needs too long."""
        until = monotonic() + _START_SECONDS
        while self.process.poll() is None and monotonic() < until:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", self.port))
            sleep(_POLL_SECONDS)  # it cannot report that it listens
        raise EngineFailed(f"llama.cpp's RPC server does not listen (exit code {self.process.poll()})")

    def end(self) -> None:
        """End the process. Thread-safe, and may be called again."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass(kw_only=True)
class Lender:
    """Serves clients on a listening socket until `stop`. report: receives a line about each client."""

    listener: socket.socket
    devices: Sequence[str]
    budget: MemoryBudget
    env: Mapping[str, str]
    report: Callable[[str], None]
    threads: int = 0
    _idle: list[_Server] = field(default_factory=list)
    _busy: dict[_Server, socket.socket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._freed = threading.Condition(self._lock)
        self._asking = threading.Lock()

    def run(self, stopping: socket.socket) -> None:
        """Accept clients until `stopping` is readable; then end all of them and their processes."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(stopping, selectors.EVENT_READ)
            while all(key.fileobj is not stopping for key, _ in selector.select()):
                with contextlib.suppress(OSError):  # the client left before it was accepted
                    client, address = self.listener.accept()
                    name = f"{address[0]}:{address[1]}"
                    threading.Thread(target=self._serve, args=(client, name), daemon=True).start()
        self._end()

    def prepare(self) -> None:
        """Start the process that answers questions. Raises `EngineFailed`."""
        self._answering = self._start()
        self._questions = self._answering.connect()
        self._hello = _ask(self._questions, frames.HELLO, frames.HELLO_DATA)

    def answer(self, command: int, data: bytes) -> bytes:
        """Return the reply to a question about devices."""
        if command == frames.HELLO:  # a connection takes one
            return self._hello
        with self._asking:
            found = _ask(self._questions, command, data)
        if command == frames.GET_DEVICE_MEMORY:
            found = frames.MEMORY.pack(*self.budget.seen(*frames.MEMORY.unpack(found)))
        return found

    def _start(self) -> _Server:
        command = [sys.executable, "-I", "-m", "mullama.engines.llamacpp.binding.rpc_server"]
        process = subprocess.Popen(
            [*command, str(self.threads), *self.devices], env=dict(self.env), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            process.kill()
            raise EngineFailed(f"llama.cpp's RPC server does not start (exit code {process.wait()})")
        return _Server(process, int(line))

    def _serve(self, client: socket.socket, name: str) -> None:
        taken: list[tuple[_Server, socket.socket]] = []

        def connect() -> socket.socket:
            server = self._take_idle() or self._start()
            with self._lock:
                self._busy[server] = client
                stopped = self._stopped
            taken.append((server, connection := server.connect()))
            if stopped:
                raise EngineFailed("mullama rpc stops")
            return connection

        try:
            with client:
                for line in relay(client, self.answer, connect, self.budget):
                    self.report(f"{name}: {line}")
        except (EngineFailed, OSError, EOFError) as error:
            self.report(f"{name}: {error}")
        finally:
            for server, connection in taken:
                connection.close()
                self._release(server)

    def _take_idle(self) -> _Server | None:
        """Return an idle process; wait a moment for one whose client only asked for the devices."""
        with self._freed:
            self._freed.wait_for(lambda: self._idle, timeout=_FREED_SECONDS)
            return self._idle.pop() if self._idle else None

    def _release(self, server: _Server) -> None:
        """Keep one idle process for the next client, if it still runs."""
        with self._lock:
            self._busy.pop(server, None)
            if not self._stopped and not self._idle and server.process.poll() is None:
                self._idle.append(server)
                self._freed.notify()
                return
        server.end()

    def _end(self) -> None:
        with self._lock:
            self._stopped = True
            busy, idle = dict(self._busy), list(self._idle)
        for client in busy.values():
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._questions.close()
        for server in (self._answering, *busy, *idle):
            server.end()


def relay(
    client: socket.socket,
    answer: Callable[[int, bytes], bytes],
    connect: Callable[[], socket.socket],
    budget: MemoryBudget,
) -> Iterator[str]:
    """Pass requests to a server and replies to the client until one of them leaves; yield what happens, for people.

    answer: replies to questions about devices. connect: returns the connection to a server, for the first request of
    another kind. Memory is taken from the budget with each buffer, and all of it is given back at the end.
    """
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _watch(client)
    server: socket.socket | None = None
    buffers: dict[int, int] = {}
    block = memoryview(bytearray(_BLOCK))
    try:
        while True:
            try:
                command, length = frames.REQUEST.unpack(receive(client, frames.REQUEST.size))
            except (EOFError, ConnectionError):  # a reset, where a reply to the client was not read
                if server is not None:
                    yield f"disconnected, {size(sum(buffers.values()), digits=2)} are free again"
                return
            if command > frames.LAST or length > _MOST_FRAME:
                raise EngineFailed(f"it sent command {command} with {length} bytes, which is not llama.cpp's RPC")
            if command in frames.QUESTIONS:
                if length > len(frames.HELLO_DATA):
                    raise EngineFailed(f"it sent {length} bytes with command {command}")
                client.sendall(frames.reply(answer(command, receive(client, length))))
                continue
            if server is None:
                server = connect()
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _ask(server, frames.HELLO, frames.HELLO_DATA)  # without capabilities: another transport bypasses this
                yield "connected"
            if command == frames.ALLOC_BUFFER:
                yield from _allocate(client, server, receive(client, length), budget, buffers)
            elif command == frames.FREE_BUFFER:
                data = receive(client, length)
                (address,) = frames.ADDRESS.unpack(data)
                budget.give(buffers.pop(address, 0))
                server.sendall(frames.request(command, data))
            else:
                server.sendall(frames.REQUEST.pack(command, length))
                _pass_on(client, server, length, block)
                if command in frames.REPLIED:
                    (length,) = frames.LENGTH.unpack(receive(server, frames.LENGTH.size))
                    client.sendall(frames.LENGTH.pack(length))
                    _pass_on(server, client, length, block)
    except (EOFError, ConnectionError, frames.MALFORMED) as error:
        raise EngineFailed(f"its process ended, or the message was cut: {error}") from error
    finally:
        budget.give(sum(buffers.values()))


def _watch(client: socket.socket) -> None:
    """Let the system end the connection of a client whose machine is lost, so that its memory is free again."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:  # not on every system
            client.setsockopt(socket.IPPROTO_TCP, option, value)


def _ask(server: socket.socket, command: int, data: bytes) -> bytes:
    server.sendall(frames.request(command, data))
    return _reply(server)


def _allocate(
    client: socket.socket, server: socket.socket, data: bytes, budget: MemoryBudget, buffers: dict[int, int]
) -> Iterator[str]:
    """Allocate a buffer, or answer that it cannot be allocated if it exceeds the budget."""
    _, count = frames.ALLOCATION.unpack(data)
    if not budget.take(count):
        client.sendall(frames.reply(frames.BUFFER.pack(0, 0)))
        yield f"refused {size(count, digits=2)}: only {size(budget.seen(count, count)[0], digits=2)} are left to lend"
        return
    server.sendall(frames.request(frames.ALLOC_BUFFER, data))
    answer = _reply(server)
    address, _ = frames.BUFFER.unpack(answer)
    if address:
        buffers[address] = count
    else:
        budget.give(count)
    client.sendall(frames.reply(answer))


def _reply(server: socket.socket) -> bytes:
    (length,) = frames.LENGTH.unpack(receive(server, frames.LENGTH.size))
    return receive(server, length)


def _pass_on(source: socket.socket, target: socket.socket, count: int, block: memoryview) -> None:
    """Pass on exactly so many bytes. Raises `EOFError` when the source ends before."""
    while count:
        if not (taken := source.recv_into(block[: min(count, len(block))])):
            raise EOFError("the connection was closed in a message")
        target.sendall(block[:taken])
        count -= taken


@contextlib.contextmanager
def stop_signals() -> Iterator[socket.socket]:
    """Yield a socket that is readable after SIGINT or SIGTERM."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises `Refused` for an address that cannot be used."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise Refused(f"{host}:{port} cannot be used: {error.strerror or error}", hint="--listen HOST:PORT") from error
    return listener
