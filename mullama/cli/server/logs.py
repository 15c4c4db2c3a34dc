"""`mullama logs` and `mullama events`: print the server's log and its events."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mullama.cli.api_client.discover import find, is_remote, load_manifest, records_of, require
from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option, manifest_options, server_options
from mullama.cli.app.exit_codes import DONE
from mullama.errors import NotFound
from mullama.store.records import Records

_CHUNK = 64 * 1024
_POLL_SECONDS = 0.2
_IDLE_SECONDS = 0.5  # a server that is silent for this long has sent all events that it kept


def logs_options(parser: Parser) -> None:
    parser.add_argument("--file", metavar="FILE", help="manifest (default: mullama.yaml in this folder)")
    parser.add_argument("-n", "--lines", type=int, default=50, help="number of lines (default: 50)")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new lines")
    parser.set_defaults(host=None, key_file=None, profile=[])


def logs(call: CommandContext) -> int:
    """Print the end of the log of a server in the background; one in the foreground logs to its terminal."""
    if is_remote(call):
        raise UsageError("logs works on this machine only, and the server is remote", hint="run mullama logs there")
    if call.options.lines < 0:
        raise UsageError("--lines must be 0 or more")
    records = _records(call)
    path = records.log_path
    if not path.exists():
        raise NotFound(f"there is no log at {path}", hint="only a background server writes one")
    with path.open("rb") as file:
        for line in tail(path, call.options.lines):
            call.terminal.raw(line.decode("utf-8", "replace"))
        file.seek(0, 2)
        while call.options.follow:
            data = file.read(_CHUNK)
            if data:
                call.terminal.raw(data.decode("utf-8", "replace"))
            else:
                if path.stat().st_size < file.tell():
                    file.seek(0)  # the log was rotated
                time.sleep(_POLL_SECONDS)
    return DONE


def _records(call: CommandContext) -> Records:
    server = find(call)
    if server is not None and server.records is not None:
        return server.records
    return records_of(call, load_manifest(call))


def tail(path: Path, count: int) -> list[bytes]:
    """Return the last lines; only the end of the file is read."""
    with path.open("rb") as file:
        file.seek(0, 2)
        at, data = file.tell(), b""
        while at > 0 and data.count(b"\n") <= count:
            length = min(_CHUNK, at)
            at -= length
            file.seek(at)
            data = file.read(length) + data
    lines = data.splitlines(keepends=True)
    return lines[-count:] if count else []


def events_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    json_option(parser)
    parser.add_argument("--follow", action="store_true", help="keep printing new events")
    parser.add_argument(
        "--after",
        type=int,
        default=0,
        metavar="ID",
        help="start after this event (default: print all stored events)",
    )


def events(call: CommandContext) -> int:
    """Print one line for each event, from the first that the server kept."""
    idle = None if call.options.follow else _IDLE_SECONDS
    for event in require(call).client.events(f"/api/v1/events?after={call.options.after}", idle=idle):
        if call.options.json:
            call.terminal.raw(json.dumps(event, ensure_ascii=False) + "\n")
        else:
            call.terminal.line(_line(event))
    return DONE


def _line(event: Mapping[str, Any]) -> str:
    """Format an event as `12:03:04 model chat: ready`: time, kind, subject and message."""
    when = event.get("when")
    clock = time.strftime("%H:%M:%S", time.localtime(when)) if isinstance(when, (int, float)) else ""
    head = " ".join(str(part) for part in (clock, event.get("kind"), event.get("subject")) if part)
    return f"{head}: {event['message']}" if event.get("message") else head
