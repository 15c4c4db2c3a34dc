"""`mullama clients`: the configuration files of coding agents, as the manifest declares them: diff, apply and undo."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import load_manifest, manifest_path, records_of
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
from mullama.cli.clients.served import client_named, declared_model, existing, plan_of, user_folders
from mullama.clients.plan import ClientFilePlan
from mullama.clients.programs import CLIENTS
from mullama.errors import Conflict, MullamaError, NotFound, Refused
from mullama.folders import state_root
from mullama.store.client_files import (
    ClientRecord,
    ClientRecords,
    EditedFile,
    digest_of,
    missing_folders,
    read_client_file,
    remove_client_file,
    write_client_file,
)
from mullama.store.records import Records, instances
from mullama.struct import Struct, replace
from mullama.units import counted

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

ACTIONS = ("diff", "apply", "undo")


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
        return _undo(call)
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
    stale: list[str]
    """Clients with edits that the manifest does not declare any more."""


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
    found = _ClientPlans(plans=[], notes=[], stale=[])
    for name, config in entries.items():
        if chosen and name not in chosen:
            continue
        client = CLIENTS[name]
        served = declared_model(call, declared, name, config)
        if client.needs_tools and not served.tools:
            found.notes.append(f"{name}: {served.model} calls no tools, and {client.title} needs them")
        found.notes += [f"{name}: {note}" for note in client.notes(served)]
        files = client.files(served, folders)
        if config.file is not None and files:
            files = (replace(files[0], path=config.file, others=()), *files[1:])
        plans = (plan_of(name, file, records) for file in map(existing, files))
        found.plans += [plan for plan in plans if plan.before is None or plan.after != plan.before]
    if not chosen:
        edited = {file.client for record in records.all() for file in record.files}
        found.stale = sorted(edited - entries.keys())
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
            "undeclared": found.stale, "notes": found.notes,
        })  # fmt: skip
        return
    for plan in found.plans:
        new = "  (new file)" if plan.before is None else ""
        call.terminal.line(f"{plan.client}  {plan.path}{new}")
        for change in plan.changes:
            call.terminal.line(f"  {change}")
    for name in found.stale:
        call.terminal.line(f"{name} is not declared any more: mullama clients undo {name} --all takes its edits back")
    for note in found.notes:
        call.terminal.note(f"note: {note}")
    if call.options.action == "diff":
        count = counted(len(found.plans), "file")
        call.terminal.line(f"{count} to change" if found.plans else "the files are as declared: nothing to change")


def _apply(call: CommandContext, loaded: LoadedManifest, records: Records, found: _ClientPlans) -> int:
    plans = found.plans
    if not plans:
        if not call.options.json:
            call.terminal.line("the files are as declared: nothing to change")
        return DONE
    if not _confirmed(call, f"Edit {counted(len(plans), 'file')}?"):
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
        ClientRecords(records.folder).add(loaded.path, time.time(), edits)
        for plan, edit in zip(plans, edits, strict=True):
            write_client_file(plan.path, plan.after.encode(), edit.before)
            if not call.options.json:
                call.terminal.line(f"{'made' if plan.before is None else 'edited'} {plan.path}")
    return DONE


def _confirmed(call: CommandContext, question: str) -> bool:
    """Ask on a terminal; elsewhere raise `Refused` without --yes."""
    if call.options.yes:
        return True
    if call.terminal.interactive and not call.options.json:
        return call.terminal.confirm(question)
    raise Refused("there is no terminal to confirm the edits", hint="--yes makes them; mullama clients diff shows them")


def _undo(call: CommandContext) -> int:
    options = call.options
    if options.json:
        raise UsageError("mullama clients undo prints no JSON", hint="leave out --json")
    owner, chosen = _undone(call)
    if not chosen:
        call.terminal.line("nothing to undo")
        return DONE
    paths = [file.path for _, files in chosen for file in files]
    for path in paths:
        call.terminal.line(path)
    if not _confirmed(call, f"Restore {counted(len(paths), 'file')}?"):
        call.terminal.note("nothing was changed")
        return REFUSED
    store, kept = ClientRecords(owner.folder), 0
    with owner.lock("clients undo", name="clients.lock"):
        for record, files in chosen:
            left = list(record.files)
            for file in files:
                if _restore(call, file):
                    left.remove(file)
                    store.save(replace(record, files=tuple(left)))
                else:
                    kept += 1
            if kept:  # an older apply is below the edits of this one
                break
    return PARTLY if kept else DONE


def _undone(call: CommandContext) -> tuple[Records, list[tuple[ClientRecord, list[EditedFile]]]]:
    """Return the records that an undo takes back, newest first, and their instance.

    The manifest is only named, so that an undo needs none that is valid. Without one in the folder, the newest record
    of all instances counts.
    """
    options = call.options
    try:
        path = str(manifest_path(call))
    except NotFound:
        path = None
    found = [
        (record.when, owner)
        for owner in instances(state_root(call.env))
        for record in ClientRecords(owner.folder).all()
        if path is None or record.manifest == path
    ]
    if not found:
        return Records(state_root(call.env), "none"), []
    owner = max(found, key=lambda pair: pair[0])[1]
    chosen = []
    for record in reversed([r for r in ClientRecords(owner.folder).all() if path in (None, r.manifest)]):
        files = [file for file in record.files if not options.names or file.client in options.names]
        if files:
            chosen.append((record, files))
        if chosen and not options.all:
            break
    return owner, chosen


def _restore(call: CommandContext, file: EditedFile) -> bool:
    """Restore one file; return False for one that was changed since, which stays as it is."""
    try:
        present = read_client_file(file.path)
    except MullamaError as error:
        call.terminal.note(f"kept: {error.message}")
        return False
    if present == file.before:
        call.terminal.line(f"{file.path} is as it was before")
        return True
    if present is None or digest_of(present) != file.after:
        if not call.options.force:
            call.terminal.note(
                f"kept: {file.path} was changed after the apply; --force restores it and keeps the present one, too"
            )
            return False
        if present is not None:
            copy = _beside(file.path)
            write_client_file(copy, present, None)
            call.terminal.line(f"the present file is kept as {copy}")
    if file.before is None:
        remove_client_file(file.path, file.folders)
        call.terminal.line(f"removed {file.path}")
    else:
        write_client_file(file.path, file.before, present)
        call.terminal.line(f"restored {file.path}")
    return True


def _beside(path: str) -> str:
    """Return a free name for a copy in the folder of a file."""
    number = 1
    while os.path.lexists(name := f"{os.path.realpath(path)}.kept-{number}"):
        number += 1
    return name
