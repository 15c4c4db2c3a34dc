"""Follows a task of the server, such as a pull or a create, to its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mullama.cli.app.context import CommandContext
from mullama.cli.console.download_progress import DownloadDisplay
from mullama.cli.console.progress import read_progress
from mullama.client.errors import error_from_tree
from mullama.errors import Unavailable


def follow_task(
    call: CommandContext, lines: Iterable[Mapping[str, Any]], *, quiet: bool = False, as_json: bool = False
) -> None:
    """Show the progress of a task, or its lines as NDJSON.

    Raises the error that ended the task, and `Unavailable` if the connection ends first.
    """
    done = False
    with DownloadDisplay(call.terminal, quiet=quiet or as_json) as display:
        for line in lines:
            if error := line.get("error"):
                raise error_from_tree(error if isinstance(error, Mapping) else {"message": str(error)})
            if as_json:
                call.terminal.raw(json.dumps(line, ensure_ascii=False) + "\n")
            elif progress := read_progress(line):
                display(progress)
            elif not quiet and line["status"] != "success":
                display.note(str(line["status"]))
            done = line.get("status") == "success"
    if not done:
        raise Unavailable(
            "the server closed the connection before the task ended",
            hint="fetched bytes are kept: run the command again to resume",
        )
