"""The process that holds one set of weights: it reads commands, drives the engine, writes what came of it.

Started by `worker` with one end of a socket pair as its only way to the world. A control thread reads the
socket, so that a ping is answered and a cancellation noted while the main thread is inside a decode. When
the parent is gone the socket ends, and so does this process.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mullama.engines import ENGINES, find_engine
from mullama.engines.base import ContextOptions, Embed, Engine, EngineChoice, Generate, Prefix
from mullama.errors import EngineFailed, MullamaError
from mullama.runtime.worker import protocol
from mullama.runtime.worker.outbox import Outbox

T = TypeVar("T")
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main() -> None:
    """Serve one parent over the descriptor named in the last argument until it goes."""
    connection = socket.socket(fileno=int(sys.argv[-1]))
    _tie_to_parent()
    Child(connection).run()


def _tie_to_parent() -> None:
    """Die with the parent, never gain rights, leave no core file, and be the first to go when memory ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write("500")
        except OSError as error:
            sys.stderr.write(f"oom_score_adj: {error}\n")


def arrived(commands: queue.SimpleQueue[T], patience: Callable[[], float]) -> Iterator[T]:
    """Every command that is there, or comes within the seconds that `patience` allows before each."""
    while True:
        seconds = max(patience(), 0.0)
        try:
            command = commands.get(block=seconds > 0, timeout=seconds)
        except queue.Empty:
            return
        yield command


class Child:
    """The loop around one engine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._engine: Engine | None = None
        self._steps = 0
        self._outbox = Outbox(lambda said: self._write(protocol.pack_outputs(said)), time.monotonic)

    def run(self) -> None:
        threading.Thread(target=self._listen, name="control", daemon=True).start()
        self._send({"t": "hello", "protocol": protocol.PROTOCOL, "pid": os.getpid()})
        while True:
            busy = self._engine is not None and self._engine.busy
            self._drain(wait=not busy)
            if self._engine is not None and self._engine.busy:
                if not self._engine.brisk:
                    self._outbox.flush()
                outputs = self._engine.step()
                self._steps += 1
                self._outbox.add(outputs, brisk=self._engine.brisk)

    def _listen(self) -> None:
        """The control thread: reads until the parent is gone."""
        unpacker = protocol.Unpacker()
        while data := self._receive():
            for message in unpacker.feed(data):
                self._control(message)
        os._exit(0)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(1 << 16)
        except ConnectionError:
            return b""

    def _control(self, message: dict[str, Any]) -> None:
        match message["t"]:
            case "ping":
                self._send({"t": "pong", "n": message["n"], "steps": self._steps})
            case "exit":
                os._exit(0)
            case kind:
                self._commands.put(message)
                if self._engine is not None:
                    self._hurry(self._engine, kind, message)

    def _hurry(self, engine: Engine, kind: str, message: dict[str, Any]) -> None:
        """Do not let a command wait for a decode that it makes pointless."""
        if kind in ("cancel", "close"):
            engine.interrupt()
        elif kind == "submit" and message["job"][0] == "Generate":
            engine.expect(message["job"][1]["context"])

    def _drain(self, *, wait: bool) -> None:
        """Perform every command that is there, or comes while the engine waits for more; block for one when there is
        nothing else to do."""
        if wait:
            self._perform(self._commands.get())
        for command in arrived(self._commands, lambda: self._engine.gathering if self._engine else 0.0):
            self._perform(command)

    def _perform(self, message: dict[str, Any]) -> None:
        number = message.get("n")
        try:
            answer = self._answer(message)
        except MullamaError as error:
            self._send({"t": "error", "n": number, "kind": error.kind.value, "message": error.message,
                        "hint": error.hint})  # fmt: skip
        else:
            if number is not None:
                self._send({"t": "answer", "n": number, "value": protocol.dump(answer)})

    def _answer(self, message: dict[str, Any]) -> Any:
        if message["t"] == "load":
            return self._load(protocol.load(EngineChoice, message["choice"]))
        engine = self._engine
        if engine is None:
            raise EngineFailed("no weights are loaded")
        match message["t"]:
            case "submit":
                cls = Generate if message["job"][0] == "Generate" else Embed
                engine.submit(protocol.load(cls, message["job"]))
            case "cancel":
                engine.cancel(message["id"])
            case "open":
                return engine.open_context(message["name"], protocol.load(ContextOptions, message["options"]))
            case "close":
                engine.close_context(message["name"])
            case "retune":
                engine.retune_context(message["name"], threads=message["threads"], scales=tuple(message["scales"]))
            case "share":
                engine.share_cores(message["rank"], message["of"])
            case "declare":
                prefixes = tuple(protocol.load(Prefix, tree) for tree in message["prefixes"])
                engine.declare_prefixes(message["name"], prefixes)
            case "tokenize":
                return engine.tokenize(
                    message["text"], add_special=message["add_special"], parse_special=message["parse_special"]
                )
            case "detokenize":
                return engine.detokenize(message["tokens"])
            case "pieces":
                return engine.pieces(message["tokens"])
            case "stats":
                return engine.stats()
            case kind:
                raise EngineFailed(f"a worker does not know {kind!r}")
        return None

    def _load(self, choice: EngineChoice) -> Any:
        last = [-1]

        def progress(share: float) -> bool:
            if int(share * 100) > last[0]:
                last[0] = int(share * 100)
                self._send({"t": "progress", "share": share})
            return True

        self._engine = find_engine(choice.name)(choice.files, choice.options, progress)
        return self._engine.facts

    def _send(self, message: dict[str, Any]) -> None:
        self._write(protocol.pack(message))

    def _write(self, frames: bytes) -> None:
        try:
            with self._writing:
                self._connection.sendall(frames)
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    assert ENGINES
    main()
