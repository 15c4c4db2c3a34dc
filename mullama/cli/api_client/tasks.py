"""Follows a task of the server (a pull, a create) to its end: a line that moves, one for each tenth, or NDJSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from mullama.cli.api_client.errors import error_from_tree
from mullama.cli.app.context import CommandContext
from mullama.cli.console.download_progress import Ticker
from mullama.errors import Unavailable
from mullama.sources.base import DownloadProgress, Phase


def follow_task(
    call: CommandContext, lines: Iterable[Mapping[str, Any]], *, quiet: bool = False, as_json: bool = False
) -> None:
    """Show the progress; raises the error that ended the task, `Unavailable` for a task that did not end."""
    done = False
    with Ticker(call.terminal, quiet=quiet or as_json) as ticker:
        for line in lines:
            if error := line.get("error"):
                raise error_from_tree(error if isinstance(error, Mapping) else {"message": str(error)})
            if as_json:
                call.terminal.raw(json.dumps(line, ensure_ascii=False) + "\n")
            elif progress := progress_of(line):
                ticker(progress)
            elif not quiet and line["status"] != "success":
                call.terminal.note(str(line["status"]))
            done = line.get("status") == "success"
    if not done:
        raise Unavailable(
            "the server ended the connection in the middle", hint="what was fetched is kept: try again to go on"
        )


def progress_of(line: Mapping[str, Any]) -> DownloadProgress | None:
    """The bytes that a line tells of, None for a line about something else."""
    file, total = line.get("file"), line.get("total")
    phase: Any = line.get("phase")
    if not file or phase not in get_args(Phase):
        return None
    return DownloadProgress(
        file=str(file),
        phase=phase,
        completed=int(line.get("completed") or 0),
        total=int(total) if total else None,
        resumed=int(line.get("resumed") or 0),
        message=str(line.get("message") or ""),
    )
