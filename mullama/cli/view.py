"""The only importer of rich: coloured lines, tables, and the live view of an apply on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mullama.cli.progress import PHASES, Download, ModelState, Progress, fold, news
from mullama.plan.report import Line, Tone, printable

_TONES: Mapping[Tone, str] = {
    "add": "green",
    "update": "yellow",
    "replace": "magenta",
    "remove": "red",
    "repair": "cyan",
    "plain": "",
}
_STATES = {
    "ready": ("●", "green"),
    "failed": ("✗", "red"),
    "unloaded": ("○", "dim"),
    "degraded": ("●", "yellow"),
}


class View:
    """Writes to one stream. Text is never read as rich markup, so a model's name cannot colour the screen."""

    def __init__(self, out: TextIO, *, coloured: bool) -> None:
        self._console = Console(
            file=out, no_color=not coloured, markup=False, highlight=False, emoji=False, soft_wrap=True
        )

    def toned(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._console.print(Text(printable(line.text), style=_TONES[line.tone]))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for head in heads:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=_STATES.get(cell, ("", ""))[1]) for cell in row))
        self._console.print(table, soft_wrap=False)

    @contextmanager
    def following(self) -> Iterator[Follower]:
        """A region at the foot of the screen that redraws itself while events are folded into it."""
        follower = Follower(self._console)
        with Live(
            get_renderable=follower.draw, console=self._console, refresh_per_second=8, transient=True
        ) as live:
            yield follower
            live.refresh()


class Follower:
    """The live region: lines that stay are printed above it, the rest is drawn from the progress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner("dots")
        self.progress = Progress()

    def feed(self, event: Mapping[str, Any]) -> Progress:
        before, self.progress = self.progress, fold(self.progress, event)
        for text in news(before, self.progress):
            if text.startswith("warning:"):
                self._console.print(Text(printable(text), style="yellow"))
        return self.progress

    def draw(self) -> RenderableType:
        progress = self.progress
        parts: list[RenderableType] = []
        running = [d for d in progress.downloads.values() if d.total is None or d.done < d.total]
        if running:
            parts.append(_downloads(running))
        if progress.models:
            parts.append(_models(progress.models))
        self._spinner.update(text=Text(PHASES.get(progress.phase, "working")))
        parts.append(self._spinner)
        return Group(*parts)


def _downloads(downloads: Sequence[Download]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for item in downloads:
        bar = ProgressBar(total=item.total, completed=item.done, width=30, pulse=item.total is None)
        table.add_row(Text(printable(item.model)), Text(printable(item.file), overflow="ellipsis"), bar, str(item))
    return table


def _models(models: Mapping[str, ModelState]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, state in models.items():
        sign, style = _STATES.get(state.state, ("◌", "blue"))
        table.add_row(
            Text(sign, style=style), Text(printable(name)), Text(state.state), Text(printable(state.message))
        )
    return table
