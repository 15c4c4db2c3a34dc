"""The base of the panes of the page, and of the application that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from textual.app import App
from textual.containers import Vertical

from mullama.cli.page.live import LiveView
from mullama.cli.page.server_access import PageServer
from mullama.errors import MullamaError
from mullama.units import printable


class PageBase(App[None]):
    """The parts of the application that panes know: its server, the live view, and its notes."""

    def __init__(self, server: PageServer, *, plain: bool = False) -> None:
        """plain: show no colour (NO_COLOR)."""
        super().__init__(ansi_color=plain)
        self.server = server
        self.view = LiveView()
        self.budget: Mapping[str, Any] = {}
        """`hardware.budget` of the applied manifest."""

    def say(self, text: str) -> None:
        """Show a short note for a few seconds."""
        self.notify(printable(text), markup=False, timeout=4)

    def report(self, error: MullamaError) -> None:
        """Show an error with its hint."""
        text = "\n".join(printable(line) for line in error.message.splitlines())
        hint = f"\n{printable(error.hint)}" if error.hint else ""
        self.notify(f"{text}{hint}", severity="error", markup=False, timeout=12)


class Pane(Vertical):
    """One of the contents that the page switches between."""

    title: ClassVar[str]
    """The word of the tab."""
    help: ClassVar[str]
    """One sentence of the help."""

    @property
    def page(self) -> PageBase:
        """The application."""
        return cast(PageBase, self.app)

    def changed(self) -> None:
        """Show the live view of the page again. Called after each update while the pane is shown."""

    def entered(self) -> None:
        """Take the focus, and read what is not live."""

    def left(self) -> None:
        """Stop what only a shown pane needs."""

    def failed(self, error: MullamaError) -> None:
        """Report an error of an action."""
        self.page.report(error)
