"""`mullama top`: the models of a server or of a fleet as a live page of the terminal, or as one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import fleet_manifest, require
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE
from mullama.cli.on_fleet.fleet_call import FleetCall, find_fleet, fleet_of
from mullama.errors import Unavailable

if TYPE_CHECKING:
    from mullama.cli.page.live import LiveView
    from mullama.client.http import Client
    from mullama.targets.fleet.hosts import FleetHostPort

_SILENCE = 5.0  # seconds for the first measurement, which takes two


def top_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    parser.add_argument(
        "-b", "--once", action="store_true", help="print one table and exit; so does an output that is no terminal"
    )
    context.json_option(parser)
    parser.add_argument("--filter", default="", metavar="WORDS", help="only models with these words in their row")
    parser.add_argument(
        "--sort",
        choices=("manifest", "name", "state", "memory", "requests", "speed"),
        default="manifest",
        metavar="ORDER",
        help="manifest, name, state, memory, requests or speed (default: manifest)",
    )


def top(call: CommandContext) -> int:
    """Open the page on a terminal; elsewhere print the models with their speed over two seconds."""
    options = call.options
    if options.once or options.json or not (call.terminal.interactive and call.terminal.live):
        fleet = find_fleet(call)
        return _print(call) if fleet is None else _print_fleet(call, fleet)
    from mullama.cli.page.start import open_fleet, open_top

    loaded = fleet_manifest(call)
    return open_top(call) if loaded is None else open_fleet(call, fleet_of(call, loaded))


def measured(client: Client) -> LiveView:
    """Return the state of a server with one measurement of its speed, which takes two seconds."""
    from mullama.cli.page.live import LiveView, taken

    view = LiveView()
    for update in client.events("/api/v1/live", idle=_SILENCE):
        view = taken(view, update)
        if view.samples:
            break
    if not view.status:
        raise Unavailable("the server sent no status", hint="mullama status shows it")
    return view


def _print_fleet(call: CommandContext, fleet: FleetCall) -> int:
    """Print the models of all hosts, each with its host, in the order of --sort."""
    from mullama.cli.on_fleet.views import errors_of, good, note_errors
    from mullama.cli.page.model_table import COLUMNS, model_rows, sorted_rows
    from mullama.targets.fleet.hosts import named, on_each

    def look(host: FleetHostPort) -> LiveView:
        with named(host.name):
            return measured(fleet.hosts[host.name].client)

    answers = on_each(fleet.hosts.values(), look)
    views: dict[str, LiveView] = good(answers)
    if not views:
        raise errors_of(answers)[0]
    found = [(name, row) for name, view in views.items() for row in model_rows(view, wanted=call.options.filter)]
    rows = sorted_rows(found, call.options.sort, lambda pair: pair[1])
    if call.options.json:
        models = []
        for name, row in rows:
            model = next(model for model in views[name].models if model["name"] == row.name)
            models.append({"host": name, **_tree(views[name], model, row.speed)})
        call.terminal.json({"format": "mullama.fleet-top/1", "fleet": fleet.name, "models": models})
        return note_errors(call, fleet, answers)
    columns = [i for i, column in enumerate(COLUMNS) if column.key != "trend"]
    heads = ("HOST", *(COLUMNS[i].head for i in columns))
    call.terminal.table(heads, ((name, *(row.cells[i].text for i in columns)) for name, row in rows))
    return note_errors(call, fleet, answers)


def _print(call: CommandContext) -> int:
    from mullama.cli.page.model_table import COLUMNS, model_rows

    view = measured(require(call).client)
    rows = model_rows(view, order=call.options.sort, wanted=call.options.filter)
    if call.options.json:
        by_name = {model["name"]: model for model in view.models}
        models = [_tree(view, by_name[row.name], row.speed) for row in rows]
        shown = ("state", "generation", "revision", "memory", "machine", "conditions")
        call.terminal.json({"format": "mullama.top/1", **{n: view.status.get(n) for n in shown}, "models": models})
        return DONE
    columns = [i for i, column in enumerate(COLUMNS) if column.key != "trend"]
    call.terminal.table(
        tuple(COLUMNS[i].head for i in columns), (tuple(row.cells[i].text for i in columns) for row in rows)
    )
    return DONE


def _tree(view: Any, model: Mapping[str, Any], speed: float) -> dict[str, Any]:
    """Return a model of the status with its speed and its last error."""
    return {**model, "tokens_per_second": speed, "last_error": view.last_error(model["name"])}
