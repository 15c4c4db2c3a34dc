"""The remote files of `include`: pinned by the lock file, and kept by digest in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mullama.errors import Invalid, NotFound
from mullama.folders import data_root
from mullama.manifest.load.document import MOST_BYTES
from mullama.manifest.load.remote import parse_spec
from mullama.manifest.spec import Manifest, Sources
from mullama.names import LOCK_NAME, HubRef
from mullama.store import lockfile
from mullama.store.disk import write_atomic
from mullama.store.lockfile import IncludePin
from mullama.units import size


class PinnedIncludes:
    """Reads remote files as the lock file pins them. Implements `manifest.load.RemoteFiles`.

    A copy in the store needs no network. Without a copy, the file of the pinned commit is fetched and its digest
    checked. offline: fetch nothing.
    """

    def __init__(self, env: Mapping[str, str], *, offline: bool = False) -> None:
        self._env, self._offline = env, offline
        self._folder = data_root(env) / "includes"
        self.unpinned: list[str] = []
        """Files that were asked for and that the lock file does not pin."""

    def read(self, spec: str, sources: Sources, lock: bytes | None) -> bytes:
        pins = _pins(lock)
        if spec not in pins:
            self.unpinned.append(spec)
            raise NotFound(f"{spec} is not pinned by {LOCK_NAME}", hint="mullama lock fetches and pins it", name=spec)
        return self._pinned(spec, pins[spec], sources)

    def _pinned(self, spec: str, pin: IncludePin, sources: Sources) -> bytes:
        path = self._path(pin.digest)
        if path.is_file() and _digest(data := path.read_bytes()) == pin.digest:
            return data
        ref = parse_spec(spec)
        _, data = self._fetch(spec, HubRef(ref.repo, ref.file, None, pin.revision), sources)
        if _digest(data) != pin.digest:
            raise Invalid(
                f"{spec} has other bytes at commit {pin.revision[:12]} than {LOCK_NAME} pins",
                hint="mullama lock --update pins the present ones; review them first",
            )
        self._keep(data)
        return data

    def newest(self, spec: str, sources: Sources) -> tuple[IncludePin, bytes]:
        """Fetch a remote file as its repository has it now; return the pin of its content, and the content."""
        commit, data = self._fetch(spec, parse_spec(spec), sources)
        return IncludePin(revision=commit, digest=_digest(data), size=len(data)), data

    def _fetch(self, spec: str, ref: HubRef, sources: Sources) -> tuple[str, bytes]:
        from mullama.reconcile.files import Files  # with the sources, which local manifests do not need

        files = Files.here(self._env)
        if files.offline(self._offline):
            raise NotFound(f"the pinned copy of {spec} is not on this machine", hint="fetch it once online", name=spec)
        from mullama.sources.huggingface import text_file

        commit, data = text_file(ref, files.settings(Manifest.model_validate({"mullama": "v1", "sources": sources})))
        if len(data) > MOST_BYTES:
            raise Invalid(f"{spec} is larger than {size(MOST_BYTES)}")
        return commit, data

    def _keep(self, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(_digest(data)), data)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.yaml"


class LockedIncludes(PinnedIncludes):
    """Pins remote files that are not pinned yet, for `mullama lock`. update: pin the files as they are now."""

    def __init__(self, env: Mapping[str, str], *, offline: bool, update: bool) -> None:
        super().__init__(env, offline=offline)
        self._update = update
        self.pins: dict[str, IncludePin] = {}
        """The pins of the files that were read."""

    def read(self, spec: str, sources: Sources, lock: bytes | None) -> bytes:
        pin = None if self._update else _pins(lock).get(spec)
        if pin is None:
            pin, data = self.newest(spec, sources)
            self._keep(data)
        else:
            data = self._pinned(spec, pin, sources)
        self.pins[spec] = pin
        return data


def read_includes(manifest_path: str) -> dict[str, IncludePin]:
    """Return the pins in the lock file next to a manifest."""
    try:
        return _pins(Path(manifest_path).with_name(LOCK_NAME).read_bytes())
    except FileNotFoundError:
        return {}


def _pins(lock: bytes | None) -> dict[str, IncludePin]:
    return lockfile.parse_includes(lock.decode("utf-8", "replace")) if lock is not None else {}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
