"""The only importer of rich: coloured lines, tables, and the live view of an apply on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mullama.cli.console.progress import PHASES, ApplyProgress, Download, ModelState
from mullama.plan.report import Line, Tone
from mullama.units import printable

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
    "idle": ("○", "dim"),
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
    def following(self) -> Iterator[Callable[[Mapping[str, Any], ApplyProgress, ApplyProgress], None]]:
        """A region at the foot of the screen that redraws itself; what is yielded tells it of each event."""
        region = _Region()
        live = Live(get_renderable=region.draw, console=self._console, refresh_per_second=8, transient=True)

        def tell(event: Mapping[str, Any], before: ApplyProgress, after: ApplyProgress) -> None:
            del event
            region.progress = after
            for text in after.warnings[len(before.warnings) :]:
                self._console.print(Text(f"warning: {printable(text)}", style="yellow"))
            for line in _finished(before, after):
                self._console.print(line)

        with live:
            yield tell


def _finished(before: ApplyProgress, after: ApplyProgress) -> Iterator[Text]:
    """What stays on the screen above the region: files that are whole, models that came to rest."""
    for key, download in after.downloads.items():
        if download.whole and not ((old := before.downloads.get(key)) and old.whole):
            yield Text(f"● {printable(download.file)}: {download}", style="green")
    for name, state in after.models.items():
        sign, style = _STATES.get(state.state, ("", ""))
        if sign and before.models.get(name) != state:
            message = f": {printable(state.message)}" if state.message else ""
            yield Text(f"{sign} {printable(name)} {state.state}{message}", style=style)


class _Region:
    """What moves: files under way, models that are not at rest yet, and the phase."""

    def __init__(self) -> None:
        self._spinner = Spinner("dots")
        self.progress = ApplyProgress()

    def draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        if running := [d for d in self.progress.downloads.values() if not d.whole]:
            parts.append(_downloads(running))
        if moving := {n: s for n, s in self.progress.models.items() if s.state not in _STATES}:
            parts.append(_models(moving))
        self._spinner.update(text=Text(PHASES.get(self.progress.phase, "working")))
        return Group(*parts, self._spinner)


def _downloads(downloads: Sequence[Download]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for item in downloads:
        bar = ProgressBar(total=item.total, completed=item.done, width=30, pulse=item.total is None)
        table.add_row(Text(printable(item.model)), Text(printable(item.file), overflow="ellipsis"), bar, str(item))
    return table


def _models(models: Mapping[str, ModelState]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, state in models.items():
        table.add_row(Text("◌", style="blue"), Text(printable(name)), Text(state.state), Text(printable(state.message)))
    return table
