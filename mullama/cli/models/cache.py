"""`mullama cache`: list the downloaded files and delete those that nothing refers to.

Only files that mullama stored are deleted, never those of other tools.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option, yes_option
from mullama.cli.app.exit_codes import DONE, REFUSED, TRANSFER
from mullama.errors import NotFound, Refused, masked
from mullama.folders import state_root
from mullama.reconcile.gc import referenced, users_of
from mullama.units import ago, counted, size

if TYPE_CHECKING:
    from mullama.store.index import Fetched, Index

ACTIONS = ("path", "size", "list", "show", "remove", "delete", "clear", "verify")


def cache_options(parser: Parser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what to do; show is the same as list -v, delete as remove")
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="for remove: a source as list prints it")
    parser.add_argument("-f", "--filename", metavar="FILE", help="for remove: the source with this file")
    parser.add_argument("--force", action="store_true", help="for clear: do not ask")
    parser.add_argument("-v", "--verbose", action="store_true", help="for list: also print paths and dates")
    yes_option(parser)
    json_option(parser)


def cache(call: CommandContext) -> int:
    action = call.options.action
    if (call.options.source or call.options.filename) and action not in ("remove", "delete"):
        raise UsageError(f"cache {action} takes no source")
    match action:
        case "path":
            call.terminal.line(str(_index(call).blobs.root))
            return DONE
        case "size":
            return _size(call)
        case "list" | "show":
            return _list(call, verbose=action == "show" or call.options.verbose)
        case "verify":
            return _verify(call)
        case "clear":
            return _clear(call)
        case _:
            return _remove(call)


def _index(call: CommandContext) -> Index:
    from mullama.reconcile.files import Files

    return Files.here(call.env).index


def _size(call: CommandContext) -> int:
    index = _index(call)
    total, count = sum(bytes_ for _, bytes_, _ in index.blobs.listed()), len(index.all_fetched())
    if call.options.json:
        call.terminal.json({"size_bytes": total, "sources": count})
    else:
        call.terminal.line(f"{size(total)} ({counted(count, 'source')})")
    return DONE


def _list(call: CommandContext, *, verbose: bool) -> int:
    index = _index(call)
    entries = index.all_fetched()
    if call.options.json:
        call.terminal.json({"sources": [_tree(index, entry) for entry in entries]})
        return DONE
    heads: tuple[str, ...] = ("SOURCE", "FILE", "SIZE")
    rows = []
    for entry in entries:
        more = (ago(time.time() - entry.fetched),) if verbose else ()
        for file in entry.files:
            path = (_path(index, file.digest),) if verbose else ()
            rows.append((masked(entry.source), file.name, size(file.size), *more, *path))
    call.terminal.table((*heads, "FETCHED", "PATH") if verbose else heads, rows)
    return DONE


def _path(index: Index, digest: str) -> str:
    return index.blobs.path(digest) if index.blobs.has(digest) else "used in place"


def _tree(index: Index, entry: Fetched) -> Mapping[str, Any]:
    return {
        "source": masked(entry.source),
        "resolved": masked(entry.resolved),
        "revision": entry.revision,
        "size_bytes": entry.size,
        "fetched": entry.fetched,
        "files": [
            {"name": f.name, "size": f.size, "digest": f.digest, "path": _path(index, f.digest)} for f in entry.files
        ],
    }


def _verify(call: CommandContext) -> int:
    """Check the digest of every stored file. A damaged file is moved away and downloaded again when it is needed."""
    blobs = _index(call).blobs
    damaged = [digest for digest, _, _ in blobs.listed() if not blobs.verify(digest)]
    for digest in damaged:
        call.terminal.note(f"error: {digest} is damaged and was set aside")
    call.terminal.line(
        f"intact: {counted(len(blobs.listed()), 'file')}" + (f", damaged: {len(damaged)}" if damaged else "")
    )
    return TRANSFER if damaged else DONE


def _remove(call: CommandContext) -> int:
    """Remove a source that no model uses from the index, and delete its files unless another source has them."""
    index = _index(call)
    entry = _selected(call, index)
    _refuse_used(call, index, entry)
    deleted, needed = _delete_unused(call, index, [entry])
    index.forget(entry.source)
    for file in entry.files:
        state = "deleted" if file.digest in deleted else "kept, it is still in use" if file.digest in needed else "kept"
        call.terminal.line(f"{file.name}  {size(file.size)}  {state}")
    return DONE


def _refuse_used(call: CommandContext, index: Index, entry: Fetched) -> None:
    """Raise `Refused` for a source that a model uses. The model would lose its files."""
    users = users_of(state_root(call.env), index, entry)
    if not users:
        return
    added = [user.name for user in users if not user.declared]
    remedy = f"mullama rm {' '.join(added)}" if added else "remove it from the manifest and apply"
    raise Refused(f"{', '.join(user.name for user in users)} uses {entry.source}", hint=f"{remedy} first")


def _selected(call: CommandContext, index: Index) -> Fetched:
    source, file = call.options.source, call.options.filename
    if not source and not file:
        raise UsageError("cache remove needs a source", hint="mullama cache list prints them")
    for entry in index.all_fetched():
        names = {f.name for f in entry.files}
        matches = source in (None, entry.source, entry.source.removeprefix("hf:"))
        if matches and (file is None or file in names):
            return entry
    raise NotFound(f"the store has no {source or file}", name=source or file, hint="mullama cache list prints them")


def _clear(call: CommandContext) -> int:
    """Delete every file of the store that no revision, lock file, manifest or overlay refers to."""
    index = _index(call)
    needed = _needed(call, index, without={entry.source for entry in index.all_fetched()})
    free = index.blobs.swept(needed, grace=-1.0)
    total = sum(bytes_ for _, bytes_ in free)
    if not free:
        call.terminal.line("nothing to delete: every file is in use" if index.blobs.listed() else "the store is empty")
        return DONE
    if not (call.options.force or call.options.yes):
        call.terminal.line(f"{counted(len(free), 'file')}, {size(total)}: not in use")
        if not call.terminal.interactive:
            raise Refused("cache clear needs a confirmation, and this is not a terminal", hint="use --force")
        if not call.terminal.confirm("Delete them?"):
            call.terminal.note("nothing was changed")
            return REFUSED
    gone = index.blobs.sweep(needed, grace=-1.0)
    _forget_entries(index, frozenset(gone))
    freed = sum(bytes_ for digest, bytes_ in free if digest in gone)
    call.terminal.line(f"{size(freed)} freed" if gone else "nothing was deleted: the store is locked, try again")
    return DONE


def _forget_entries(index: Index, deleted: frozenset[str]) -> None:
    """Remove the sources of deleted files from the index."""
    for entry in index.all_fetched():
        if any(file.digest in deleted for file in entry.files):
            index.forget(entry.source)


def _needed(call: CommandContext, index: Index, *, without: set[str]) -> frozenset[str]:
    """Return the digests that an applied manifest, or a source of the index other than these, refers to."""
    others = frozenset(f.digest for e in index.all_fetched() if e.source not in without for f in e.files)
    return others | referenced(state_root(call.env), index, history=False)


def _delete_unused(
    call: CommandContext, index: Index, entries: Sequence[Fetched]
) -> tuple[frozenset[str], frozenset[str]]:
    """Delete the files of these sources that nothing else refers to; return the deleted and the needed digests."""
    needed = _needed(call, index, without={entry.source for entry in entries})
    unused = frozenset(file.digest for entry in entries for file in entry.files) - needed
    others = frozenset(digest for digest, _, _ in index.blobs.listed()) - unused
    return frozenset(index.blobs.sweep(needed | others, grace=-1.0)), needed


def delete_unused(call: CommandContext, source: str) -> int:
    """Delete the files of a removed model's source that nothing else refers to; return the freed bytes."""
    index = _index(call)
    entries = [entry for entry in index.all_fetched() if entry.source == source]
    deleted, _ = _delete_unused(call, index, entries)
    _forget_entries(index, deleted)
    return sum({f.digest: f.size for entry in entries for f in entry.files if f.digest in deleted}.values())
