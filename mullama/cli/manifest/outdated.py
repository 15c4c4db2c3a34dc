"""`mullama outdated`: compares the locked files, also those of `include`, with those that the sources have now.

It changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext, Parser, json_option, manifest_options
from mullama.cli.app.exit_codes import DIFFERS, DONE, PARTLY
from mullama.errors import masked
from mullama.plan.report import Line, Tone
from mullama.units import counted, size

if TYPE_CHECKING:
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.outdated import Compared, FileChange

_SIGNS: dict[str, tuple[str, Tone]] = {
    "current": ("=", "plain"),
    "outdated": ("~", "update"),
    "unlocked": ("+", "add"),
    "unknown": ("?", "remove"),
}


def outdated_options(parser: Parser) -> None:
    manifest_options(parser)
    json_option(parser)


def outdated(call: CommandContext) -> int:
    """Print the sources with newer files. The exit code is 2 if there are any, 8 if a source cannot be compared."""
    from mullama.cli.api_client.discover import load_manifest

    loaded = load_manifest(call)
    sources = compared(call, loaded.manifest, loaded.path)
    includes = compared_includes(call, loaded.manifest, loaded.path, loaded.remote)
    found = (*includes, *sources)
    if call.options.json:
        trees = {"sources": [_tree(item) for item in sources], "includes": [_tree(item) for item in includes]}
        call.terminal.json(trees)
    else:
        call.terminal.toned(line for item in found for line in _lines(item))
        call.terminal.line(_summary(found))
    states = {item.state for item in found}
    return DIFFERS if "outdated" in states else PARTLY if "unknown" in states else DONE


def compared(call: CommandContext, manifest: Manifest, path: str | None) -> tuple[Compared, ...]:
    """Ask the sources of a manifest. path: its file, next to which the lock file is."""
    from mullama.reconcile.files import Files
    from mullama.reconcile.outdated import compare_all
    from mullama.reconcile.pins import read_lock

    library = Files.here(call.env).library(manifest)
    return compare_all(library, manifest, read_lock(path))


def compared_includes(
    call: CommandContext, manifest: Manifest, path: str | None, used: Collection[str] | None = None
) -> tuple[Compared, ...]:
    """Ask the repositories of the remote files that the lock file pins. used: those that `include` names."""
    from mullama.reconcile.includes import PinnedIncludes, read_includes
    from mullama.reconcile.outdated import compare_includes

    pins = read_includes(path) if path is not None else {}
    known = {spec: pin for spec, pin in pins.items() if used is None or spec in used}
    return compare_includes(PinnedIncludes(call.env), manifest.sources, known)


def _lines(item: Compared) -> list[Line]:
    sign, tone = _SIGNS[item.state]
    head = f"{sign} {masked(item.source)}"
    if item.state == "unknown":
        return [Line(f"{head}  {item.reason}", tone)]
    now = _short(item.now.revision if item.now else None)
    if item.state == "unlocked":
        return [Line(f"{head}  {now}  {_total(item)}  is neither locked nor stored", tone)]
    if item.state == "current":
        return [Line(f"{head}  {now}", tone)]
    before = _short(item.before.revision if item.before else None)
    return [
        Line(f"{head}  {before} -> {now}  {_total(item)}", tone),
        *(Line(file_line(change)) for change in item.changed),
    ]


def file_line(change: FileChange) -> str:
    """Return the line of a changed file: name, size and digest, before and now."""
    sides = (change.before, change.now)
    shown = [f"{size(file.size or 0)} {_short(file.digest)}" if file else "(none)" for file in sides]
    return f"    {change.name}  {' -> '.join(shown)}"


def file_tree(change: FileChange) -> dict[str, Any]:
    """Return a changed file in JSON."""
    sides = [{"size": f.size, "digest": f.digest} if f else None for f in (change.before, change.now)]
    return {"name": change.name, "before": sides[0], "now": sides[1]}


def _total(item: Compared) -> str:
    return f"{size(sum(change.now.size or 0 for change in item.changed if change.now))} to download"


def _summary(found: tuple[Compared, ...]) -> str:
    if not found:
        return "no source can change: all files are on this machine"
    old = sum(item.state == "outdated" for item in found)
    unknown = sum(item.state == "unknown" for item in found)
    text = f"{counted(len(found), 'source')}, {old} outdated" + (f", {unknown} unknown" if unknown else "")
    return f"{text}; mullama lock --update pins the newer files" if old else text


def _short(text: str | None) -> str:
    """Return the first characters of a commit or a digest."""
    return (text or "-").removeprefix("sha256:")[:12]


def _tree(item: Compared) -> dict[str, Any]:
    return {
        "source": masked(item.source),
        "state": item.state,
        "reason": item.reason or None,
        "revision": item.before.revision if item.before else None,
        "newest": item.now.revision if item.now else None,
        "files": [file_tree(change) for change in item.changed],
    }
