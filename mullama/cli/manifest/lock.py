"""`mullama lock`: pins files by digest and the tools of servers, so all machines use the same bytes and prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import load_manifest
from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option, manifest_options
from mullama.cli.app.exit_codes import DIFFERS, DONE
from mullama.cli.console.download_progress import DownloadDisplay
from mullama.cli.manifest.outdated import file_line, file_tree
from mullama.codec import to_tree
from mullama.errors import ManifestError, MullamaError, masked, masked_tree
from mullama.names import LOCK_NAME
from mullama.plan.report import Line, Tone
from mullama.plan.tools import ToolPins, compare_tools
from mullama.reconcile import lock as lock_file
from mullama.reconcile.files import Files, wanted_kinds
from mullama.reconcile.includes import LockedIncludes, PinnedIncludes, read_includes
from mullama.reconcile.outdated import changed_files
from mullama.reconcile.pins import lock_path, read_lock, read_locked_tools
from mullama.store.lockfile import IncludePin
from mullama.struct import Struct
from mullama.units import counted, printable, size

if TYPE_CHECKING:
    from mullama.manifest.spec import Manifest
    from mullama.weights.stored import LockEntry


def lock_options(parser: Parser) -> None:
    manifest_options(parser)
    json_option(parser)
    parser.add_argument(
        "--update",
        nargs="*",
        metavar="NAME",
        help="resolve these models and list these servers of tools again; without names, all",
    )
    parser.add_argument("--dry-run", action="store_true", help="write nothing; show what would change")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 2 if the lock file is stale")
    parser.add_argument("--offline", action="store_true", help="download nothing")


class SourceChange(Struct, frozen=True, kw_only=True):
    """Change of one source in the lock file."""

    source: str
    state: str
    """Key of `_SIGNS`."""
    before: LockEntry | None
    after: LockEntry | None


def lock(call: CommandContext) -> int:
    """Keep the entries of models that --update does not name, add missing ones, and remove unused ones."""
    options = call.options
    if options.check and options.update is not None:
        raise UsageError("--check writes nothing, so it excludes --update")
    if options.file == "-":
        raise UsageError("a manifest from standard input has no lock file", hint="-f FILE names it")
    if options.check:
        return _check(call)
    includes = LockedIncludes(call.env, offline=options.offline, update=options.update == [])
    loaded = load_manifest(call, includes)
    assert loaded.path is not None
    before, pins, old_tools = read_lock(loaded.path), read_includes(loaded.path), read_locked_tools(loaded.path)
    models, servers = _chosen(loaded.manifest, options.update)
    updating = frozenset[str]() if models is None else lock_file.sources_of(loaded.manifest, models)
    after = _resolved(call, loaded.manifest, before, updating)
    tools = _listed(call, loaded.manifest, old_tools, servers)
    changed = after != before or includes.pins != pins or tools != old_tools
    if not options.dry_run and (changed or not lock_path(loaded.path).exists()):
        lock_file.write_lock(loaded.path, after, includes.pins, tools)
    _show(call, outcomes(before, after), include_changes(pins, includes.pins), tool_outcomes(old_tools, tools))
    return DONE


def _chosen(manifest: Manifest, names: list[str] | None) -> tuple[tuple[str, ...] | None, frozenset[str]]:
    """Return the models of --update, () for all and None for none, and the servers of tools."""
    if not names:
        return (None, frozenset()) if names is None else ((), frozenset(manifest.mcp))
    models = tuple(name for name in names if name in manifest.models or name not in manifest.mcp)
    return models or None, frozenset(names) & manifest.mcp.keys()


def _check(call: CommandContext) -> int:
    """Compare the lock file with the manifest. Without a pin, a remote file of `include` cannot be read."""
    includes = PinnedIncludes(call.env, offline=call.options.offline)
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    try:
        loaded = load_manifest(call, includes)
    except ManifestError:
        if not includes.unpinned:
            raise
        missing, unused = tuple(includes.unpinned), ()
    else:
        assert loaded.path is not None
        before, pins = read_lock(loaded.path), read_includes(loaded.path)
        missing = lock_file.missing(loaded.manifest, before)
        superfluous = (spec for spec in sorted(pins) if spec not in loaded.remote)
        gone = (f"mcp.{server}" for server in read_locked_tools(loaded.path) if server not in loaded.manifest.mcp)
        unused = (*lock_file.superfluous(loaded.manifest, before), *superfluous, *gone)
    stale = bool(missing or unused)
    if call.options.json:
        call.terminal.json(masked_tree({"stale": stale, "missing": missing, "superfluous": unused}))
    else:
        lines = [Line(f"+ {masked(s)}  is not locked", "add") for s in missing]
        lines += [Line(f"- {masked(s)}  is locked and not used", "remove") for s in unused]
        call.terminal.toned(lines)
        call.terminal.line(f"{LOCK_NAME} is stale; mullama lock updates it" if stale else f"{LOCK_NAME} is up to date")
    return DIFFERS if stale else DONE


def _resolved(
    call: CommandContext, manifest: Manifest, before: lock_file.Lock, updating: frozenset[str]
) -> dict[str, LockEntry]:
    files = Files.here(call.env)
    library, settings = files.library(manifest), files.settings(manifest)
    kinds = wanted_kinds(manifest.models.values())
    after: dict[str, LockEntry] = {}
    for source in lock_file.lockable(manifest):
        if source in before and source not in updating:
            after[source] = before[source]
            continue
        with DownloadDisplay(call.terminal, quiet=call.options.json) as report:
            after[source], warnings = lock_file.resolve(
                library, settings, source, offline=files.offline(call.options.offline),
                refresh=source in updating, report=report, wanted=kinds[source],
            )  # fmt: skip
        for text in warnings:
            call.terminal.note(f"warning: {text}")
    return after


def _listed(
    call: CommandContext, manifest: Manifest, before: Mapping[str, ToolPins], updating: Collection[str]
) -> dict[str, ToolPins]:
    """Return the pins of each server of tools. One that does not answer keeps its pins, or has none."""
    kept = {name: before[name] for name in manifest.mcp if name in before}
    asked = [name for name in manifest.mcp if name in updating or name not in before]
    if not asked or Files.here(call.env).offline(call.options.offline):
        return kept
    from mullama.reconcile.tool_servers import list_pins  # few manifests have servers of tools

    for name, found in asyncio.run(list_pins(manifest, asked, call.env)).items():
        if isinstance(found, MullamaError):
            rest = "its pins stay" if name in before else "its tools are not pinned"
            call.terminal.note(f"warning: {found.message}: {rest}")
        else:
            kept[name] = found
    return kept


class ToolOutcome(Struct, frozen=True, kw_only=True):
    """Change of the pins of one server of tools in the lock file."""

    server: str
    state: str
    """Key of `_SIGNS`."""
    count: int
    """Of its tools."""
    changes: str
    """The tools that differ, as a clause; "" for none, and for a server that is added or removed."""


def tool_outcomes(before: Mapping[str, ToolPins], after: Mapping[str, ToolPins]) -> tuple[ToolOutcome, ...]:
    """Return the change of every server of tools, sorted by name."""
    found = []
    for server in sorted(before.keys() | after):
        old, new = before.get(server), after.get(server)
        changes = str(compare_tools(old, new)) if old is not None and new is not None else ""
        state = "added" if old is None else "removed" if new is None else "moved" if changes else "kept"
        found.append(ToolOutcome(server=server, state=state, count=len(new or old or ()), changes=changes))
    return tuple(found)


def outcomes(before: lock_file.Lock, after: lock_file.Lock) -> tuple[SourceChange, ...]:
    """Return the change of every source, sorted by source."""
    return tuple(_outcome(source, before.get(source), after.get(source)) for source in sorted(before.keys() | after))


def _outcome(source: str, old: LockEntry | None, new: LockEntry | None) -> SourceChange:
    if old is None:
        state = "added"
    elif new is None:
        state = "removed"
    else:
        state = "kept" if old == new else "updated" if old.files == new.files else "moved"
    return SourceChange(source=source, state=state, before=old, after=new)


_SIGNS: dict[str, tuple[str, Tone]] = {
    "added": ("+", "add"),
    "removed": ("-", "remove"),
    "moved": ("~", "update"),
    "updated": ("~", "plain"),
    "kept": ("=", "plain"),
}


def include_changes(
    before: Mapping[str, IncludePin], after: Mapping[str, IncludePin]
) -> tuple[tuple[str, str, IncludePin], ...]:
    """Return (remote file, state, pin) of each remote file of `include`. state: key of `_SIGNS`."""
    found = []
    for spec in sorted(before.keys() | after):
        old, new = before.get(spec), after.get(spec)
        state = "added" if old is None else "removed" if new is None else "kept" if old == new else "moved"
        found.append((spec, state, new or before[spec]))
    return tuple(found)


def _show(
    call: CommandContext,
    found: tuple[SourceChange, ...],
    includes: tuple[tuple[str, str, IncludePin], ...],
    tools: tuple[ToolOutcome, ...],
) -> None:
    if call.options.json:
        files = [
            {"source": spec, "state": state, "revision": pin.revision, "digest": pin.digest, "size": pin.size}
            for spec, state, pin in includes
        ]
        trees = {
            "sources": [_tree(item) for item in found],
            "includes": files,
            "tools": [to_tree(one) for one in tools],
        }
        call.terminal.json(trees)
        return
    call.terminal.toned(Line(text, _SIGNS[item.state][1]) for item in found for text in _lines(item))
    call.terminal.toned(
        Line(f"{sign} {spec}  {pin.revision[:12]}  {size(pin.size)}  {state}", tone)
        for spec, state, pin in includes
        for sign, tone in (_SIGNS[state],)
    )
    call.terminal.toned(
        Line(f"{sign} mcp.{one.server}  {printable(one.changes) or counted(one.count, 'tool')}  {one.state}", tone)
        for one in tools
        for sign, tone in (_SIGNS[one.state],)
    )
    states = [*(item.state for item in found), *(state for _, state, _ in includes), *(one.state for one in tools)]
    changed = sum(state != "kept" for state in states)
    verb = "would change" if call.options.dry_run else "changed"
    text = f"{LOCK_NAME}: {counted(len(found) + len(includes), 'source')}, "
    text += f"{counted(len(tools), 'server')} of tools, " if tools else ""
    call.terminal.line(f"{text}{changed} {verb}" if states else "no source needs a lock")


def _lines(item: SourceChange) -> list[str]:
    """Return the line of a source, and one for each file that has other bytes than before."""
    moved = changed_files(item.before, item.after) if item.state == "moved" else ()
    return [_line(item), *map(file_line, moved)]


def _line(item: SourceChange) -> str:
    sign = _SIGNS[item.state][0]
    entry = item.after or item.before
    if entry is None:
        return f"{sign} {masked(item.source)}"
    total = size(sum(file.size for file in entry.files))
    moved = f"{_short(item.before)} -> " if item.state == "moved" else ""
    return f"{sign} {masked(item.source)}  {moved}{_short(entry)}  {total}  {item.state}"


def _short(entry: LockEntry | None) -> str:
    if entry is None:
        return "-"
    return (entry.revision or entry.digest).removeprefix("sha256:")[:12]


def _tree(item: SourceChange) -> dict[str, Any]:
    entry = item.after or item.before
    moved = changed_files(item.before, item.after) if item.state == "moved" else ()
    return {
        "source": masked(item.source),
        "state": item.state,
        "revision": entry.revision if entry else None,
        "digest": entry.digest if entry else None,
        "size": sum(file.size for file in entry.files) if entry else 0,
        "files": [file_tree(change) for change in moved],
    }
