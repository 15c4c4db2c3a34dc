"""The only importer of rich: coloured lines, tables, and live displays of downloads and of an apply."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from mullama.cli.console.progress import PHASES, ApplyProgress, ModelState, amounts, is_complete
from mullama.plan.report import Line, Tone
from mullama.sources.base import DownloadProgress
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
"""Sign and style of the states that a model stays in."""

_REFRESHES_PER_SECOND = 8
_UNBOUNDED = 10_000  # columns
_BAR_WIDTH = 20  # leaves room for a file name and the amounts on 100 columns

ApplyObserver = Callable[[Mapping[str, Any], ApplyProgress, ApplyProgress], None]
"""Called for each event of an apply with the event, the progress before it and the progress after it."""


class View:
    """Writes to one stream. Text is not read as rich markup, so the name of a model cannot style the screen."""

    def __init__(self, out: TextIO, *, coloured: bool) -> None:
        self._console = Console(
            file=out, no_color=not coloured, markup=False, highlight=False, emoji=False, soft_wrap=True
        )

    def toned(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._console.print(Text(printable(line.text), style=_TONES[line.tone]))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table. Only its last column is shortened on a narrow terminal; a pipe gets all of it."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for head in heads[:-1]:
            table.add_column(head, no_wrap=True)
        table.add_column(heads[-1], overflow="ellipsis")
        for row in rows:
            table.add_row(*(Text(cell, style=_STATES.get(cell, ("", ""))[1]) for cell in row))
        width = None if self._console.is_terminal else _UNBOUNDED
        self._console.print(table, soft_wrap=False, width=width, crop=width is None)

    def note(self, text: str) -> None:
        """Print one line; while a display is live, above it."""
        self._console.print(Text(printable(text)))

    @contextmanager
    def downloads(self) -> Iterator[Callable[[DownloadProgress], None]]:
        """Show bars of files until the block ends. Call the yielded function with each progress."""
        bars = _Bars()
        with self._live(lambda: bars.progress):
            yield lambda progress: bars.update(progress.file, progress)

    @contextmanager
    def apply(self) -> Iterator[ApplyObserver]:
        """Show an apply until the block ends. Call the yielded function for each event."""
        region = _ApplyRegion()

        def observe(event: Mapping[str, Any], before: ApplyProgress, after: ApplyProgress) -> None:
            del event
            region.update(after)
            for text in after.warnings[len(before.warnings) :]:
                self._console.print(Text(f"warning: {printable(text)}", style="yellow"))
            for line in _final_lines(before, after):
                self._console.print(line)

        with self._live(region.draw):
            yield observe

    @contextmanager
    def talk(self, now: Callable[[], tuple[Sequence[tuple[str, str]], str]]) -> Iterator[Callable[[str, str], None]]:
        """Show a conversation until the block ends. Call the yielded function with speaker and text of each line.

        now: returns the lines that are not complete, and a word for the state.
        """

        def line(speaker: str, text: str) -> Text:
            return Text.assemble((f"{printable(speaker)}: ", "bold"), printable(text))

        spinner = Spinner("dots", style="dim")

        def draw() -> RenderableType:
            lines, state = now()
            spinner.update(text=Text(state, style="dim"))
            return Group(*(line(*one) for one in lines), spinner)

        with self._live(draw):
            yield lambda speaker, text: self._console.print(line(speaker, text))

    def _live(self, draw: Callable[[], RenderableType]) -> Live:
        return Live(
            get_renderable=draw, console=self._console, refresh_per_second=_REFRESHES_PER_SECOND, transient=True
        )


class _AmountsColumn(ProgressColumn):
    """Percent, bytes, speed and time left."""

    def render(self, task: Task) -> Text:
        return Text(printable(amounts(task.fields["progress"], task.speed)))


class _Bars:
    """One bar for each file in transfer. rich measures the speed."""

    def __init__(self) -> None:
        name = TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", max_width=44)
        )
        self.progress = Progress(name, BarColumn(_BAR_WIDTH), _AmountsColumn())
        self._tasks: dict[Hashable, tuple[str, Any]] = {}

    def update(self, key: Hashable, progress: DownloadProgress, prefix: str = "") -> None:
        phase, task = self._tasks.get(key, ("", None))
        if phase != progress.phase:
            # A new phase counts from the start. A task of its own keeps the bytes of the last one out of the speed.
            if task is not None:
                self.progress.remove_task(task)
            task = self.progress.add_task("", completed=progress.completed, progress=progress)
            self._tasks[key] = (progress.phase, task)
        self.progress.update(
            task,
            description=printable(f"{prefix}{progress.phase} {progress.file}"),
            completed=progress.completed,
            total=progress.total,
            progress=progress,
            visible=not is_complete(progress) and progress.phase != "found",
        )


class _ApplyRegion:
    """The lines that change during an apply: files in transfer, models that load, and the phase."""

    def __init__(self) -> None:
        self._spinner = Spinner("dots")
        self._bars = _Bars()
        self._progress = ApplyProgress()

    def update(self, progress: ApplyProgress) -> None:
        for key, download in progress.downloads.items():
            if self._progress.downloads.get(key) != download:
                self._bars.update(key, download, prefix=f"{key[0]}: ")
        self._progress = progress

    def draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        if any(task.visible for task in self._bars.progress.tasks):
            parts.append(self._bars.progress)
        if loading := {n: s for n, s in self._progress.models.items() if s.state not in _STATES}:
            parts.append(_models(loading))
        self._spinner.update(text=Text(PHASES.get(self._progress.phase, "working")))
        return Group(*parts, self._spinner)


def _final_lines(before: ApplyProgress, after: ApplyProgress) -> Iterator[Text]:
    """The lines that stay above the region: complete files, and models in a final state."""
    for key, download in after.downloads.items():
        known = before.downloads.get(key)
        if is_complete(download) and download.phase != "found" and not (known and is_complete(known)):
            yield Text(f"● {printable(download.file)}: {amounts(download)}", style="green")
    for name, state in after.models.items():
        sign, style = _STATES.get(state.state, ("", ""))
        if sign and before.models.get(name) != state:
            message = f": {printable(state.message)}" if state.message else ""
            yield Text(f"{sign} {printable(name)} {state.state}{message}", style=style)


def _models(models: Mapping[str, ModelState]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, state in models.items():
        table.add_row(Text("◌", style="blue"), Text(printable(name)), Text(state.state), Text(printable(state.message)))
    return table
