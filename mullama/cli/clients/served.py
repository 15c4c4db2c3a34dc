"""The model and the address that a client gets, from the manifest or from a running server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import FoundServer, client_address, find, is_remote
from mullama.cli.app.context import CommandContext, UsageError
from mullama.client.address import ServerAddress
from mullama.clients.base import ClientFile, ClientProgram, ServedModel, UserFolders, small_context
from mullama.clients.plan import ClientFilePlan, plan_file
from mullama.clients.programs import CLIENTS
from mullama.errors import Invalid, MullamaError, NotFound, Unsupported
from mullama.names import DEFAULT_ROUTE, suggest
from mullama.store.client_files import ClientRecords, read_client_file
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.cli.models.declared import Declared
    from mullama.manifest.spec import ClientConfig, Manifest


def client_named(name: str) -> ClientProgram:
    """Return a client of the table; raise `UsageError` with similar names for another one."""
    if (client := CLIENTS.get(name)) is not None:
        return client
    near = suggest(name, CLIENTS)
    hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(CLIENTS)}"
    raise UsageError(f"mullama does not configure {name!r}", hint=hint)


def user_folders(call: CommandContext) -> UserFolders:
    """Return the places of the configuration files of the user."""
    home = call.env.get("HOME") or os.path.expanduser("~")
    return UserFolders(home=home, platform=sys.platform, env=call.env)


def existing(file: ClientFile) -> ClientFile:
    """Return the file with the path that exists, its usual one if none does."""
    if os.path.lexists(file.path):
        return file
    return replace(file, path=next(filter(os.path.lexists, file.others), file.path))


def plan_of(client: str, file: ClientFile, records: ClientRecords | None = None) -> ClientFilePlan:
    """Return the change of a file, as `plan_file`, which raises more; raise `Invalid` for one that is not UTF-8.

    records: the earlier applies.
    """
    data = read_client_file(file.path)
    applied = records.values().get(file.path) if records is not None else None
    base = records.base_of(file.path, data) if records is not None else None
    try:
        text = None if data is None else data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise Invalid(f"{file.path}:{line}:{column}: the file is not UTF-8", hint="save it as UTF-8") from error
    return plan_file(client, file, text, applied, None if base is None else base.decode("utf-8"))


def declared_model(call: CommandContext, declared: Declared, name: str, config: ClientConfig) -> ServedModel:
    """Return the model of a declared client, by the manifest and the files on this machine.

    Raises `Invalid` without a default model, or without an address that a client can use.
    """
    manifest = declared.manifest
    model = config.model or _default(manifest, name)
    context, tools = _facts(call, declared, model)
    return ServedModel(
        url=config.url or _address(call, manifest),
        model=model,
        context=config.context or context,
        key=config.key.from_env if config.key is not None else None,
        tools=tools,
    )


def _default(manifest: Manifest, client: str) -> str:
    from mullama.manifest.spec.readers import targets_of

    if (route := manifest.routes.get(DEFAULT_ROUTE)) is not None:
        return targets_of(route)[0]
    if len(manifest.models) == 1:
        return next(iter(manifest.models))
    raise Invalid(
        f"clients.{client} names no model, and the manifest has no default", hint=f"clients: {{{client}: MODEL}}"
    )


def _facts(call: CommandContext, declared: Declared, name: str) -> tuple[int | None, bool]:
    """Return the context of a model in tokens, and whether it calls tools; both as far as they are known here."""
    from mullama.cli.models.declared import known_files, model_of
    from mullama.plan.fit import context_size
    from mullama.runtime.serving.prompt_settings import capabilities, model_settings

    try:
        own, model = model_of(declared.manifest, name)
    except (NotFound, Unsupported):  # a model of a peer, or an adapter that is a model of its own
        return None, True
    files = known_files(call, declared)[model.from_]
    if files.facts is None:
        return model.context.size, True
    try:
        tools = "tools" in capabilities(model_settings(own, model, files), files.facts)
    except MullamaError:  # a template that cannot be read is a mistake of the model, which apply reports
        tools = True
    return context_size(model, files.facts), tools


def warning_of(client: ClientProgram, served: ServedModel, config: ClientConfig | None, model: str) -> str | None:
    """Return the warning for a context that is too small for a client; None for one that is large enough or unknown.

    model: the name of the model behind the route that the client uses.
    """
    own = config is not None and config.context is not None
    return small_context(client, served, f"clients.{client.name}.context" if own else f"models.{model}.context.size")


def first_target(manifest: Manifest, name: str) -> str:
    """Return the name of the model that a name leads to first."""
    from mullama.manifest.spec.readers import targets_of

    seen: list[str] = []
    while name not in manifest.models and name in manifest.routes and name not in seen:
        seen.append(name)
        name = targets_of(manifest.routes[name])[0]
    return name


def _address(call: CommandContext, manifest: Manifest) -> str:
    """Return the address of --host, else of the manifest. A running server knows the port that the system chose."""
    tls = manifest.server.tls is not None
    if not is_remote(call) and any(_tcp(manifest.server.listen, tls=tls)):
        return reached(manifest.server.listen, tls=tls)
    server = find(call)
    return reached(manifest.server.listen, tls=tls) if server is None else server_address(server, tls=tls)


def server_address(server: FoundServer, *, tls: bool) -> str:
    """Return the address of a running server for a client of this machine; raise `Invalid` as `reached`."""
    if server.record is None:
        return reached([str(server.client.address)], tls=tls)
    # The record of a server that has just started may be older than its addresses.
    return reached(server.client.get("/api/v1/status").get("listen") or (), tls=tls)


def reached(listen: Sequence[str], *, tls: bool) -> str:
    """Return the first address of a server that a client of this machine can use.

    Raises `Invalid` for a server with sockets alone, or with a port that is not chosen yet.
    """
    found = list(_tcp(listen, tls=tls))
    if found:
        return found[0]
    has_port = any(not text.startswith("unix:") for text in listen)
    raise Invalid(
        "the port of the server is not known before it runs" if has_port else "clients need a port, not a socket",
        hint="start the server, or write a port into server.listen" if has_port else "add HOST:PORT to server.listen",
    )


def _tcp(listen: Iterable[str], *, tls: bool) -> Iterable[str]:
    for text in listen:
        address = ServerAddress.parse(text) if "://" in text else client_address(text, tls=tls)
        if address is not None and address.path is None:
            yield str(address)
