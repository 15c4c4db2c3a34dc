"""The declared models, from the running server or the manifest of the call, and their files on this machine."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import FoundServer, find, has_manifest, load_manifest, records_of
from mullama.cli.app.context import CommandContext
from mullama.errors import MullamaError, NotFound, Unsupported
from mullama.names import ModelName, suggest
from mullama.struct import Struct

if TYPE_CHECKING:
    from mullama.manifest.spec import Hardware, Manifest, Model
    from mullama.plan.observed import KnownFiles


class Declared(Struct, frozen=True, kw_only=True):
    """The desired state and its origin."""

    manifest: Manifest
    """With the overlay."""
    path: str | None
    """File of the manifest; its lock file is in the same folder."""
    server: FoundServer | None
    """The running server, if the state is its."""


def read_declared(call: CommandContext) -> Declared:
    """Ask the running server, or read the manifest of the call and its overlay when no server is running."""
    from mullama.cli.server.serve import implicit_manifest
    from mullama.manifest.tree import parse_resolved
    from mullama.reconcile.overlay import combine

    server = find(call)
    if server is not None:
        stack = server.client.get("/api/v1/stack")
        return Declared(
            manifest=parse_resolved(stack["manifest"]), path=(stack.get("origin") or {}).get("path"), server=server
        )
    loaded = load_manifest(call) if has_manifest(call) else implicit_manifest(call, {})
    desired = combine(loaded.manifest, records_of(call, loaded).overlay())
    return Declared(manifest=desired, path=loaded.path, server=None)


def declared_model(call: CommandContext, name: str) -> Model | None:
    """Return the declared model behind a name or route; None for another name. The options of the call may lack those
    of a manifest."""
    try:
        return model_of(_without_options(call).manifest, name)[1]
    except MullamaError:  # the name may be a source, which needs neither manifest nor server
        return None


def declared_hardware(call: CommandContext) -> Hardware:
    """Return the declared hosts and budgets; none without a manifest and a server. Options: as `declared_model`."""
    from mullama.manifest.spec import Hardware

    try:
        return _without_options(call).manifest.hardware
    except MullamaError:
        return Hardware()


def _without_options(call: CommandContext) -> Declared:
    options = Namespace(file=getattr(call.options, "file", None), profile=[], host=None, key_file=None)
    return read_declared(call._replace(options=options))


def known_files(call: CommandContext, declared: Declared) -> dict[str, KnownFiles]:
    """Return the files of every source that are on this machine; uses no network."""
    from mullama.reconcile.files import Files
    from mullama.reconcile.pins import read_lock

    return Files.here(call.env).known([declared.manifest], read_lock(declared.path))


def model_of(manifest: Manifest, name: str) -> tuple[str, Model]:
    """Return the model that a name or route leads to, with its declared name; raise `NotFound` with similar names."""
    from mullama.manifest.spec.readers import PEER_SIGN, targets_of

    key = ModelName.parse(name).key
    for route, target in manifest.routes.items():
        if ModelName.parse(route).key == key:
            found = targets_of(target)[0]
            if PEER_SIGN in found:
                raise Unsupported(f"'{name}' is a model of a peer: {found}", hint="ask its server")
            key = ModelName.parse(found).key
            break
    for own, model in manifest.models.items():
        if ModelName.parse(own).key == key:
            return own, model
    close = suggest(name, manifest.models)
    raise NotFound(
        f"model '{name}' not found", name=name, near=close,
        hint=f"did you mean {' or '.join(close)}?" if close else "mullama list prints the models",
    )  # fmt: skip


def modified(files: KnownFiles) -> float | None:
    """Return the modification time of the first file as Unix time, None when it is not here."""
    try:
        return Path(files.paths[0]).stat().st_mtime
    except (IndexError, OSError):
        return None
