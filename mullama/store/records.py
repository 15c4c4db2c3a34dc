"""The state of a server instance between runs: its revisions, its server, its overlay, and the lock for writers.

A revision is written atomically with a checksum in it. A file whose checksum is wrong is renamed to `.corrupt`, and
the revision before it counts.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mullama.errors import Conflict, Invalid, NotFound
from mullama.folders import memory_folder
from mullama.store.disk import hold_lock, overwrite, write_atomic
from mullama.store.process import alive, process_identity

KEEP_GENERATIONS = 20
SERVING_LOCK = "serving.lock"
"""The name of the lock that a server holds while it runs."""
_FORMAT = "mullama.generation/1"
_RECORD_BYTES = 1024  # holds the record of a server with several addresses and long paths


def instance_name(listen: tuple[str, ...], path: str | None) -> str:
    """Return the folder name of the server that a manifest describes: its first address as a file name.

    listen: the addresses of the manifest. path: its file, which names the instance where the port is 0, because the
    system chooses that port.
    """
    address = listen[0] if listen else "none"
    if address.endswith(":0") and path:
        address = f"file-{_sha256(path)[:12]}"
    return re.sub(r"[^A-Za-z0-9.-]+", "-", address).strip("-.") or "default"


class Revision(NamedTuple):
    """One committed version of the manifest."""

    generation: int
    """The number of the revision."""
    revision: str
    """The digest of the manifest."""
    manifest: Mapping[str, Any]
    """The resolved manifest as its JSON tree; it has references to secrets, never secrets."""
    when: float
    """The time of the commit in unix seconds."""
    trigger: str
    by: str
    origin: Mapping[str, Any]
    """The file or request that the manifest is from."""
    summary: Mapping[str, Any]
    result: str = "committed"
    overlay: tuple[str, ...] = ()
    """Names of the models in it that imperative verbs added."""


class ServerRecord(NamedTuple):
    """The server of an instance."""

    pid: int
    started: float
    """The start time in unix seconds."""
    listen: tuple[str, ...]
    """The addresses it listens on, with the ports that the system chose."""
    control: str
    """The path of the control socket."""
    manifest: str | None
    version: str
    process_identity: str = ""
    """See `store.process`: in a container the first process has the same pid every time."""


class Records:
    """Reads and writes the state folder of one instance."""

    def __init__(self, root: Path, instance: str) -> None:
        self.instance = instance
        self.folder = root / instance
        self.log_path = self.folder / "server.log"
        self.prefix_folder = self.folder / "prefixes"
        self.objects_path = self.folder / "objects.sqlite"
        self.git_folder = self.folder / "git"
        self.usage_path = self.folder / "usage.sqlite"
        self._generations = self.folder / "generations"
        self._server = self.folder / "server.json"

    @property
    def key(self) -> str:
        """A short name that is unique among the instances of this user."""
        return _sha256(str(self.folder.absolute()))[:16]

    @property
    def memory_folder(self) -> Path | None:
        """The folder for states in main memory, see `folders.memory_folder`. It ends with the server."""
        return memory_folder(self.key)

    def free_memory(self) -> None:
        """Remove the states in main memory, also those of a server that was killed."""
        if folder := self.memory_folder:
            shutil.rmtree(folder, ignore_errors=True)

    def create(self) -> None:
        self._generations.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    # Revisions

    def last(self) -> Revision | None:
        """Return the newest valid revision; None for an instance without one."""
        return next(self._read_all(), None)

    def history(self) -> tuple[Revision, ...]:
        """Return the kept revisions, newest first."""
        return tuple(self._read_all())

    def find(self, number: int) -> Revision:
        """Return the revision with this number; raise `NotFound` for one that is not kept."""
        for revision in self._read_all():
            if revision.generation == number:
                return revision
        kept = ", ".join(str(revision.generation) for revision in self._read_all())
        raise NotFound(f"revision {number} is not kept", hint=f"stored revisions: {kept or 'none'}")

    def commit(self, revision: Revision) -> None:
        """Write a revision atomically, then delete the oldest ones. The caller holds the lock."""
        self.create()
        body = json.dumps(revision._asdict(), sort_keys=True, separators=(",", ":"))
        sealed = {"format": _FORMAT, "sha256": _sha256(body), "body": body}
        write_atomic(self._path(revision.generation), json.dumps(sealed).encode())
        # The lock makes this the only writer, so private files are from a process that was killed.
        leftovers = self._generations.glob(".*.json.*")
        for old in (*sorted(self._generations.glob("*.json"))[:-KEEP_GENERATIONS], *leftovers):
            old.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._generations / f"{number:08}.json"

    def _read_all(self) -> Iterator[Revision]:
        for path in sorted(self._generations.glob("*.json"), reverse=True):
            try:
                yield _unseal(path.read_bytes())
            except (ValueError, KeyError, TypeError):
                path.replace(path.with_suffix(".corrupt"))
            except FileNotFoundError:
                continue

    # The running server

    def announce(self, record: ServerRecord) -> None:
        """Write the record of the running server: on a full disk over the one of the server before."""
        data = json.dumps(record._asdict(), indent=1).encode()
        try:
            write_atomic(self._server, data, durable=False)  # after a crash of the system the record is void
        except OSError:
            if not overwrite(self._server, data):
                raise

    def reserve(self) -> None:
        """Make room for the record of a server that is about to start; raise the `OSError` of a disk without room.

        Without a record no command finds the server, and on a full disk its log is empty.
        """
        self.create()
        if not self._server.exists():
            write_atomic(self._server, b" " * _RECORD_BYTES)

    def withdraw(self, pid: int) -> None:
        """Blank the record of the server if it is of the process with this pid. Its file keeps the space."""
        record = self._read_server()
        if record is not None and record.pid == pid and not overwrite(self._server, b""):
            self._server.unlink(missing_ok=True)

    def server(self) -> ServerRecord | None:
        """Return the server that runs now; None for a record of a process that has ended."""
        record = self._read_server()
        if record is None or not alive(record.pid):
            return None
        known = record.process_identity
        return record if not known or known == process_identity(record.pid) else None

    def _read_server(self) -> ServerRecord | None:
        try:
            tree = json.loads(self._server.read_bytes())
            if "birth" in tree:  # the name of the field in earlier versions, whose server may run still
                tree["process_identity"] = tree.pop("birth")
            return ServerRecord(**{**tree, "listen": tuple(tree["listen"])})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None

    # Attempts: each is written before the load, so a revision that kills its worker is not tried without end.

    def attempts(self) -> dict[str, Any]:
        try:
            tree = json.loads((self.folder / "attempts.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def note_attempts(self, attempts: Mapping[str, Any]) -> None:
        self.create()
        write_atomic(self.folder / "attempts.json", json.dumps(attempts).encode())

    # The levels of the rate limits

    def rates(self) -> dict[str, Any]:
        """Return the saved levels; empty without any, and where they cannot be read."""
        try:
            tree = json.loads((self.folder / "rates.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def save_rates(self, levels: Mapping[str, Any]) -> None:
        self.create()
        write_atomic(self.folder / "rates.json", json.dumps(levels).encode())

    # The lease of a fleet's controller

    def lease(self) -> dict[str, Any]:
        """Return the saved lease and fence; empty without any, and where they cannot be read."""
        try:
            tree = json.loads((self.folder / "lease.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def save_lease(self, lease: Mapping[str, Any]) -> None:
        self.create()
        write_atomic(self.folder / "lease.json", json.dumps(lease).encode())

    # The record of a fleet's last rollout

    def rollout(self) -> dict[str, Any]:
        """Return the saved record; empty without any, and where it cannot be read."""
        try:
            tree = json.loads((self.folder / "rollout.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def save_rollout(self, rollout: Mapping[str, Any]) -> None:
        self.create()
        write_atomic(self.folder / "rollout.json", json.dumps(rollout).encode())

    # The pins of tools

    def tool_pins(self) -> dict[str, Any]:
        """Return the saved pins; empty without any, and where they cannot be read."""
        try:
            tree = json.loads((self.folder / "tools.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def save_tool_pins(self, pins: Mapping[str, Any]) -> None:
        self.create()
        write_atomic(self.folder / "tools.json", json.dumps(pins).encode())

    # The overlay: models that imperative verbs added (see `reconcile.overlay`)

    def overlay(self) -> dict[str, Any]:
        """Return the overlay; in place of a damaged file, which is renamed, that of the newest valid revision."""
        path = self.folder / "overlay.json"
        try:
            return _overlay(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (ValueError, Invalid):
            path.replace(path.with_suffix(".corrupt"))
            last = self.last()
            overlay = _overlay_of(last) if last else {}
            self.save_overlay(overlay)
            return overlay

    def save_overlay(self, overlay: Mapping[str, Any]) -> None:
        if overlay or (self.folder / "overlay.json").exists():
            self.create()
            write_atomic(self.folder / "overlay.json", json.dumps(overlay).encode())

    def is_served(self) -> bool:
        """Return True while a process serves the instance, or starts to."""
        try:
            with self.lock("look", name=SERVING_LOCK):
                return False
        except Conflict:
            return True

    @contextlib.contextmanager
    def lock(self, command: str, *, name: str = "lock") -> Iterator[None]:
        """Hold the lock for writers; raise `Conflict` that names the process that holds it."""
        self.create()
        with hold_lock(self.folder / name, command):
            yield


def instances(root: Path) -> tuple[Records, ...]:
    """Return the instances that have a folder below this root, by name."""
    if not root.is_dir():
        return ()
    folders = sorted(p.name for p in root.iterdir() if p.is_dir())
    return tuple(Records(root, name) for name in folders)


def _unseal(data: bytes) -> Revision:
    sealed = json.loads(data)
    if sealed["format"] != _FORMAT:
        raise Invalid(
            f"the state was written as {sealed['format']}, this mullama reads {_FORMAT}",
            hint="use the version that wrote it, or another state folder",
        )
    if sealed["sha256"] != _sha256(sealed["body"]):
        raise ValueError("checksum")
    body = json.loads(sealed["body"])
    return Revision(**{**body, "overlay": tuple(body.get("overlay", ()))})


def _overlay_of(revision: Revision) -> dict[str, Any]:
    """Return the entries of the overlay that a revision was combined with."""
    models, routes = (revision.manifest.get(block, {}) for block in ("models", "routes"))
    found = {name: models[name] for name in revision.overlay if name in models}
    return found | {name: {"route": routes[name]} for name in revision.overlay if name in routes}


def _overlay(data: bytes) -> dict[str, Any]:
    """Return the overlay of a file; raise `ValueError` or `Invalid` for anything else."""
    from mullama.names import ModelName  # commands that only ask the server read no overlay

    tree = json.loads(data)
    if not isinstance(tree, dict) or not all(isinstance(entry, dict) for entry in tree.values()):
        raise ValueError("not an overlay")
    for name in tree:
        ModelName.parse(name)
    return tree


def _sha256(text: str) -> str:
    import hashlib  # loads OpenSSL, which a command that only looks for the server does not need

    return hashlib.sha256(text.encode()).hexdigest()
