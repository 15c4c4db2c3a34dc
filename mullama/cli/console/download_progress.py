"""Shows the transfer of files on stderr: bars on a terminal, one line for each phase of a file elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from mullama.cli.console.progress import phase_line
from mullama.cli.console.terminal import Terminal
from mullama.sources.base import DownloadProgress


class DownloadDisplay:
    """`with DownloadDisplay(terminal) as report`: call `report` with each progress, from any thread."""

    def __init__(self, terminal: Terminal, *, quiet: bool = False) -> None:
        self._terminal, self._quiet = terminal, quiet
        self._latest: dict[str, DownloadProgress] = {}
        self._draw: Callable[[DownloadProgress], None] | None = None
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> DownloadDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, progress: DownloadProgress) -> None:
        if self._quiet or progress.phase == "found":
            return
        with self._lock:  # the first progress of several threads starts the display once
            before, self._latest[progress.file] = self._latest.get(progress.file), progress
            if self._terminal.err_animated:
                if self._draw is None:
                    self._draw = self._stack.enter_context(self._terminal.err_view.downloads())
                self._draw(progress)
            elif line := phase_line(before, progress):
                self._terminal.note(line)

    def note(self, text: str) -> None:
        """Write one line on stderr; above the bars while they are shown."""
        if self._draw is not None:
            self._terminal.err_view.note(text)
        else:
            self._terminal.note(text)
