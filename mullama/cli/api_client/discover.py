"""Which manifest a call means, and which server, records and key belong to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.api_client.address import ServerAddress
from mullama.cli.app.context import CommandContext
from mullama.errors import Conflict, Invalid, NotFound, Unavailable
from mullama.folders import state_root
from mullama.store.records import Records, ServerRecord, instance_name, instances

if TYPE_CHECKING:
    from mullama.cli.api_client.client import Client
    from mullama.manifest.load import LoadedManifest

NAMES = ("mullama.yaml", "mullama.yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundServer:
    """A server that can be asked. `records` and `record` are known only of one on this machine."""

    client: Client
    records: Records | None = None
    record: ServerRecord | None = None


def manifest_path(call: CommandContext) -> Path:
    """The absolute path of the manifest that the call means; symlinks are kept, for they may be swapped."""
    path = _named_path(call)
    if path is None:
        raise NotFound(
            f"no manifest here: neither {' nor '.join(NAMES)} is in {call.folder}",
            hint="mullama init writes one, -f FILE names another",
        )
    return path


def _named_path(call: CommandContext) -> Path | None:
    said: str | None = call.options.file
    if said is not None:
        return Path(os.path.abspath(call.folder / Path(said).expanduser()))
    return next((call.folder / name for name in NAMES if (call.folder / name).exists()), None)


def has_manifest(call: CommandContext) -> bool:
    """Whether the call names a manifest, or one lies in its folder."""
    return _named_path(call) is not None


def load_manifest(call: CommandContext) -> LoadedManifest:
    """The resolved manifest of the call, its warnings shown; `-f -` reads standard input."""
    from mullama.manifest.load import load, load_text

    profiles = tuple(call.options.profile)
    if call.options.file == "-":
        text = call.terminal.source.read()
        folder = str(call.folder)
        loaded = load_text(text, name="<stdin>", base_dir=folder, profiles=profiles, env=call.env)
    else:
        loaded = load(shown(call, manifest_path(call)), profiles=profiles, env=call.env)
    for warning in loaded.warnings:
        call.terminal.note(f"warning: {warning}")
    return loaded


def shown(call: CommandContext, path: Path) -> str:
    """The path as messages say it: relative where that is shorter, so that editors and people find it."""
    return str(path.relative_to(call.folder)) if path.is_relative_to(call.folder) else str(path)


def origin(loaded: LoadedManifest) -> dict[str, object]:
    """Where the manifest came from, as the server records it: the file that it may watch."""
    return {"path": loaded.path, "profiles": list(loaded.profiles), "digest": loaded.digest}


def records_of(call: CommandContext, loaded: LoadedManifest) -> Records:
    """The folder of the server instance that this manifest describes."""
    return Records(state_root(call.env), instance_name(loaded.manifest.server.listen, loaded.path))


def find(call: CommandContext, load: Callable[[], LoadedManifest] | None = None) -> FoundServer | None:
    """The server that the call means, None when none runs.

    1. --host or MULLAMA_HOST. 2. the one that runs for this manifest's path, which needs no valid manifest.
    3. the one at the manifest's first address. 4. without any manifest, the only one that runs.
    """
    if host := _host(call):
        return FoundServer(client=client(ServerAddress.parse(host), api_key(call)))
    running = _running(call)
    path = _named_path(call) if call.options.file != "-" else None
    if path is None and call.options.file is None:
        return _only(running)
    for records, record in running:
        if path is not None and record.manifest == str(path):
            return _local(records, record)
    if not running:
        return None
    records = records_of(call, load() if load else load_manifest(call))
    record_there = records.server()
    return _local(records, record_there) if record_there else None


def require(call: CommandContext) -> FoundServer:
    """The server that the call means, or `Unavailable`."""
    server = find(call)
    if server is None:
        raise Unavailable(
            "no server runs for this manifest" if _named_path(call) else "no server runs",
            hint="mullama apply starts one, mullama serve runs one in the foreground",
        )
    return server


def local_client(record: ServerRecord) -> Client:
    """The client of the control socket, which needs no key."""
    return client(ServerAddress(path=record.control))


def client(address: ServerAddress, key: str | None = None) -> Client:
    """Imported only when there is a server to ask: a diff without one is faster for it."""
    from mullama.cli.api_client.client import Client

    return Client(address, key=key)


def is_remote(call: CommandContext) -> bool:
    return _host(call) is not None


def _host(call: CommandContext) -> str | None:
    return call.options.host or call.env.get("MULLAMA_HOST") or None


def _running(call: CommandContext) -> list[tuple[Records, ServerRecord]]:
    every = ((records, records.server()) for records in instances(state_root(call.env)))
    return [(records, record) for records, record in every if record is not None]


def _only(running: list[tuple[Records, ServerRecord]]) -> FoundServer | None:
    if len(running) > 1:
        names = ", ".join(records.instance for records, _ in running)
        raise Conflict(f"several servers run: {names}", hint="say which with -f FILE or --host URL")
    return _local(*running[0]) if running else None


def _local(records: Records, record: ServerRecord) -> FoundServer:
    return FoundServer(client=local_client(record), records=records, record=record)


def api_key(call: CommandContext) -> str | None:
    """The API key: the file's first line, else MULLAMA_API_KEY."""
    if not call.options.key_file:
        return call.env.get("MULLAMA_API_KEY") or None
    path = call.folder / Path(call.options.key_file).expanduser()
    key = path.read_text(encoding="utf-8").strip()
    if not key or not key.isascii() or any(c.isspace() for c in key):
        raise Invalid(f"{path} does not hold an API key", hint="one line, the key alone")
    return key


def user() -> str:
    """Who asks, for the history: the login name, as far as the machine tells."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "" if sys.platform == "win32" else str(os.getuid())
