"""Opens the terminal page, if its extra is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mullama.cli.app.context import CommandContext
from mullama.cli.app.exit_codes import DONE
from mullama.cli.page.server_access import PageServer
from mullama.errors import Unsupported

if TYPE_CHECKING:
    from mullama.cli.inference.conversation import Conversation
    from mullama.cli.on_fleet.fleet_call import FleetCall
    from mullama.cli.page.screens.pane import Pane


def has_page() -> bool:
    """Return True if the extra `mullama[tui]` is installed. Nothing of it is imported."""
    return "textual" in sys.modules or find_spec("textual") is not None


def open_top(call: CommandContext) -> int:
    """Show the page until it is closed; return the exit code.

    Raises `Unsupported` without its extra, `Unavailable` without a server.
    """
    require_page("mullama top --once prints the table without it")
    server = PageServer(call)
    server.find()
    return _run(call, server, top_panes(order=call.options.sort, wanted=call.options.filter))


def open_fleet(call: CommandContext, fleet: FleetCall) -> int:
    """Show the page of a fleet until it is closed; return the exit code. Raises `Unsupported` without its extra."""
    require_page("mullama top --once prints the table without it")
    from mullama.cli.page.screens.fleet import FleetPage, FleetPageHost

    hosts = [
        FleetPageHost(
            name, host.url, fleet.hosts.get(name), fleet.faults[name].message if name in fleet.faults else "",
            name in fleet.away,
        )
        for name, host in fleet.loaded.manifest.fleet.hosts.items()
    ]  # fmt: skip
    options = call.options
    plain = bool(call.env.get("NO_COLOR"))
    page = FleetPage(fleet.name, hosts, order=options.sort, wanted=options.filter, plain=plain)
    page.run()
    return page.return_code or DONE


def open_chat(call: CommandContext, conversation: Conversation) -> int:
    """Show the page on its chat, with the settings of a conversation; return the exit code."""
    return _run(call, PageServer(call), top_panes(conversation=conversation), first="chat")


def _run(call: CommandContext, server: PageServer, panes: tuple[Pane, ...], first: str = "") -> int:
    from mullama.cli.page.screens.app import PageApp

    page = PageApp(server, panes, first=first, plain=bool(call.env.get("NO_COLOR")))
    page.run()
    return page.return_code or DONE


def top_panes(
    *, order: str = "manifest", wanted: str = "", conversation: Conversation | None = None
) -> tuple[Pane, ...]:
    """Return the panes of the page in the order of their tabs. order, wanted: of the table of models."""
    from mullama.cli.page.screens.chat import ChatPane
    from mullama.cli.page.screens.events import EventsPane, LogsPane, UsagePane
    from mullama.cli.page.screens.models import ModelsPane
    from mullama.cli.page.screens.plan import PlanPane

    models = ModelsPane(order=order, wanted=wanted)
    return models, EventsPane(), LogsPane(), PlanPane(), UsagePane(), ChatPane(conversation)


def require_page(otherwise: str) -> None:
    """Raise `Unsupported` without the extra. otherwise: the command that works without it."""
    if not has_page():
        raise Unsupported(
            "the terminal page needs the package textual, which is not installed",
            hint=f"pip install 'mullama[tui]' installs it; {otherwise}",
        )
