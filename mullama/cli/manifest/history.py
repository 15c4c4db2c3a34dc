"""Commands about applied revisions: history, undo, reload."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mullama.cli.api_client.discover import FoundServer, find, load_manifest, records_of, require, user
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE, REFUSED, outcome_code
from mullama.cli.manifest.apply_progress import ApplyView
from mullama.cli.manifest.planning import if_match
from mullama.cli.on_fleet.fleet_call import find_fleet
from mullama.cli.on_fleet.options import refuse_skip, skip_option
from mullama.cli.on_ray.options import on_cluster, place_options
from mullama.errors import Refused
from mullama.plan.report import lines
from mullama.plan.steps import from_tree
from mullama.store.records import Revision


def history_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.json_option(parser)
    parser.add_argument(
        "--diff", type=int, nargs=2, metavar=("BEFORE", "AFTER"), help="show the steps from one revision to another"
    )


def history(call: CommandContext) -> int:
    """List the revisions of the server, or those on disk if none is running."""
    if not call.options.diff and (fleet := find_fleet(call)) is not None:
        from mullama.cli.on_fleet import views

        return views.history(call, fleet, revision_row)
    server = find(call, lambda: load_manifest(call))
    if call.options.diff:
        return _diff(call, server, *call.options.diff)
    if server is not None:
        revisions = server.client.get("/api/v1/history")["generations"]
    else:
        revisions = [_tree(revision) for revision in records_of(call, load_manifest(call)).history()]
    if call.options.json:
        call.terminal.json({"generations": revisions})
    elif revisions:
        heads = ("REVISION", "WHEN", "BY", "TRIGGER", "RESULT", "CHANGES")
        call.terminal.table(heads, (revision_row(tree) for tree in revisions))
    else:
        call.terminal.line("no revision has been applied yet")
    return DONE


def _diff(call: CommandContext, server: FoundServer | None, before: int, after: int) -> int:
    if server is not None:
        found = server.client.get(f"/api/v1/history/diff?before={before}&after={after}")
    else:
        from mullama.reconcile.compare_revisions import compare_revisions

        records = records_of(call, load_manifest(call))
        found = compare_revisions(records.find(before), records.find(after))
    if call.options.json:
        call.terminal.json(found)
    else:
        call.terminal.toned(lines(from_tree(found["plan"])))
    return DONE


def _tree(revision: Revision) -> dict[str, Any]:
    names = ("generation", "revision", "when", "by", "trigger", "origin", "result", "summary")
    return {name: getattr(revision, name) for name in names}


def revision_row(tree: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a revision: number, time, author, trigger, result, changes."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(tree["when"]))
    number, result = tree["generation"], tree.get("result") or "-"
    return (
        str(number),
        when,
        tree.get("by") or "-",
        tree.get("trigger") or "-",
        result.removeprefix(f"revision {number} is ").partition(":")[0],
        changes_of(tree.get("summary") or {}) or "-",
    )


def changes_of(summary: Mapping[str, Any]) -> str:
    """Return `add chat, old; update routes`; numbers for a revision that a version before 0.2 wrote."""
    if isinstance(subjects := summary.get("subjects"), Mapping):
        return "; ".join(f"{action} {', '.join(names)}" for action, names in subjects.items())
    return ", ".join(f"{count} {word}" for word, count in summary.items() if count)


def undo_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.yes_option(parser)
    context.json_option(parser)
    context.timeout_option(parser, "never")
    place_options(parser)
    skip_option(parser)
    parser.add_argument("--to", type=int, metavar="N", help="number of the revision (default: the previous one)")


def undo(call: CommandContext) -> int:
    """Show the plan, ask, and apply the manifest of an earlier revision as a new one. The file does not change."""
    if on_cluster(call, "skip"):
        from mullama.cli.on_ray import commands

        return commands.undo(call)
    if (fleet := find_fleet(call)) is not None:
        from mullama.cli.on_fleet.undo import undo as undo_fleet

        return undo_fleet(call, fleet)
    refuse_skip(call)
    options = call.options
    server = require(call)
    where = f"revision {options.to}" if options.to is not None else "the previous revision"
    query = "" if options.to is None else f"?to={options.to}"
    plan = from_tree(server.client.get(f"/api/v1/undo{query}"))
    if not options.json:
        call.terminal.toned(lines(plan))
    if not options.yes and not plan.empty:
        if not call.terminal.interactive:
            raise Refused("undo may unload models and there is no terminal to confirm it", hint="--yes confirms it")
        if not call.terminal.confirm(f"Go back to {where}?"):
            call.terminal.note("nothing was changed")
            return REFUSED
    view = ApplyView(call.terminal, as_json=options.json)
    body = {"to": options.to, "by": user()}
    events = server.client.lines("POST", "/api/v1/undo", body, within=options.timeout, headers=if_match(plan))
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
    outcome = answer.get("outcome", "applied")
    code = DONE if outcome == "waiting" else outcome_code(outcome)
    if call.options.json:
        call.terminal.json(answer)
        return code
    message = answer.get("message") or ("changed" if answer["changed"] else "nothing changed")
    if code == DONE:
        call.terminal.line(message)
    else:
        call.terminal.note(f"error: {message}")
    return code
