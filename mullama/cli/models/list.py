"""`mullama list`: list the models and their files on this machine."""

from __future__ import annotations

import builtins
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import find, is_remote
from mullama.cli.app.context import CommandContext, Parser, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.on_fleet.fleet_call import FleetCall, find_fleet
from mullama.cli.server.ensure import instance_options
from mullama.errors import masked
from mullama.units import ago, counted, size

if TYPE_CHECKING:
    from mullama.cli.models.declared import Declared

_HEADS: tuple[str, ...] = ("NAME", "ID", "SIZE", "QUANTIZATION", "MODIFIED")
Rows = builtins.list[dict[str, Any]]


def list_options(parser: Parser) -> None:
    instance_options(parser)
    json_option(parser)
    parser.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="only models whose name begins so")
    parser.add_argument("-v", "--verbose", action="store_true", help="also print paths and sources")
    parser.add_argument("--all", action="store_true", help="also list stored sources that no model uses")
    parser.add_argument("--outdated", action="store_true", help="ask each source for newer files")


def list(call: CommandContext) -> int:
    """List the models of the server, else those of the manifest. Files that models share count once."""
    if not _looks_here(call) and (fleet := find_fleet(call)) is not None:
        return _list_fleet(call, fleet)
    server = find(call)
    rows = (
        _served(server.client.get("/api/models"))
        if server is not None and (is_remote(call) or not _looks_here(call))
        else _local(call)
    )
    rows = [row for row in rows if row["name"].lower().startswith(call.options.prefix.lower())]
    total = sum({row["digest"] or row["source"]: row["size_bytes"] or 0 for row in rows}.values())
    includes = _newer_includes(call) if call.options.outdated and not is_remote(call) else {}
    if call.options.json:
        more = {"outdated_includes": includes} if call.options.outdated else {}
        call.terminal.json({"models": rows, "total_count": len(rows), "total_size_bytes": total, **more})
        return DONE
    options = call.options
    heads = _HEADS
    if call.options.outdated:
        heads = (*heads, "UPDATE")
    if call.options.verbose:
        heads = (*heads, "SOURCE", "PATH")
    call.terminal.table(heads, (_cells(row, verbose=options.verbose, outdated=options.outdated) for row in rows))
    files = {row["digest"] or row["source"] for row in rows}
    shared = f" in {counted(len(files), 'set')} of files" if len(files) < len(rows) else ""
    call.terminal.line(f"{counted(len(rows), 'model')}{shared}, {size(total)} total")
    for spec, revision in includes.items():
        call.terminal.line(f"include {spec} has changed: {revision[:12]}")
    return DONE


def _looks_here(call: CommandContext) -> bool:
    """True for what a server does not know: unused files, and newer ones at the sources."""
    return bool(call.options.all or call.options.outdated)


def _local(call: CommandContext) -> Rows:
    rows = _rows(call)
    return [*rows, *_unused(call, {row["source"] for row in rows})] if call.options.all else rows


def _rows(call: CommandContext) -> Rows:
    from mullama.cli.models.declared import known_files, modified, read_declared

    declared = read_declared(call)
    files = known_files(call, declared)
    updates = _updates(call, declared) if call.options.outdated else {}
    rows = []
    for name, model in declared.manifest.models.items():
        known = files[model.from_]
        rows.append(
            {
                "name": name,
                "digest": known.digest,
                "size_bytes": known.size,
                "quantization": known.facts.quantization if known.facts else None,
                "modified": modified(known),
                "path": known.paths[0] if known.paths else None,
                "repo": masked(known.weights.resolved) if known.weights else None,
                "source": masked(model.from_),
                "stored": known.stored,
                "update": updates.get(model.from_),
            }
        )
    return rows


def _updates(call: CommandContext, declared: Declared) -> dict[str, str]:
    """Return `current`, `unknown` or the newest revision for each source that can change."""
    from mullama.cli.manifest.outdated import compared

    found = compared(call, declared.manifest, declared.path)
    newer = {item.source: item.now.revision or "newer" for item in found if item.state == "outdated" and item.now}
    return {item.source: item.state for item in found} | newer


def _newer_includes(call: CommandContext) -> dict[str, str]:
    """Return the newest revision of each remote file of `include` that has other bytes now than the lock file pins."""
    from mullama.cli.manifest.outdated import compared_includes
    from mullama.cli.models.declared import read_declared

    declared = read_declared(call)
    found = compared_includes(call, declared.manifest, declared.path)
    return {item.source: item.now.revision or "" for item in found if item.state == "outdated" and item.now}


def _unused(call: CommandContext, used: set[str]) -> Rows:
    """Return the stored sources that no model uses."""
    from mullama.reconcile.files import Files

    index = Files.here(call.env).index
    return [
        {
            "name": masked(entry.source),
            "digest": entry.files[0].digest if entry.files else None,
            "size_bytes": entry.size,
            "quantization": entry.quantization or None,
            "modified": entry.fetched,
            "path": index.blobs.path(entry.files[0].digest) if entry.files else None,
            "repo": masked(entry.resolved),
            "source": masked(entry.source),
            "stored": True,
        }
        for entry in index.all_fetched()
        if entry.source not in used
    ]


def _list_fleet(call: CommandContext, fleet: FleetCall) -> int:
    """List the models of all hosts, each with its host. Files that hosts share count on each of them."""
    from mullama.cli.on_fleet import views

    answers = views.ask(fleet, "/api/models")
    prefix = call.options.prefix.lower()
    found = [(name, row) for name, tree in views.good(answers).items() for row in _served(tree)]
    found = [(name, row) for name, row in found if row["name"].lower().startswith(prefix)]
    if call.options.json:
        call.terminal.json({"format": "mullama.fleet-list/1", "models": [{"host": name, **row} for name, row in found]})
    else:
        more = ("SOURCE", "PATH") if call.options.verbose else ()
        rows = ((name, *_cells(row, verbose=call.options.verbose, outdated=False)) for name, row in found)
        call.terminal.table(("HOST", *_HEADS, *more), rows)
        names = {row["name"] for _, row in found}
        call.terminal.line(f"{counted(len(names), 'model')} on {counted(len(views.good(answers)), 'host')}")
    return views.note_errors(call, fleet, answers)


def _served(tree: Mapping[str, Any]) -> Rows:
    """Return the models of a server's answer. It answers without the manifest, whose modules take long to import."""
    return [
        {
            "name": model["name"],
            "digest": model["digest"] or None,
            "size_bytes": model["size"] or None,
            "quantization": model["quantization"] or None,
            "modified": model["modified"] or None,
            "path": next(iter(model.get("paths") or ()), None),
            "repo": model.get("repository"),
            "source": model["source"],
            "stored": model.get("stored", bool(model["size"])),
        }
        for model in tree["models"]
        if not model.get("route_of")
    ]


def _cells(row: Mapping[str, Any], *, verbose: bool, outdated: bool) -> tuple[str, ...]:
    cells: tuple[str, ...] = (
        row["name"],
        (row["digest"] or "-").removeprefix("sha256:")[:12],
        size(row["size_bytes"]) if row["size_bytes"] else "-",
        row["quantization"] or "-",
        _age(row),
    )
    if outdated:
        cells = (*cells, (row.get("update") or "-").removeprefix("sha256:")[:12])
    return (*cells, row["source"], row["path"] or "-") if verbose else cells


def _age(row: Mapping[str, Any]) -> str:
    if not row["stored"]:
        return "not here"
    return ago(time.time() - row["modified"]) if row["modified"] is not None else "-"
