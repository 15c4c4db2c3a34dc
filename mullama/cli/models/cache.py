"""`mullama cache`: the fetched files, and deleting those that nothing refers to. Only what mullama put there goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option, yes_option
from mullama.cli.app.exit_codes import DONE, REFUSED
from mullama.errors import NotFound, Refused
from mullama.folders import state_root
from mullama.reconcile.gc import referenced
from mullama.units import ago, counted, size

if TYPE_CHECKING:
    from mullama.store.index import Fetched, Index

ACTIONS = ("path", "size", "list", "show", "remove", "delete", "clear", "verify")


def cache_options(parser: Parser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what to do; show is list -v, delete is remove")
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="for remove: a source as list shows it")
    parser.add_argument("-f", "--filename", metavar="FILE", help="for remove: the source that has this file")
    parser.add_argument("--force", action="store_true", help="for clear: do not ask")
    parser.add_argument("-v", "--verbose", action="store_true", help="for list: paths and dates too")
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
            rows.append((entry.source, file.name, size(file.size), *more, *path))
    call.terminal.table((*heads, "FETCHED", "PATH") if verbose else heads, rows)
    return DONE


def _path(index: Index, digest: str) -> str:
    return index.blobs.path(digest) if index.blobs.has(digest) else "used in place"


def _tree(index: Index, entry: Fetched) -> Mapping[str, Any]:
    return {
        "source": entry.source,
        "resolved": entry.resolved,
        "revision": entry.revision,
        "size_bytes": entry.size,
        "fetched": entry.fetched,
        "files": [
            {"name": f.name, "size": f.size, "digest": f.digest, "path": _path(index, f.digest)} for f in entry.files
        ],
    }


def _verify(call: CommandContext) -> int:
    """Read every stored file and compare; one that does not match is set aside, and fetched again when needed."""
    blobs = _index(call).blobs
    wrong = [digest for digest, _, _ in blobs.listed() if not blobs.verify(digest)]
    for digest in wrong:
        call.terminal.note(f"error: {digest} did not match and is set aside")
    call.terminal.line(f"whole: {counted(len(blobs.listed()), 'file')}" + (f", {len(wrong)} were not" if wrong else ""))
    return 5 if wrong else DONE


def _remove(call: CommandContext) -> int:
    """Forget a source, and delete its files unless something else refers to them."""
    index = _index(call)
    entry = _named(call, index)
    kept = _kept(call, index, without={entry.source})
    free = {f.digest: f.size for f in entry.files if f.digest not in kept and index.blobs.has(f.digest)}
    used = [f for f in entry.files if f.digest in kept]
    index.forget(entry.source)
    gone = _sweep(index, kept, only=frozenset(free))
    for file in entry.files:
        state = "deleted" if file.digest in gone else "kept, it is still referred to" if file in used else "kept"
        call.terminal.line(f"{file.name}  {size(file.size)}  {state}")
    return DONE


def _named(call: CommandContext, index: Index) -> Fetched:
    source, file = call.options.source, call.options.filename
    if not source and not file:
        raise UsageError("cache remove needs a source", hint="mullama cache list shows them")
    for entry in index.all_fetched():
        names = {f.name for f in entry.files}
        matches = source in (None, entry.source, entry.source.removeprefix("hf:"))
        if matches and (file is None or file in names):
            return entry
    raise NotFound(f"the store holds no {source or file}", name=source or file, hint="mullama cache list shows them")


def _clear(call: CommandContext) -> int:
    """Delete every file of the store that no revision, lock, manifest or overlay refers to."""
    index = _index(call)
    kept = _kept(call, index, without={entry.source for entry in index.all_fetched()})
    free = index.blobs.swept(kept, grace=-1.0)
    total = sum(bytes_ for _, bytes_ in free)
    if not free:
        call.terminal.line("nothing to delete: every file is referred to" if index.blobs.listed() else "it is empty")
        return DONE
    if not (call.options.force or call.options.yes):
        call.terminal.line(f"{counted(len(free), 'file')}, {size(total)}: referred to by nothing")
        if not call.terminal.interactive:
            raise Refused("cache clear deletes files, and nobody can be asked here", hint="--force does it")
        if not call.terminal.confirm("Delete them?"):
            call.terminal.note("nothing was changed")
            return REFUSED
    gone = index.blobs.sweep(kept, grace=-1.0)
    _forget_gone(index, frozenset(gone))
    freed = sum(bytes_ for digest, bytes_ in free if digest in gone)
    call.terminal.line(f"{size(freed)} freed" if gone else "nothing was deleted: the store is in use, try again")
    return DONE


def _forget_gone(index: Index, gone: frozenset[str]) -> None:
    for entry in index.all_fetched():
        if any(file.digest in gone for file in entry.files):
            index.forget(entry.source)


def _kept(call: CommandContext, index: Index, *, without: set[str]) -> frozenset[str]:
    """What must stay: what is referred to by what was applied, and by sources in the index other than these."""
    others = frozenset(f.digest for e in index.all_fetched() if e.source not in without for f in e.files)
    return others | referenced(state_root(call.env), index, history=False)


def _sweep(index: Index, kept: frozenset[str], *, only: frozenset[str]) -> frozenset[str]:
    """Sweep nothing but `only`: everything else that is stored counts as referred to."""
    every = frozenset(digest for digest, _, _ in index.blobs.listed())
    return frozenset(index.blobs.sweep(kept | (every - only), grace=-1.0))


def forget_unused(call: CommandContext, source: str) -> int:
    """After a model of this source was removed: delete its files if nothing refers to them; bytes freed."""
    index = _index(call)
    entries = [entry for entry in index.all_fetched() if entry.source == source]
    kept = _kept(call, index, without={source})
    free = {f.digest: f.size for e in entries for f in e.files if f.digest not in kept and index.blobs.has(f.digest)}
    gone = _sweep(index, kept, only=frozenset(free)) if free else frozenset()
    _forget_gone(index, gone)
    return sum(free[digest] for digest in gone)
