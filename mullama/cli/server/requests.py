"""`mullama requests`: prints the requests that the server captured."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mullama.cli.api_client.discover import require
from mullama.cli.app.context import CommandContext, Parser, json_option, manifest_options, server_options
from mullama.cli.app.exit_codes import DONE

_HEADS = ("ID", "TIME", "MODEL", "KEY", "RESULT", "PROMPT", "CACHED", "TOKENS", "FIRST", "SECONDS")
_FILTERS = ("model", "key", "route", "result")


def requests_options(parser: Parser) -> None:
    parser.add_argument("id", nargs="?", type=int, metavar="ID", help="request to show with its prompt and answer")
    manifest_options(parser)
    server_options(parser)
    json_option(parser)
    parser.add_argument("--follow", action="store_true", help="keep printing new requests")
    parser.add_argument("--model", metavar="NAME", help="only requests that this model answered")
    parser.add_argument("--key", metavar="NAME", help="only requests with this key")
    parser.add_argument("--route", metavar="NAME", help="only requests that used this name")
    parser.add_argument("--result", choices=("ok", "error", "cancelled"), help="only requests with this result")


def requests(call: CommandContext) -> int:
    """Print one line for each captured request, newest first. Captures need `observability.captures`."""
    client = require(call).client
    if call.options.id is not None:
        _show(call, client.get(f"/api/v1/requests/{call.options.id}"))
        return DONE
    chosen = {name: value for name in _FILTERS if (value := getattr(call.options, name)) is not None}
    if call.options.follow:
        for row in client.events("/api/v1/requests/events", idle=None):
            if all(row[name] == value for name, value in chosen.items()):
                _print(call, row)
        return DONE
    rows = client.get(f"/api/v1/requests?{urlencode(chosen)}")["requests"]
    if call.options.json:
        call.terminal.json({"requests": rows})
    elif rows:
        call.terminal.table(_HEADS, map(_cells, rows))
    elif client.get("/api/v1/stack")["manifest"].get("observability", {}).get("captures") is None:
        call.terminal.line("nothing is captured: observability.captures in the manifest switches it on")
    else:
        call.terminal.line("no captured requests")
    return DONE


def _print(call: CommandContext, row: Mapping[str, Any]) -> None:
    if call.options.json:
        call.terminal.raw(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        call.terminal.line("  ".join(_cells(row)))


def _show(call: CommandContext, row: Mapping[str, Any]) -> None:
    if call.options.json:
        call.terminal.json(row)
        return
    call.terminal.table(_HEADS, [_cells(row)])
    if error := row["error"]:
        call.terminal.line(f"error: {error['kind']}: {error['message']}")
    for name in ("prompt", "answer"):
        if row[name] is not None:
            call.terminal.line(f"--- {name}")
            call.terminal.raw(row[name].rstrip("\n") + "\n")
    for made in row["calls"]:
        failed = ", failed" if made["is_error"] else ""
        call.terminal.line(f"--- call of {made['server']}/{made['name']}, {made['seconds']:.2f} s{failed}")
        if row["kept"]:
            call.terminal.line(json.dumps(made["arguments"], ensure_ascii=False))
            call.terminal.raw(made["text"].rstrip("\n") + "\n")
    if row["prompt"] is None:
        call.terminal.line(
            "the prompt and the answer were not kept: observability.captures.bodies selects those that are"
        )


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    usage, first = row["usage"], row["first_token"]
    return (
        str(row["id"]),
        time.strftime("%H:%M:%S", time.localtime(row["when"])),
        row["model"],
        row["key"] or "-",
        row["result"],
        str(usage["prompt_tokens"]),
        str(usage["cached_tokens"]),
        str(usage["completion_tokens"]),
        "-" if first is None else f"{first:.2f} s",
        f"{row['seconds']:.2f} s",
    )
