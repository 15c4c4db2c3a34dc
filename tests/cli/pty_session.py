"""A process on a pseudo-terminal of its own: its screen, and keys that are typed to it."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

# A session leader that opens a terminal gets it as its controlling terminal, so Ctrl-C reaches it. A shell starts its
# background jobs with SIGINT ignored, and a child inherits that.
_TAKE_TERMINAL = (
    "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "os.close(os.open(os.ttyname(0), os.O_RDWR))\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'mullama', *sys.argv[1:]])"
)
_SECONDS = 60.0


class PtySession:
    """Reads the screen of a process in order: each `read_until` continues after the match of the one before."""

    def __init__(self, command: list[str], folder: Path, **env: str) -> None:
        self.terminal, slave = pty.openpty()
        self.modes = termios.tcgetattr(slave)[3]  # as they are before the process may change them
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env},
        )
        os.close(slave)
        self.seen = ""
        self._read_to = 0

    def read_until(self, text: str, within: float = _SECONDS) -> None:
        """Read until `text` is shown; fail with the screen if it is not shown within so many seconds."""
        deadline = time.monotonic() + within
        while (at := self.seen.find(text, self._read_to)) < 0:
            assert self._read(deadline, f"{text!r}"), f"the process ended before {text!r}; it showed {self.seen!r}"
        self._read_to = at + len(text)

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def type_until(self, key: str, text: str) -> None:
        """Type the key repeatedly until `text` is shown.

        readline does not see a Ctrl-C that arrives just before it waits for a key, until the next one.
        """
        for _ in range(10):
            self.type(key)
            try:
                return self.read_until(text, within=6)
            except AssertionError:
                if self._process.poll() is not None:
                    raise
        raise AssertionError(f"{key!r} did not show {text!r}; the screen shows {self.seen!r}")

    def finish(self, within: float = _SECONDS) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + within
        while self._read(deadline, "the end"):
            pass
        return self._process.wait(timeout=within)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self.terminal)

    def _read(self, deadline: float, awaited: str) -> bool:
        """Read one more piece of the screen; return False at its end."""
        ready, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{awaited} was not shown in time; the screen shows {self.seen!r}"
        try:
            data = os.read(self.terminal, 4096)
        except OSError:  # the other side is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@contextlib.contextmanager
def pty_session(arguments: list[str], folder: Path, *, program: str | None = None, **env: str) -> Iterator[PtySession]:
    """Run mullama with these arguments, or another program."""
    command = [sys.executable, "-c", _TAKE_TERMINAL] if program is None else [program]
    session = PtySession([*command, *arguments], folder, **env)
    try:
        yield session
    finally:
        session.close()
