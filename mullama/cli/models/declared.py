"""What is declared and what of it is here: the wish of a server, or of the manifest at hand, with its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import FoundServer, find, has_manifest, load_manifest, records_of
from mullama.cli.app.context import CommandContext
from mullama.errors import NotFound
from mullama.names import ModelName, suggest

if TYPE_CHECKING:
    from mullama.manifest.spec import Manifest, Model
    from mullama.plan.observed import KnownFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The manifest with the overlay, the path that its lock file lies beside, and the server it came from."""

    manifest: Manifest
    path: str | None
    server: FoundServer | None


def declared(call: CommandContext) -> Declared:
    """Asks the server that runs; else reads the manifest here; else there is only what verbs added."""
    from mullama.cli.server.serve import implicit_manifest
    from mullama.manifest.tree import parse_resolved
    from mullama.reconcile.overlay import combine

    server = find(call, lambda: load_manifest(call))
    if server is not None:
        stack = server.client.get("/api/v1/stack")
        return Declared(
            manifest=parse_resolved(stack["manifest"]), path=(stack.get("origin") or {}).get("path"), server=server
        )
    loaded = load_manifest(call) if has_manifest(call) else implicit_manifest(call, {})
    desired = combine(loaded.manifest, records_of(call, loaded).overlay())
    return Declared(manifest=desired, path=loaded.path, server=None)


def known_files(call: CommandContext, found: Declared) -> dict[str, KnownFiles]:
    """What is here of every source, without a network."""
    from mullama.reconcile.files import Files, read_lock

    return Files.here(call.env).known([found.manifest], read_lock(found.path))


def model_of(manifest: Manifest, name: str) -> tuple[str, Model]:
    """The model behind a name or route, with its own spelling; `NotFound` with near names."""
    key = ModelName.parse(name).key
    for route, target in manifest.routes.items():
        if ModelName.parse(route).key == key:
            key = ModelName.parse(target if isinstance(target, str) else target.to[0].model).key
            break
    for own, model in manifest.models.items():
        if ModelName.parse(own).key == key:
            return own, model
    close = suggest(name, manifest.models)
    raise NotFound(
        f"model '{name}' not found", name=name, near=close,
        hint=f"did you mean {' or '.join(close)}?" if close else "mullama list shows the models",
    )  # fmt: skip


def modified(files: KnownFiles) -> float | None:
    """When the first file was last written (unix seconds)."""
    try:
        return Path(files.paths[0]).stat().st_mtime
    except (IndexError, OSError):
        return None
