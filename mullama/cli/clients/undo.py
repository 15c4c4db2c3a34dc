"""Takes the edits of client files back: by `mullama clients undo`, and for clients that are not declared any more."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mullama.cli.api_client.discover import manifest_path
from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.app.exit_codes import DONE, PARTLY, REFUSED
from mullama.errors import MullamaError, NotFound, Refused
from mullama.folders import state_root
from mullama.store.client_files import (
    ClientRecord,
    ClientRecords,
    EditedFile,
    digest_of,
    read_client_file,
    remove_client_file,
    write_client_file,
)
from mullama.store.records import Records, instances
from mullama.struct import replace
from mullama.units import counted


def confirmed(call: CommandContext, question: str) -> bool:
    """Ask on a terminal; elsewhere raise `Refused` without --yes."""
    if call.options.yes:
        return True
    if call.terminal.interactive and not call.options.json:
        return call.terminal.confirm(question)
    raise Refused("there is no terminal to confirm the edits", hint="--yes makes them; mullama clients diff shows them")


def undo(call: CommandContext) -> int:
    """Restore the files of the last apply, or with --all of every one, newest first."""
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
    if not confirmed(call, f"Restore {counted(len(paths), 'file')}?"):
        call.terminal.note("nothing was changed")
        return REFUSED
    with owner.lock("clients undo", name="clients.lock"):
        return PARTLY if take_back(call, ClientRecords(owner.folder), chosen) else DONE


def take_back(
    call: CommandContext, store: ClientRecords, chosen: Sequence[tuple[ClientRecord, list[EditedFile]]]
) -> set[str]:
    """Restore the files of records, the newest record first, and forget them. Return the paths that were kept.

    An older apply of a file that is kept stays, too: it is below the changes of others.
    """
    kept: set[str] = set()
    for record, files in chosen:
        left = list(record.files)
        for file in files:
            if file.path in kept or not _restore(call, file):
                kept.add(file.path)
                continue
            left.remove(file)
            store.save(replace(record, files=tuple(left)))
    return kept


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
    found = [(record.when, owner) for owner in instances(state_root(call.env)) for record in _records(owner, path)]
    if not found:
        return Records(state_root(call.env), "none"), []
    owner = max(found, key=lambda pair: pair[0])[1]
    chosen = []
    for record in _records(owner, path):
        files = [file for file in record.files if not options.names or file.client in options.names]
        if files:
            chosen.append((record, files))
        if chosen and not options.all:
            break
    return owner, chosen


def _records(owner: Records, path: str | None) -> tuple[ClientRecord, ...]:
    """Return the records of a manifest, newest first; those of all without one."""
    store = ClientRecords(owner.folder)
    return tuple(reversed(store.all())) if path is None else store.of(path)


def _restore(call: CommandContext, file: EditedFile) -> bool:
    """Restore one file; return False for one that was changed since, which stays as it is."""
    try:
        present = read_client_file(file.path)
    except MullamaError as error:
        call.terminal.note(f"kept: {error.message}")
        return False
    if present == file.before:
        _tell(call, f"{file.path} is as it was before")
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
            _tell(call, f"the present file is kept as {copy}")
    if file.before is None:
        remove_client_file(file.path, file.folders)
        _tell(call, f"removed {file.path}")
    else:
        write_client_file(file.path, file.before, present)
        _tell(call, f"restored {file.path}")
    return True


def _tell(call: CommandContext, text: str) -> None:
    """Print a line, but not into a JSON document."""
    (call.terminal.note if call.options.json else call.terminal.line)(text)


def _beside(path: str) -> str:
    """Return a free name for a copy in the folder of a file."""
    number = 1
    while os.path.lexists(name := f"{os.path.realpath(path)}.kept-{number}"):
        number += 1
    return name
