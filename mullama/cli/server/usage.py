"""`mullama usage`: requests and tokens by key, route or model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mullama.cli.api_client.discover import require
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE
from mullama.cli.on_fleet.fleet_call import find_fleet
from mullama.units import duration

_SUBJECTS = ("key", "route", "model")
_SUMS = {
    "requests": "REQUESTS", "errors": "ERRORS", "cancelled": "CANCELLED", "prompt_tokens": "PROMPT",
    "cached_tokens": "CACHED", "generated_tokens": "GENERATED", "drafted_tokens": "DRAFTED",
    "accepted_tokens": "ACCEPTED", "seconds": "TIME",
}  # fmt: skip
# The columns for people: a table of all is wider than a terminal.
_SHOWN = ("requests", "errors", "prompt_tokens", "cached_tokens", "generated_tokens", "seconds")


def usage_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    parser.add_argument(
        "--by",
        action="append",
        choices=_SUBJECTS,
        metavar="SUBJECT",
        help="key, route or model; repeat to combine them (default: model)",
    )
    parser.add_argument(
        "--since",
        type=context.seconds,
        default=context.seconds("7d"),
        metavar="TIME",
        help="how far to look back, such as 12h or 30d (default: 7d)",
    )
    parser.add_argument(
        "--per", choices=("minute", "hour", "day"), metavar="SPAN", help="one row for each minute, hour or day (UTC)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV instead of text")
    form.add_argument("--json", action="store_true", help="print JSON instead of text")


def usage(call: CommandContext) -> int:
    """Print the sums that the server recorded."""
    options = call.options
    by = options.by or ["model"]
    since = "never" if math.isinf(options.since) else f"{options.since:.0f}s"
    asked = {"since": since, "by": ",".join(by), **({"span": options.per} if options.per else {})}
    if (fleet := find_fleet(call)) is not None:
        from mullama.cli.on_fleet import views

        tree, code = views.usage_rows(call, fleet, asked)
        client, places = None, ["host"]
    else:
        client, code, places = require(call).client, DONE, []
        tree = client.get(f"/api/v1/usage?{urlencode(asked)}")
    rows = tree["rows"]
    if options.json:
        call.terminal.json(tree)
        return code
    columns = [*places, *(["start"] if options.per else []), *(name for name in _SUBJECTS if name in by)]
    if options.csv:
        call.terminal.raw(_csv([*columns, *_SUMS], rows))
    elif rows:
        heads = (*(name.upper() for name in columns), *(_SUMS[name] for name in _SHOWN))
        call.terminal.table(heads, (_row(row, columns) for row in rows))
    elif client and client.get("/api/v1/stack")["manifest"].get("observability", {}).get("usage", {}).get("keep") == 0:
        call.terminal.line("usage is not recorded: observability.usage.keep is 0s")
    else:
        call.terminal.line(f"no requests in the last {duration(options.since)}")
    return code


def _row(row: Mapping[str, Any], columns: list[str]) -> tuple[str, ...]:
    subjects = [_time(row[name]) if name == "start" else row[name] or "-" for name in columns]
    return (*subjects, *(duration(row[name]) if name == "seconds" else f"{row[name]:,}" for name in _SHOWN))


def _time(start: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M")


def _csv(columns: list[str], rows: list[Mapping[str, Any]]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_plain(row[name]) for name in columns])
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Return a value for CSV. A spreadsheet would compute a text that begins as a formula does."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
