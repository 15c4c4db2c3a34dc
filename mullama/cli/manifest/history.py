"""Commands about what was applied: history, undo, reload."""

from __future__ import annotations

import time
from typing import Any

from mullama.cli.api_client.discover import find, load_manifest, records_of, require
from mullama.cli.app.context import (
    CommandContext,
    Parser,
    json_option,
    manifest_options,
    server_options,
    timeout_option,
    yes_option,
)
from mullama.cli.app.exit_codes import DONE, REFUSED, outcome_code
from mullama.cli.manifest.apply_progress import ApplyView
from mullama.errors import Refused


def history_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    json_option(parser)


def history(call: CommandContext) -> int:
    """From the server when one runs, else from what is kept on the disk."""
    server = find(call, lambda: load_manifest(call))
    if server is not None:
        generations = server.client.get("/api/v1/history")["generations"]
    else:
        kept = records_of(call, load_manifest(call)).history()
        generations = [_tree(generation) for generation in kept]
    if call.options.json:
        call.terminal.json({"generations": generations})
    elif generations:
        heads = ("GENERATION", "WHEN", "BY", "TRIGGER", "RESULT", "CHANGES")
        call.terminal.table(heads, (_row(tree) for tree in generations))
    else:
        call.terminal.line("nothing was applied yet")
    return DONE


def _tree(generation: Any) -> dict[str, Any]:
    names = ("generation", "revision", "when", "by", "trigger", "origin", "result", "summary")
    return {name: getattr(generation, name) for name in names}


def _row(tree: dict[str, Any]) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(tree["when"]))
    changes = ", ".join(f"{count} {what}" for what, count in (tree.get("summary") or {}).items() if count)
    return (
        str(tree["generation"]),
        when,
        tree.get("by") or "-",
        tree.get("trigger") or "-",
        tree.get("result") or "-",
        changes or "-",
    )


def undo_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    yes_option(parser)
    json_option(parser)
    timeout_option(parser, "never")
    parser.add_argument("--to", type=int, metavar="N", help="the revision to go back to (default: the one before)")


def undo(call: CommandContext) -> int:
    """Apply the manifest of an older revision as a new one; the file on the disk is not touched."""
    options = call.options
    server = require(call)
    where = f"revision {options.to}" if options.to is not None else "the revision before"
    if not options.yes:
        if not call.terminal.interactive:
            raise Refused("undo may unload models, and nobody can be asked here", hint="--yes does it")
        if not call.terminal.confirm(f"Go back to {where}?"):
            call.terminal.note("nothing was changed")
            return REFUSED
    following = ApplyView(call.terminal, as_json=options.json)
    events = server.client.lines("POST", "/api/v1/undo", {"to": options.to}, within=options.timeout)
    result = following.run(events).result
    following.show_outcome()
    return outcome_code(result["outcome"]) if result else DONE


def reload_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    json_option(parser)


def reload(call: CommandContext) -> int:
    """Ask the server to read its manifest again, as it does by itself when the file is saved."""
    answer = require(call).client.post("/api/v1/reload", {})
    if call.options.json:
        call.terminal.json(answer)
    else:
        call.terminal.line(answer.get("message") or ("changed" if answer["changed"] else "nothing changed"))
    return DONE
