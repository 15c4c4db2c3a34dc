"""`mullama clients`: the configuration files of coding agents, as the manifest declares them: diff, apply and undo."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import load_manifest, records_of
from mullama.cli.app.context import (
    CommandContext,
    Parser,
    UsageError,
    json_option,
    manifest_options,
    server_options,
    yes_option,
)
from mullama.cli.app.exit_codes import DIFFERS, DONE, PARTLY, REFUSED
from mullama.cli.clients.served import (
    client_named,
    declared_model,
    existing,
    first_target,
    plan_of,
    user_folders,
    warning_of,
)
from mullama.cli.clients.undo import confirmed, take_back, undo
from mullama.clients.plan import ClientFilePlan
from mullama.clients.programs import CLIENTS
from mullama.errors import Conflict, NotFound
from mullama.store.client_files import (
    ClientRecords,
    EditedFile,
    digest_of,
    missing_folders,
    read_client_file,
    write_client_file,
)
from mullama.store.records import Records
from mullama.struct import Struct, replace
from mullama.units import counted

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

ACTIONS = ("diff", "apply", "undo")
_AS_DECLARED = "the files are as declared: nothing to change"


def clients_options(parser: Parser) -> None:
    parser.add_argument(
        "action", choices=ACTIONS,
        help="diff shows the edits (exit code 2 if there are some), apply makes them, undo takes the last apply back",
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="CLIENT", help=f"only these clients: {', '.join(CLIENTS)}")
    manifest_options(parser)
    server_options(parser)
    yes_option(parser)
    json_option(parser)
    parser.add_argument("--all", action="store_true", help="undo: take every apply back, not only the last one")
    parser.add_argument(
        "--force", action="store_true",
        help="undo: also restore a file that was changed since; the present one is kept beside it",
    )  # fmt: skip


def clients(call: CommandContext) -> int:
    options = call.options
    for name in options.names:
        client_named(name)
    if options.action == "undo":
        return undo(call)
    if options.all or options.force:
        raise UsageError("--all and --force are for mullama clients undo")
    loaded = load_manifest(call)
    records = records_of(call, loaded)
    found = _plan(call, loaded, ClientRecords(records.folder))
    _show(call, found)
    if options.action == "diff":
        return DIFFERS if found.plans or found.stale else DONE
    return _apply(call, loaded, records, found)


class _ClientPlans(Struct, kw_only=True):
    plans: list[ClientFilePlan]
    """The files that change."""
    notes: list[str]
    stale: dict[str, str]
    """The files with edits that the manifest does not declare any more, and their clients."""


def _plan(call: CommandContext, loaded: LoadedManifest, records: ClientRecords) -> _ClientPlans:
    from mullama.cli.models.declared import Declared

    declared = Declared(manifest=loaded.manifest, path=loaded.path, server=None)
    entries, chosen = loaded.manifest.clients, call.options.names
    if missing := [name for name in chosen if name not in entries]:
        raise NotFound(
            f"the manifest does not declare {', '.join(missing)}", hint=f"clients: {{{missing[0]}: MODEL}} declares it"
        )
    if not entries:
        call.terminal.note("the manifest declares no clients; clients: {codex: MODEL} declares one")
    folders = user_folders(call)
    found = _ClientPlans(plans=[], notes=[], stale={})
    declared_paths = set()
    for name, config in entries.items():
        if chosen and name not in chosen:
            continue
        client = CLIENTS[name]
        served = declared_model(call, declared, name, config)
        if client.needs_tools and not served.tools:
            found.notes.append(f"{name}: {served.model} calls no tools, and {client.title} needs them")
        if warning := warning_of(client, served, config, first_target(loaded.manifest, served.model)):
            found.notes.append(f"{name}: {warning}")
        found.notes += [f"{name}: {note}" for note in client.notes(served)]
        files = client.files(served, folders)
        if config.file is not None and files:
            files = (replace(files[0], path=config.file, others=()), *files[1:])
        files = tuple(map(existing, files))
        declared_paths |= {file.path for file in files}
        plans = (plan_of(name, file, records) for file in files)
        found.plans += [plan for plan in plans if plan.before is None or plan.after != plan.before]
    if not chosen:
        edited = (file for record in records.of(loaded.path) for file in record.files)
        found.stale = {file.path: file.client for file in edited if file.path not in declared_paths}
    return found


def _show(call: CommandContext, found: _ClientPlans) -> None:
    if call.options.json:
        call.terminal.json({
            "format": "mullama.clients/1",
            "files": [
                {
                    "client": plan.client, "path": plan.path, "new": plan.before is None,
                    "changes": [
                        {"path": c.path, "before": c.before, "after": c.after, "cause": c.cause.value}
                        for c in plan.changes
                    ],
                }
                for plan in found.plans
            ],
            "undeclared": [{"client": name, "path": path} for path, name in found.stale.items()], "notes": found.notes,
        })  # fmt: skip
        return
    for plan in found.plans:
        new = "  (new file)" if plan.before is None else ""
        call.terminal.line(f"{plan.client}  {plan.path}{new}")
        for change in plan.changes:
            call.terminal.line(f"  {change}")
    for path, name in found.stale.items():
        call.terminal.line(f"{name}  {path}  (not declared any more: apply takes the edits back)")
    for note in found.notes:
        call.terminal.note(f"note: {note}")
    if call.options.action == "diff":
        count = len(found.plans) + len(found.stale)
        call.terminal.line(
            f"{counted(count, 'file')} to change" if count else "the files are as declared: nothing to change"
        )


def _apply(call: CommandContext, loaded: LoadedManifest, records: Records, found: _ClientPlans) -> int:
    plans = found.plans
    if not plans and not found.stale:
        if not call.options.json:
            call.terminal.line(_AS_DECLARED)
        return DONE
    if not confirmed(call, f"Edit {counted(len(plans) + len(found.stale), 'file')}?"):
        call.terminal.note("nothing was changed")
        return REFUSED
    with records.lock("clients apply", name="clients.lock"):
        edits = [
            EditedFile(
                client=plan.client, path=plan.path, before=None if plan.before is None else plan.before.encode(),
                after=digest_of(plan.after.encode()), values=dict(plan.values), folders=missing_folders(plan.path),
            )
            for plan in plans
        ]  # fmt: skip
        for plan, edit in zip(plans, edits, strict=True):
            if read_client_file(plan.path) != edit.before:
                raise Conflict(f"{plan.path} has just been changed by another program", hint="try again")
        store = ClientRecords(records.folder)
        kept = take_back(
            call, store, [(r, [f for f in r.files if f.path in found.stale]) for r in store.of(loaded.path)]
        )
        if edits:
            store.add(loaded.path, time.time(), edits)
        for plan, edit in zip(plans, edits, strict=True):
            write_client_file(plan.path, plan.after.encode(), edit.before)
            if not call.options.json:
                call.terminal.line(f"{'made' if plan.before is None else 'edited'} {plan.path}")
    return PARTLY if kept else DONE
