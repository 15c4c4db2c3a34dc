"""Finds the manifest of a command, its server, and the API key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.app.text_files import read_text
from mullama.client.address import ServerAddress
from mullama.errors import Conflict, Denied, Invalid, Kind, ManifestError, MullamaError, NotFound, Unavailable
from mullama.folders import state_root
from mullama.store.records import Records, ServerRecord, instance_name, instances

if TYPE_CHECKING:
    from mullama.client.http import Client
    from mullama.manifest.load import LoadedManifest, RemoteFiles
    from mullama.manifest.spec import Sources

NAMES = ("mullama.yaml", "mullama.yml")
# A key that may change the addresses, also in another spelling: the escape of a quoted key.
_OTHER_ADDRESSES = re.compile(rb"(?:server|profiles)[\"']?\s*:|\\")

# A manifest without these words has no fleet, and need not be loaded. Text with an escape may spell them otherwise.
_HINTS = re.compile(rb"(?:fleet|include|profiles)[\"']?\s*:|\\")


class FoundServer(NamedTuple):
    """A running server."""

    client: Client
    records: Records | None = None
    """State folder of a server on this machine; None for a remote one."""
    record: ServerRecord | None = None
    log_start: int = 0
    """Offset of its first line in the log, for a server that this command started."""


def manifest_path(call: CommandContext) -> Path:
    """Return the absolute path of the manifest. Symlinks are kept, because a deployment may replace them.

    Raises `NotFound` if no manifest is named and none is in the folder.
    """
    path = _named_path(call)
    if path is None:
        raise NotFound(
            f"no manifest here: neither {' nor '.join(NAMES)} is in {call.folder}",
            hint="mullama init writes one, -f FILE uses another",
        )
    return path


def _named_path(call: CommandContext) -> Path | None:
    file: str | None = call.options.file
    if file is not None:
        return Path(os.path.abspath(call.folder / Path(file).expanduser()))
    return next((call.folder / name for name in NAMES if (call.folder / name).exists()), None)


def manifest_text(call: CommandContext) -> bytes | None:
    """Return the bytes of the manifest file of the command; None for standard input, and where none can be read."""
    path = _named_path(call) if call.options.file != "-" else None
    try:
        return path.read_bytes() if path is not None else None
    except OSError:
        return None


def has_manifest(call: CommandContext) -> bool:
    """Return True if the command names a manifest or its folder has one."""
    return _named_path(call) is not None


def load_manifest(call: CommandContext, remote: RemoteFiles | None = None) -> LoadedManifest:
    """Load the manifest of the command and show its warnings; `-f -` reads standard input.

    remote: the source of remote files of `include`; None for those that the lock file pins.
    """
    from mullama.manifest.load import load_text

    if call.options.file == "-":
        text, profiles = call.terminal.source.read(), tuple(call.options.profile)
        folder, remote = str(call.folder), PinnedFiles(call)
        loaded = load_text(text, name="<stdin>", base_dir=folder, profiles=profiles, env=call.env, remote=remote)
    else:
        loaded = _load_file(call, remote)
    for warning in loaded.warnings:
        call.terminal.note(f"warning: {warning}")
    return loaded


def _load_file(call: CommandContext, remote: RemoteFiles | None = None) -> LoadedManifest:
    from mullama.manifest.load import load

    path, profiles = display_path(call, manifest_path(call)), tuple(call.options.profile)
    return load(path, profiles=profiles, env=call.env, remote=remote or PinnedFiles(call))


class PinnedFiles:
    """The remote files of `include` as the lock file pins them; imports what they need when there is one."""

    def __init__(self, call: CommandContext) -> None:
        self._call = call

    def read(self, spec: str, sources: Sources, lock: bytes | None) -> bytes:
        from mullama.reconcile.includes import PinnedIncludes

        offline = getattr(self._call.options, "offline", False)
        return PinnedIncludes(self._call.env, offline=offline).read(spec, sources, lock)


class StartManifest(NamedTuple):
    """The manifest with which a server starts, and its state folder."""

    loaded: LoadedManifest
    records: Records
    problem: MullamaError | None = None
    """The reason why the file cannot be used; `loaded` is then the last revision that was applied from this file."""
    default: str = ""
    """The default model, if it is one that commands added beside the manifest."""
    added: frozenset[str] = frozenset()
    """The models of an implicit manifest that commands added at the default address; see `Change.added`."""


def start_manifest(call: CommandContext) -> StartManifest:
    """Load the manifest for a start; the last applied revision of a file that cannot be used.

    A server that runs keeps serving when its file becomes invalid, and so does one that starts again. Raises the
    problem of a file from which nothing was applied.
    """
    try:
        loaded = load_manifest(call)
    except (ManifestError, NotFound, Denied) as problem:
        applied = _last_applied(call)
        if applied is None:
            raise
        return StartManifest(loaded=applied[0], records=applied[1], problem=_with_absolute_path(call, problem))
    return StartManifest(loaded=loaded, records=records_of(call, loaded))


def _with_absolute_path(call: CommandContext, problem: MullamaError) -> MullamaError:
    """Return the problem of the manifest with its absolute path, as the watcher of the server reports it."""
    from mullama.manifest.load import load

    try:
        profiles = tuple(call.options.profile)
        load(str(manifest_path(call)), profiles=profiles, env=call.env, remote=PinnedFiles(call))
    except MullamaError as found:
        return found
    return problem  # the file was saved in the meantime


def _last_applied(call: CommandContext) -> tuple[LoadedManifest, Records] | None:
    """Return the last revision that was applied from the manifest file of the call, and its state folder."""
    from mullama.manifest.load import LoadedManifest
    from mullama.reconcile.observe import last_manifest

    path, profiles = _named_path(call), tuple(call.options.profile)
    for records in instances(state_root(call.env)):
        last, manifest = records.last(), last_manifest(records)
        if path is None or last is None or manifest is None:
            continue
        if (last.origin.get("path"), tuple(last.origin.get("profiles") or ())) == (str(path), profiles):
            loaded = LoadedManifest(
                manifest=manifest, path=str(path), profiles=profiles, places={}, files=(), folders=(), digest=""
            )
            return loaded, records
    return None


def display_path(call: CommandContext, path: Path) -> str:
    """Return the path for messages: relative to the folder if it is below it."""
    return str(path.relative_to(call.folder)) if path.is_relative_to(call.folder) else str(path)


def origin(loaded: LoadedManifest) -> dict[str, object]:
    """Return file, profiles and digest of the manifest in the form of the server, which may watch the file."""
    return {"path": loaded.path, "profiles": list(loaded.profiles), "digest": loaded.digest}


def records_of(call: CommandContext, loaded: LoadedManifest) -> Records:
    """Return the records of the server instance of this manifest."""
    return Records(state_root(call.env), instance_name(loaded.manifest.server.listen, loaded.path))


def find(call: CommandContext, load: Callable[[], LoadedManifest] | None = None) -> FoundServer | None:
    """Return the server of the command, None if none is running. The first match counts:

    1. the address of --host or MULLAMA_HOST
    2. the server that runs with the path of the manifest, which need not be valid
    3. the server at the first address of the manifest
    4. without a manifest, the only running server; raises `Conflict` for several

    Raises `Conflict` if none of these is found and a server of another state folder answers at an address of the
    manifest: it is the wanted one, and its control socket cannot be found.
    """
    if host := _host(call):
        from mullama.client.http import Client

        ca_file, cert_file = (_tls_file(call, name) for name in ("ca_file", "cert_file"))
        remote = Client(ServerAddress.parse(host), key=api_key(call), ca_file=ca_file, cert_file=cert_file)
        return FoundServer(client=remote)
    found = _find_here(call, load)
    if found is None and has_manifest(call):
        return _just_started(call, _addresses(call, load), load)
    return found


def _find_here(call: CommandContext, load: Callable[[], LoadedManifest] | None) -> FoundServer | None:
    """Return the server of the command by the records of this state folder."""
    running = _running(call)
    path = _named_path(call) if call.options.file != "-" else None
    if path is None and call.options.file is None:
        return _single(running)
    for records, record in running:
        if path is not None and record.manifest == str(path):
            return _local(records, record)
    if not running:
        return None
    records = records_of(call, load()) if load else start_manifest(call).records
    record_there = records.server()
    return _local(records, record_there) if record_there else None


def _just_started(
    call: CommandContext, addresses: Iterable[ServerAddress], load: Callable[[], LoadedManifest] | None = None
) -> FoundServer | None:
    """Return the server of the command if it has started since the records were read, None if none answers.

    Raises `Conflict` if a server without a record here answers at one of the addresses: a server writes its record
    before it opens them.
    """
    for address in addresses:
        if answers(address):
            if (found := _find_here(call, load)) is not None:
                return found
            raise Conflict(
                f"a server answers at {address}, under another state folder than {state_root(call.env)}",
                hint=f"use --host {address}, or set MULLAMA_STATE_DIR to the state folder of that server",
            )
    return None


def _addresses(call: CommandContext, load: Callable[[], LoadedManifest] | None) -> list[ServerAddress]:
    """Return the addresses of the manifest, as they can be asked from this machine."""
    if call.options.file == "-" and load is None:
        return []
    if load is None and _listens_as_usual(call):
        return [ServerAddress()]
    try:
        manifest = (load() if load else _load_file(call)).manifest
    except MullamaError:  # a manifest that cannot be read names no address
        return []
    asked = (client_address(text, tls=manifest.server.tls is not None) for text in manifest.server.listen)
    return [address for address in asked if address is not None]


def _listens_as_usual(call: CommandContext) -> bool:
    """Return True for a manifest without a word of other addresses: it need not be loaded."""
    path = _named_path(call)
    try:
        text = path.read_bytes() if path is not None else b""
    except OSError:  # it names no address
        return False
    return bool(text) and not _OTHER_ADDRESSES.search(text)


def client_address(listen: str, *, tls: bool) -> ServerAddress | None:
    """Return how a client of this machine reaches an entry of `server.listen`; None for a port that is not fixed."""
    from mullama.manifest.addresses import TcpAddress, parse_address

    address = parse_address(listen)
    if not isinstance(address, TcpAddress):
        return ServerAddress(path=address.path)
    if not address.port:
        return None
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
    return ServerAddress(host=loopback.get(address.host, address.host), port=address.port, tls=tls)


def answers(address: ServerAddress) -> bool:
    """Return True if a mullama server that is not stopping answers at the address."""
    if not _is_open(address):  # usually: the client's imports would take longer than the rest of a diff
        return False
    from mullama.client.http import Client

    try:
        _, tree = Client(address, timeout=2.0).probe("/api/v1/status")
    except MullamaError:
        return False
    error = tree.get("error") if isinstance(tree, dict) else None
    if isinstance(error, dict):  # the operator API's form: a key is required
        return error.get("kind") in set(Kind)
    known = isinstance(tree, dict) and str(tree.get("format", "")).startswith("mullama.status/")
    return known and tree.get("state") != "stopping"


def _is_open(address: ServerAddress) -> bool:
    """Return True if something listens at the address."""
    import socket

    try:
        if address.path is None:
            socket.create_connection((address.node, address.port), timeout=1.0).close()
        else:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(address.path)
    except OSError:
        return False
    return True


def fleet_manifest(call: CommandContext) -> LoadedManifest | None:
    """Return the manifest of the command if it is of a fleet; None where --host names one server.

    Problems of a manifest without the word `fleet` are not raised: `status` and `logs` of a server are read beside a
    broken manifest.
    """
    text = None if is_remote(call) else manifest_text(call)
    if text is None or _HINTS.search(text) is None:
        return None
    try:
        loaded = load_manifest(call)
    except ManifestError:
        if b"fleet" in text:
            raise
        return None
    return loaded if loaded.manifest.fleet.hosts else None


def refuse_fleet(call: CommandContext) -> None:
    """Raise `UsageError` for a manifest with the word `fleet` and its hosts: the command asks one server."""
    if b"fleet" not in (manifest_text(call) or b"") or (loaded := fleet_manifest(call)) is None:
        return
    hosts = loaded.manifest.fleet.hosts
    some = ", ".join(f"{name} {host.url}" for name, host in [*hosts.items()][:4])
    raise UsageError(
        "the command asks one server, and the manifest describes a fleet",
        hint=f"--host URL names one of its hosts: {some}{', …' if len(hosts) > 4 else ''}",
    )


def require(call: CommandContext) -> FoundServer:
    """Return the server of the command; raise `Unavailable` if none is running, `UsageError` for a fleet."""
    refuse_fleet(call)
    server = find(call)
    if server is None and not has_manifest(call):
        server = _just_started(call, [ServerAddress()])
    if server is None:
        raise Unavailable(
            "no server is running for this manifest" if _named_path(call) else "no server is running",
            hint="mullama apply starts a server, mullama serve runs one in the foreground",
        )
    return server


_HEADER_VALUE = r"[\x21-\x7e]{1,8192}"


def local_client(record: ServerRecord) -> Client:
    """Return the client of the control socket, which needs no key. It sends the hub settings of this shell."""
    from mullama.client.http import Client  # a diff without a server does not need it

    return Client(ServerAddress(path=record.control), headers=_hub_headers(os.environ))


def _hub_headers(env: Mapping[str, str]) -> dict[str, str]:
    token, endpoint = env.get("HF_TOKEN", "").strip(), env.get("HF_ENDPOINT", "").strip()
    if not token and not endpoint:  # usually, and `names` takes long to import
        return {}
    from mullama.names import HUB_ENDPOINT_HEADER, HUB_TOKEN_HEADER

    given = {HUB_TOKEN_HEADER: token, HUB_ENDPOINT_HEADER: endpoint}
    return {name: value for name, value in given.items() if re.fullmatch(_HEADER_VALUE, value)}


def is_remote(call: CommandContext) -> bool:
    """Return True if --host or MULLAMA_HOST names the server."""
    return _host(call) is not None


def _host(call: CommandContext) -> str | None:
    return call.options.host or call.env.get("MULLAMA_HOST") or None


def _running(call: CommandContext) -> list[tuple[Records, ServerRecord]]:
    found = ((records, records.server()) for records in instances(state_root(call.env)))
    return [(records, record) for records, record in found if record is not None]


def _single(running: list[tuple[Records, ServerRecord]]) -> FoundServer | None:
    if len(running) > 1:
        names = ", ".join(records.instance for records, _ in running)
        raise Conflict(f"several servers are running: {names}", hint="choose one with -f FILE or --host URL")
    return _local(*running[0]) if running else None


def _local(records: Records, record: ServerRecord) -> FoundServer:
    return FoundServer(client=local_client(record), records=records, record=record)


def _tls_file(call: CommandContext, name: str) -> str | None:
    """Return the path of `--ca-file` or `--cert-file`, else that of its variable; raise `Invalid` for a bad file."""
    given = getattr(call.options, name) or call.env.get(f"MULLAMA_{name.upper()}") or None
    if given is None:
        return None
    import ssl

    path = str(call.folder / Path(given).expanduser())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path) if name == "ca_file" else context.load_cert_chain(path)
    except OSError as error:
        option = f"--{name.replace('_', '-')}"
        held = "a certificate" if name == "ca_file" else "a certificate and its key"
        fault = f"does not have {held} in PEM form"
        if not isinstance(error, ssl.SSLError):
            fault = f"cannot be read: {(error.strerror or str(error)).lower()}"
        raise Invalid(f"{option}: {path} {fault}", hint=f"name another file: {option} FILE") from error
    return path


def api_key(call: CommandContext) -> str | None:
    """Return the API key of --key-file, else of MULLAMA_API_KEY; None without one."""
    if not call.options.key_file:
        key = call.env.get("MULLAMA_API_KEY", "").strip()
        if key and not _is_key(key):
            raise Invalid("MULLAMA_API_KEY is not an API key", hint="a key has no spaces, and ASCII characters only")
        return key or None
    path = call.folder / Path(call.options.key_file).expanduser()
    key = read_text(path).strip()
    if not _is_key(key):
        raise Invalid(f"{path} does not contain an API key", hint="the file must contain one line, the key")
    return key


def _is_key(text: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


def user() -> str:
    """Return the login name for the history, else the user id."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "" if sys.platform == "win32" else str(os.getuid())
