"""The streams of a command: text that is safe to show, with colour only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from mullama.units import printable

if TYPE_CHECKING:
    from mullama.cli.console.view import View
    from mullama.plan.report import Line


class Terminal:
    """Input, output and error stream of one command."""

    interactive: bool
    """A person can answer a question: input and output are a terminal."""
    live: bool
    """Output is a terminal that understands control codes."""
    coloured: bool
    """Output may hold control codes: it is live and NO_COLOR is not set."""
    err_animated: bool
    """The error stream may hold control codes."""

    def __init__(self, source: TextIO, out: TextIO, err: TextIO, env: Mapping[str, str]) -> None:
        self.source = source
        self.out = out
        self.err = err
        self.interactive = source.isatty() and out.isatty()
        self.live = out.isatty() and env.get("TERM") != "dumb"
        self.coloured = self.live and not env.get("NO_COLOR")
        self.err_animated = err.isatty() and env.get("TERM") != "dumb" and not env.get("NO_COLOR")

    @classmethod
    def standard(cls) -> Terminal:
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ)

    @cached_property
    def view(self) -> View:
        """The rich view of the output; made at the first use, because rich is slow to import."""
        from mullama.cli.console.view import View

        return View(self.out, coloured=self.coloured)

    @cached_property
    def err_view(self) -> View:
        """The rich view of the error stream."""
        from mullama.cli.console.view import View

        return View(self.err, coloured=self.err_animated)

    def line(self, text: str = "") -> None:
        """Write one line to the output. Control characters are escaped."""
        print(_safe(text), file=self.out, flush=self.live)

    def raw(self, text: str) -> None:
        """Write the product of a command, such as a file or an answer. Control characters are escaped if live."""
        shown = "".join(c if c in "\n\t" else printable(c) for c in text) if self.live else text
        self.out.write(shown)
        self.out.flush()

    def dim(self, text: str) -> None:
        """Write lines to the output, dimmed if coloured. Control characters are escaped."""
        shown = "\n".join(map(_safe, text.split("\n")))
        print(f"\x1b[2m{shown}\x1b[0m" if self.coloured else shown, file=self.out, flush=True)

    def note(self, text: str) -> None:
        """Write one line for people to the error stream."""
        print(_safe(text), file=self.err, flush=True)

    def json(self, tree: Any) -> None:
        """Write a JSON document to the output."""
        import json

        print(json.dumps(tree, ensure_ascii=False, indent=2), file=self.out)

    def toned(self, lines: Iterable[Line]) -> None:
        """Write lines, in the colours of their tones if coloured."""
        if self.coloured:
            self.view.toned(lines)
        else:
            for line in lines:
                self.line(line.text)

    def table(self, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        """Write columns under their heads: drawn by rich if coloured, else padded with spaces."""
        cells = [tuple(_safe(cell) for cell in row) for row in rows]
        if self.coloured:
            self.view.table(heads, cells)
            return
        widths = [max(len(row[i]) for row in (heads, *cells)) for i in range(len(heads))]
        for row in (heads, *cells):
            self.line("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question. Any answer but yes is no, and so is the end of the input."""
        self.out.write(f"{_safe(question)} [y/N] ")
        self.out.flush()
        return self.source.readline().strip().casefold() in ("y", "yes")


def _safe(text: str) -> str:
    if text.isprintable():  # true of nearly every cell; a table of a thousand rows takes half the time
        return text
    return "".join(c if c == "\t" else printable(c) for c in text)
