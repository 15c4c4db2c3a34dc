"""What a server instance keeps between runs: its generations, who it is, and the lock against two writers.

A generation is written to a private file, synced and renamed, with a checksum inside; a file that does not
check is set aside as `.corrupt` and the one before it counts. The lock is the kernel's, so a killed process
never leaves one behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mullama.errors import Conflict, Invalid, NotFound
from mullama.store.process import alive, birth

KEEP_GENERATIONS = 20
_FORMAT = "mullama.generation/1"


def instance_name(listen: tuple[str, ...], path: str | None) -> str:
    """The folder of the server that this manifest describes: its first address, as a file name.

    A port of 0 says nothing, so then the manifest's path names the instance.
    """
    address = listen[0] if listen else "none"
    if address.endswith(":0") and path:
        address = f"file-{hashlib.sha256(path.encode()).hexdigest()[:12]}"
    return re.sub(r"[^A-Za-z0-9.-]+", "-", address).strip("-.") or "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One committed wish: the resolved manifest as its JSON tree (references to secrets, never secrets).

    overlay: names of the models in it that imperative verbs added.
    """

    generation: int
    revision: str
    manifest: Mapping[str, Any]
    when: float
    trigger: str
    by: str
    origin: Mapping[str, Any]
    summary: Mapping[str, Any]
    result: str = "committed"
    overlay: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """Who serves: actual addresses (ports resolved) and the control socket's path.

    birth: what tells the process from a later one with the same number ("" where the system does not say); in a
    container the first process has the same number every time.
    """

    pid: int
    started: float
    listen: tuple[str, ...]
    control: str
    manifest: str | None
    version: str
    birth: str = ""


class Records:
    """The folder of one instance."""

    def __init__(self, root: Path, instance: str) -> None:
        self.instance = instance
        self.folder = root / instance
        self.log_path = self.folder / "server.log"
        self.prefix_folder = self.folder / "prefixes"
        self._generations = self.folder / "generations"
        self._server = self.folder / "server.json"

    @property
    def key(self) -> str:
        """A short name that no other instance of this user has."""
        return hashlib.sha256(str(self.folder.absolute()).encode()).hexdigest()[:16]

    def create(self) -> None:
        self._generations.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    # Generations

    def last(self) -> Revision | None:
        """The newest generation that checks, or None for an instance that never applied anything."""
        return next(self._read_all(), None)

    def history(self) -> tuple[Revision, ...]:
        """The kept generations, newest first."""
        return tuple(self._read_all())

    def find(self, number: int) -> Revision:
        for generation in self._read_all():
            if generation.generation == number:
                return generation
        kept = ", ".join(str(g.generation) for g in self._read_all())
        raise NotFound(f"generation {number} is not kept", hint=f"kept are: {kept or 'none'}")

    def commit(self, generation: Revision) -> None:
        """Write it so that it is there whole or not at all, then let the oldest go."""
        self.create()
        body = json.dumps(asdict(generation), sort_keys=True, separators=(",", ":"))
        sealed = {"format": _FORMAT, "sha256": _sha256(body), "body": body}
        write_atomic(self._path(generation.generation), json.dumps(sealed).encode())
        # Private files of a process that was killed while it wrote: only who holds the lock comes here.
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
        write_atomic(self._server, json.dumps(asdict(record), indent=1).encode())

    def withdraw(self, pid: int) -> None:
        """Forget the server, if it is still the one with this pid."""
        record = self._read_server()
        if record is not None and record.pid == pid:
            self._server.unlink(missing_ok=True)

    def server(self) -> ServerRecord | None:
        """The server that runs now; a record whose process is gone counts as none."""
        record = self._read_server()
        if record is None or not alive(record.pid):
            return None
        return record if not record.birth or record.birth == birth(record.pid) else None

    def _read_server(self) -> ServerRecord | None:
        try:
            tree = json.loads(self._server.read_bytes())
            return ServerRecord(**{**tree, "listen": tuple(tree["listen"])})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None

    # Attempts: written before a load is tried, so that a revision that kills its worker is not tried for ever

    def attempts(self) -> dict[str, Any]:
        try:
            tree = json.loads((self.folder / "attempts.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return tree if isinstance(tree, dict) else {}

    def note_attempts(self, attempts: Mapping[str, Any]) -> None:
        self.create()
        write_atomic(self.folder / "attempts.json", json.dumps(attempts).encode())

    # The overlay: what imperative verbs added beside the manifest (see `reconcile.overlay`)

    def overlay(self) -> dict[str, Any]:
        try:
            tree = json.loads((self.folder / "overlay.json").read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            (self.folder / "overlay.json").replace(self.folder / "overlay.corrupt")
            return {}
        return tree if isinstance(tree, dict) else {}

    def save_overlay(self, overlay: Mapping[str, Any]) -> None:
        if overlay or (self.folder / "overlay.json").exists():
            self.create()
            write_atomic(self.folder / "overlay.json", json.dumps(overlay).encode())

    @contextlib.contextmanager
    def lock(self, command: str, *, name: str = "lock") -> Iterator[None]:
        """Hold the one right to write; `Conflict` names the holder when somebody else has it."""
        self.create()
        with hold_lock(self.folder / name, command):
            yield


@contextlib.contextmanager
def hold_lock(path: Path, command: str) -> Iterator[None]:
    """An exclusive lock on a file, freed by the kernel when the process ends; the file says who holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if not _try_lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() if hasattr(os, "pread") else ""
            raise Conflict(f"locked by {holder or 'another mullama'}", hint="wait for it to end, then try again")
        since = time.strftime("%H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"pid {os.getpid()} ({command}, since {since})".encode())
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def instances(root: Path) -> tuple[Records, ...]:
    """Every instance that has a folder under this root, by name."""
    if not root.is_dir():
        return ()
    folders = sorted(p.name for p in root.iterdir() if p.is_dir())
    return tuple(Records(root, name) for name in folders)


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, sync, rename over, sync the folder: the path holds the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    private = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        private.replace(path)
    except BaseException:
        private.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
