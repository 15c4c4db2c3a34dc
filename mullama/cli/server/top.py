"""`mullama top`: the models of a server as a live page of the terminal, or as one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.cli.api_client.discover import require
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE
from mullama.errors import Unavailable

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
    """Open the page on a terminal; elsewhere print the models with their speed over the last two seconds."""
    options = call.options
    if options.once or options.json or not (call.terminal.interactive and call.terminal.live):
        return _print(call)
    from mullama.cli.page.start import open_top

    return open_top(call)


def _print(call: CommandContext) -> int:
    from mullama.cli.page.live import LiveView, taken
    from mullama.cli.page.model_table import COLUMNS, model_rows

    view = LiveView()
    for update in require(call).client.events("/api/v1/live", idle=_SILENCE):
        view = taken(view, update)
        if view.samples:
            break
    if not view.status:
        raise Unavailable("the server sent no status", hint="mullama status shows it")
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
