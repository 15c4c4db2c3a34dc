"""`mullama logs` and `mullama events`: print the server's log and its events."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mullama.cli.api_client.discover import FoundServer, find, is_remote, load_manifest, records_of, require
from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option, manifest_options, server_options
from mullama.cli.app.exit_codes import DONE
from mullama.cli.on_fleet.fleet_call import find_fleet
from mullama.cli.on_ray.options import on_cluster, place_options
from mullama.errors import NotFound
from mullama.store.records import Records
from mullama.units import counted

_CHUNK = 64 * 1024
_POLL_SECONDS = 0.2
_FILTERS = ("model", "part", "level", "text", "since")
_LEVELS = ("debug", "info", "warning", "error", "critical")
_IDLE_SECONDS = 0.5  # a server that is silent for this long has sent all events that it kept


def logs_options(parser: Parser) -> None:
    parser.add_argument("--file", metavar="FILE", help="manifest (default: mullama.yaml in this folder)")
    parser.add_argument("-n", "--lines", type=int, default=50, help="number of lines (default: 50)")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new lines")
    server_options(parser)
    json_option(parser)
    place_options(parser)
    parser.add_argument("--model", metavar="NAME", help="only lines about this model")
    parser.add_argument("--part", metavar="PART", help="only lines of this part, such as requests or workers")
    parser.add_argument("--level", choices=_LEVELS, help="only lines of this level or a higher one")
    parser.add_argument("--text", metavar="TEXT", help="only lines with this text")
    parser.add_argument("--since", metavar="TIME", help="only lines since then: 10m, 2h, or Unix seconds")
    parser.set_defaults(profile=[])


def logs(call: CommandContext) -> int:
    """Print the end of the log.

    A server in the background writes a file, which is read on its machine. The lines of other servers, and those that
    are filtered, come from the server itself, which keeps the last ones; they need the role admin.
    """
    if call.options.lines < 0:
        raise UsageError("--lines must be 0 or more")
    if on_cluster(call, "follow", "json", "part", "level", "text", "since"):
        from mullama.cli.on_ray import commands

        return commands.logs(call)
    chosen = {name: value for name in _FILTERS if (value := getattr(call.options, name, None)) is not None}
    if (fleet := find_fleet(call)) is not None:
        from mullama.cli.on_fleet import views

        return views.logs(call, fleet, {"tail": str(call.options.lines), **chosen}, log_line)
    if is_remote(call) or chosen or getattr(call.options, "json", False):
        return _print_kept(call, require(call), chosen)
    path = _records(call).log_path
    if path.exists():
        return _print_file(call, path)
    server = find(call)
    if server is None:
        raise NotFound(f"there is no log at {path}", hint="only a background server writes one")
    return _print_kept(call, server, chosen)


def _print_kept(call: CommandContext, server: FoundServer, chosen: Mapping[str, str]) -> int:
    """Print the lines that a server keeps in memory."""
    found = server.client.get(f"/api/v1/logs?{urlencode({'tail': call.options.lines, **chosen})}")
    for line in found["lines"]:
        _print_line(call, line)
    if call.options.follow:
        for line in server.client.events(f"/api/v1/logs/events?{urlencode({'after': found['last'], **chosen})}"):
            if line["dropped"]:
                call.terminal.note(f"{counted(line['dropped'], 'line')} came too fast and are not kept")
            _print_line(call, line)
    return DONE


def _print_line(call: CommandContext, line: Mapping[str, Any]) -> None:
    """Print one line in the form of the file."""
    if getattr(call.options, "json", False):
        call.terminal.raw(json.dumps(line, ensure_ascii=False) + "\n")
        return
    call.terminal.line(log_line(line))


def log_line(line: Mapping[str, Any]) -> str:
    """Return a kept line in the form of the file: time, level and text."""
    when = float(line["when"])
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when))
    return f"{clock}.{int(when % 1 * 1000):03d} {line['level']} {line['text']}"


def _print_file(call: CommandContext, path: Path) -> int:
    with path.open("rb") as file:
        for line in _tail(path, call.options.lines):
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


def _tail(path: Path, count: int) -> list[bytes]:
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
