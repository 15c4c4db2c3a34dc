"""The server of a page: found again for each use, and nothing is printed beside the page."""

from __future__ import annotations

import io

from mullama.cli.api_client.discover import FoundServer, require
from mullama.cli.app.context import CommandContext
from mullama.cli.console.terminal import Terminal


class PageServer:
    """Finds the server of a command. Usable from any thread."""

    def __init__(self, call: CommandContext) -> None:
        # A warning of a manifest on the error stream would be written across the page.
        quiet = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), call.env)
        self.call = call._replace(terminal=quiet)

    def find(self) -> FoundServer:
        """Return the server, also one that was started in the meantime; raise `Unavailable` if none is running."""
        return require(self.call)
