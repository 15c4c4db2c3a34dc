"""Fixtures of the command line tests: a stub server, and command lines that run in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mullama.cli.api_client import discover
from mullama.cli.app.main import main
from mullama.cli.console.terminal import Terminal
from mullama.client.address import DEFAULT_PORT, ServerAddress
from tests.cli.tinyserver import TcpServer, TinyServer, UnixServer, handler, serving


@pytest.fixture
def tiny() -> Iterator[TinyServer]:
    server = TinyServer(ServerAddress(port=0))
    http = TcpServer(("127.0.0.1", 0), handler(server))
    server.address = ServerAddress(port=http.server_address[1])
    yield from (server for _ in serving(http))


@pytest.fixture
def tiny_unix(tmp_path: Path) -> Iterator[TinyServer]:
    server = TinyServer(ServerAddress(path=str(tmp_path / "s.sock")))
    unix = UnixServer(str(tmp_path / "s.sock"), handler(server))
    yield from (server for _ in serving(unix))


class Screen(io.StringIO):
    """A text stream that is a terminal, or is none."""

    def __init__(self, text: str = "", *, tty: bool = False) -> None:
        super().__init__(text)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ran]:
    """Run one command line in this process, in an empty folder with its own state folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("MULLAMA_HOST", "MULLAMA_API_KEY", "MULLAMA_DEBUG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MULLAMA_STATE_DIR", str(tmp_path / "state"))
    # A server of the person who runs the tests may listen on the default port.
    asks = discover.answers
    monkeypatch.setattr(discover, "answers", lambda address: address.port != DEFAULT_PORT and asks(address))

    def run(*arguments: str, stdin: str = "", tty: bool = False) -> Ran:
        out, err = Screen(tty=tty), Screen(tty=tty)
        terminal = Terminal(Screen(stdin, tty=tty), out, err, {})
        return Ran(main(arguments, terminal), out.getvalue(), err.getvalue())

    return run
