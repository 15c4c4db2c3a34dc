"""The two streams a command writes to and the one it reads: plain text, safe to show, coloured only for eyes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from mullama.units import printable

if TYPE_CHECKING:
    from mullama.cli.console.view import View
    from mullama.plan.report import Line


class Terminal:
    """Text streams and what is known of them.

    interactive: a person can be asked. coloured: stdout may hold ANSI codes. Neither is true of a pipe or a file.
    """

    def __init__(self, source: TextIO, out: TextIO, err: TextIO, env: Mapping[str, str]) -> None:
        self.source = source
        self.out = out
        self.err = err
        self.interactive = source.isatty() and out.isatty()
        self.live = out.isatty() and env.get("TERM") != "dumb"
        self.coloured = self.live and not env.get("NO_COLOR")
        self._view: View | None = None

    @classmethod
    def standard(cls) -> Terminal:
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ)

    @property
    def view(self) -> View:
        """The rich view of stdout, made on first use because it takes a while to import."""
        if self._view is None:
            from mullama.cli.console.view import View

            self._view = View(self.out, coloured=self.coloured)
        return self._view

    def line(self, text: str = "") -> None:
        """One line on stdout; characters that a terminal would act on are escaped."""
        print(_safe(text), file=self.out, flush=self.live)

    def raw(self, text: str) -> None:
        """Text that is the command's product, such as a file or an answer; escaped only where eyes read it."""
        shown = "".join(c if c in "\n\t" else printable(c) for c in text) if self.live else text
        self.out.write(shown)
        self.out.flush()

    def note(self, text: str) -> None:
        """One line on stderr, for people: never part of what a script reads."""
        print(_safe(text), file=self.err, flush=True)

    def json(self, tree: Any) -> None:
        import json

        print(json.dumps(tree, ensure_ascii=False, indent=2), file=self.out)

    def toned(self, lines: Iterable[Line]) -> None:
        """Lines whose tone colours them on a terminal."""
        if self.coloured:
            self.view.toned(lines)
        else:
            for line in lines:
                self.line(line.text)

    def table(self, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        """Columns with a head: drawn by rich on a terminal, padded with spaces elsewhere."""
        cells = [tuple(_safe(cell) for cell in row) for row in rows]
        if self.coloured:
            self.view.table(heads, cells)
            return
        widths = [max(len(row[i]) for row in (heads, *cells)) for i in range(len(heads))]
        for row in (heads, *cells):
            self.line("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())

    def confirm(self, question: str) -> bool:
        """Ask a person; anything but yes, and the end of the input too, is no."""
        self.out.write(f"{_safe(question)} [y/N] ")
        self.out.flush()
        return self.source.readline().strip().casefold() in ("y", "yes")


def _safe(text: str) -> str:
    if text.isprintable():  # as nearly all is; a table of a thousand rows shows it
        return text
    return "".join(c if c == "\t" else printable(c) for c in text)
