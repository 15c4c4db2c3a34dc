"""Progress of files that this process fetches or reads itself, on stderr: a line that moves, or one for each tenth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mullama.cli.console.progress import amounts
from mullama.cli.console.terminal import Terminal
from mullama.sources.base import DownloadProgress
from mullama.units import printable

_EVERY_SECONDS = 0.1


def describe(progress: DownloadProgress, speed: float) -> str:
    """`downloading x.gguf: 1.0 MiB of 4.0 MiB, 2.0 MiB/s, 2 s left`; speed is bytes per second, 0 for unknown."""
    told = amounts(
        progress.completed,
        progress.total,
        resumed=progress.resumed,
        speed=speed if progress.phase in ("downloading", "sending") else 0.0,
        message=progress.message,
    )
    return f"{progress.phase} {progress.file}: {told}"


def together(files: Sequence[DownloadProgress]) -> DownloadProgress:
    """Several files under way as one; the last one told gives the phase."""
    if len(files) == 1:
        return files[0]
    totals = [file.total for file in files]
    return DownloadProgress(
        file=f"{len(files)} files",
        phase=files[-1].phase,
        completed=sum(file.completed for file in files),
        total=sum(t for t in totals if t) if all(totals) else None,
        resumed=sum(file.resumed for file in files),
    )


@dataclass(slots=True)
class Speed:
    """Bytes per second over the last few looks."""

    now: Callable[[], float] = time.monotonic
    _seen: list[tuple[float, int]] = field(default_factory=list)

    def of(self, done: int) -> float:
        """The speed, given that so many bytes are done now."""
        self._seen = [*self._seen[-50:], (self.now(), done)]
        (begun, first), (last, newest) = self._seen[0], self._seen[-1]
        return (newest - first) / (last - begun) if last > begun else 0.0


class Ticker:
    """`with Ticker(terminal) as report`: tell it each progress, from any thread."""

    def __init__(self, terminal: Terminal, *, quiet: bool = False) -> None:
        self._terminal, self._quiet = terminal, quiet
        self._live = terminal.err.isatty()
        self._speeds: dict[str, Speed] = {}
        self._told: dict[str, tuple[str, int]] = {}
        self._latest: dict[str, DownloadProgress] = {}
        self._drawn = 0.0
        self._width = 0

    def __enter__(self) -> Ticker:
        return self

    def __exit__(self, *_: object) -> None:
        self._wipe()

    def __call__(self, progress: DownloadProgress) -> None:
        if self._quiet or progress.phase == "found":
            return
        self._latest[progress.file] = progress
        shown = together(list(self._latest.values())) if self._live else progress
        speed = self._speeds.setdefault(shown.file, Speed()).of(shown.completed)
        (self._draw if self._live else self._note)(shown, speed)

    def _draw(self, progress: DownloadProgress, speed: float) -> None:
        now = time.monotonic()
        if now - self._drawn < _EVERY_SECONDS:
            return
        self._drawn = now
        text = printable(describe(progress, speed))[:120]
        self._terminal.err.write("\r" + text.ljust(self._width))
        self._terminal.err.flush()
        self._width = len(text)

    def _wipe(self) -> None:
        if self._width:
            self._terminal.err.write("\r" + " " * self._width + "\r")
            self._terminal.err.flush()
            self._width = 0

    def _note(self, progress: DownloadProgress, speed: float) -> None:
        """Where nothing can be drawn over: each phase once, and each tenth of a download."""
        tenth = progress.completed * 10 // progress.total if progress.total else 0
        if self._told.get(progress.file) != (progress.phase, tenth):
            self._told[progress.file] = (progress.phase, tenth)
            self._terminal.note(describe(progress, speed))
