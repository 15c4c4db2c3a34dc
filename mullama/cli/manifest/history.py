"""Commands about applied revisions: history, undo, reload."""

from __future__ import annotations

import time
from typing import Any

from mullama.cli.api_client.discover import find, load_manifest, records_of, require
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE, REFUSED, outcome_code
from mullama.cli.manifest.apply_progress import ApplyView
from mullama.errors import Refused
from mullama.store.records import Revision


def history_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.json_option(parser)


def history(call: CommandContext) -> int:
    """List the revisions of the server, or those on disk if none is running."""
    server = find(call, lambda: load_manifest(call))
    if server is not None:
        revisions = server.client.get("/api/v1/history")["generations"]
    else:
        revisions = [_tree(revision) for revision in records_of(call, load_manifest(call)).history()]
    if call.options.json:
        call.terminal.json({"generations": revisions})
    elif revisions:
        heads = ("REVISION", "WHEN", "BY", "TRIGGER", "RESULT", "CHANGES")
        call.terminal.table(heads, (_row(tree) for tree in revisions))
    else:
        call.terminal.line("no revision has been applied yet")
    return DONE


def _tree(revision: Revision) -> dict[str, Any]:
    names = ("generation", "revision", "when", "by", "trigger", "origin", "result", "summary")
    return {name: getattr(revision, name) for name in names}


def _row(tree: dict[str, Any]) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(tree["when"]))
    changes = ", ".join(f"{count} {word}" for word, count in (tree.get("summary") or {}).items() if count)
    return (
        str(tree["generation"]),
        when,
        tree.get("by") or "-",
        tree.get("trigger") or "-",
        tree.get("result") or "-",
        changes or "-",
    )


def undo_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.yes_option(parser)
    context.json_option(parser)
    context.timeout_option(parser, "never")
    parser.add_argument("--to", type=int, metavar="N", help="number of the revision (default: the previous one)")


def undo(call: CommandContext) -> int:
    """Apply the manifest of an earlier revision as a new revision. The manifest file does not change."""
    options = call.options
    server = require(call)
    where = f"revision {options.to}" if options.to is not None else "the previous revision"
    if not options.yes:
        if not call.terminal.interactive:
            raise Refused("undo may unload models and there is no terminal to confirm it", hint="--yes confirms it")
        if not call.terminal.confirm(f"Go back to {where}?"):
            call.terminal.note("nothing was changed")
            return REFUSED
    view = ApplyView(call.terminal, as_json=options.json)
    events = server.client.lines("POST", "/api/v1/undo", {"to": options.to}, within=options.timeout)
    result = view.run(events).result
    view.show_outcome()
    return outcome_code(result["outcome"]) if result else DONE


def reload_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.json_option(parser)


def reload(call: CommandContext) -> int:
    """Make the server read its manifest again, as it does when the file is saved."""
    answer = require(call).client.post("/api/v1/reload", {})
    if call.options.json:
        call.terminal.json(answer)
    else:
        call.terminal.line(answer.get("message") or ("changed" if answer["changed"] else "nothing changed"))
    return DONE
