"""The files of models: what is known about them without a network, and their download and verification."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mullama.errors import MullamaError, NotFound, masked
from mullama.folders import data_root
from mullama.manifest.spec import AdapterRef, Manifest, Model, Peer
from mullama.manifest.spec.readers import writes_text
from mullama.names import BuiltinRef, PathRef, parse_source
from mullama.plan.observed import KnownFiles
from mullama.plan.steps import UnusableFile
from mullama.reconcile.pins import pinned
from mullama.reconcile.scripted_models import is_script, script_files
from mullama.reconcile.secrets import place_of, read_secret
from mullama.sources import registry
from mullama.sources.base import DownloadProgress
from mullama.sources.fetch import HASHED_AT_ONCE, FileFetcher
from mullama.sources.library import Library, find_stored, require_digest
from mullama.sources.local_files import regular_size
from mullama.sources.registry import Wanted
from mullama.sources.settings import HubSettings, Neighbour, Requester, Settings
from mullama.store.foreign import Foreign, Roots, usual_roots
from mullama.store.index import Index
from mullama.weights.located import Credential, Located, expecting
from mullama.weights.stored import LockEntry, ProjectorFile, StoredWeights

if TYPE_CHECKING:
    import asyncio

Report = Callable[[dict[str, Any]], None]
_OPERATOR = Requester()


def wanted_kinds(models: Iterable[Model]) -> dict[str, Wanted]:
    """Return the kind of file that each source of these models stands for. The later ones below have precedence."""
    kinds: dict[str, Wanted] = {}
    for model in (models := tuple(models)):
        kinds |= dict.fromkeys(model.adapter_sources, "adapter")
    kinds |= {model.projector_source: "projector" for model in models if model.projector_source}
    for model in models:
        kinds |= dict.fromkeys(model.sources, "text")
    return kinds | {m.from_: "weights" for m in models if m.mmproj in ("auto", m.from_) and writes_text(m)}


class Files:
    """Gives a server or a command the store, the stores of other tools, and the sources."""

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        self.index = Index(root)
        self._env = env
        self.origins: dict[str, str] = {}
        """The places that this process downloaded files from, by digest; see `DownloadProgress.origin`."""

    @classmethod
    def here(cls, env: Mapping[str, str]) -> Files:
        """Return the files in the store of this user."""
        return cls(data_root(env), env)

    def known(self, manifests: Iterable[Manifest], lock: Mapping[str, LockEntry]) -> dict[str, KnownFiles]:
        """Return what is stored, or pinned by the lock file, for every source in these manifests. Uses no network."""
        found: dict[str, KnownFiles] = {}
        for manifest in manifests:
            foreign = self._foreign(manifest)
            for source, wanted in wanted_kinds(manifest.models.values()).items():
                if source in found:
                    continue
                if wanted == "adapter":
                    found[source] = self._known_adapter(source, lock.get(source), foreign)
                else:
                    found[source] = self._known(source, lock.get(source), foreign, wanted)
        return found

    def source(self, source: str, manifest: Manifest, pin: LockEntry | None, wanted: Wanted = "text") -> KnownFiles:
        """Return what is stored, or pinned, for one source of weights or of a projector."""
        return self._known(source, pin, self._foreign(manifest), wanted)

    def _known_adapter(self, source: str, entry: LockEntry | None, foreign: Foreign) -> KnownFiles:
        try:
            return self._adapter(source, entry, foreign, most=HASHED_AT_ONCE)
        except MullamaError as error:
            return _absent(source, error)

    def adapter(self, declared: AdapterRef, manifest: Manifest, entry: LockEntry | None) -> KnownFiles:
        """Return the stored file of an adapter. Raises for one that is not on this machine or has another digest."""
        known = self._adapter(declared.from_, entry, self._foreign(manifest))
        if not known.stored:
            raise NotFound(f"the adapter {masked(declared.from_)} is not on this machine", name=declared.from_)
        require_digest(declared.from_, declared.digest, known.digest or "")
        return known

    def _adapter(
        self, source: str, entry: LockEntry | None, foreign: Foreign, *, most: int | None = None
    ) -> KnownFiles:
        """Return the file of an adapter. most: see `FileFetcher.digest_at`, which also raises the errors."""
        if isinstance(parse_source(source), PathRef):
            return self._adapter_at(source, most)
        stored = find_stored(source, self.index, foreign, entry, wanted="adapter")
        if stored is not None:
            return described(stored)
        return pinned(entry) if entry is not None else KnownFiles(source=source)

    def _adapter_at(self, path: str, most: int | None) -> KnownFiles:
        digest, stamp = FileFetcher(self.index, Foreign(Roots()), Settings()).digest_at(path, most=most)
        size = regular_size(path)
        return KnownFiles(source=path, digest=digest, size=size, stored=True, paths=(path,), stamps={path: stamp})

    def hash(self, paths: Iterable[str]) -> None:
        """Record the digests of files as they are now; a file that cannot be read keeps none."""
        fetcher = FileFetcher(self.index, Foreign(Roots()), Settings())
        for path in paths:
            with suppress(MullamaError):
                fetcher.digest_at(path)

    def _known(self, source: str, entry: LockEntry | None, foreign: Foreign, wanted: Wanted) -> KnownFiles:
        if is_script(source):
            return _known_script(source)
        try:
            stored = find_stored(source, self.index, foreign, entry, wanted)
        except MullamaError as error:
            if is_local(source):
                return _absent(source, error)
            stored = None  # the check of the model reports the error
        if stored is not None:
            return described(stored)
        return pinned(entry) if entry is not None and not is_local(source) else _absent(source)

    async def ensure(
        self,
        model: Model,
        manifest: Manifest,
        name: str,
        report: Report,
        *,
        lock: Mapping[str, LockEntry],
        offline: bool,
        counted: Callable[[int], None],
        again: bool = False,
        author: Requester = _OPERATOR,
    ) -> KnownFiles:
        """Return the weights of a model, complete and verified, after a download if needed. It can be cancelled.

        Its projector, its adapters and its draft model are downloaded, too. name: the model, for progress.
        lock: the entries of the lock file. counted: receives the number of new bytes.
        again: ask the source again, and verify the stored files. author: the one who causes the download.
        """
        import asyncio  # a plan does not need it, and takes a third less time without it

        cancelled = threading.Event()
        progress = _LoopProgress(name, report, counted, self.origins, asyncio.get_running_loop())
        work = asyncio.get_running_loop().run_in_executor(
            None, self._ensure, model, manifest, lock, offline, progress, cancelled, again, author
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            work.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks its error as retrieved
            await asyncio.wait({work})
            raise

    def _ensure(
        self,
        model: Model,
        manifest: Manifest,
        lock: Mapping[str, LockEntry],
        offline: bool,
        report: _LoopProgress,
        cancelled: threading.Event,
        again: bool,
        author: Requester,
    ) -> KnownFiles:
        def stored(source: str, digest: str | None, wanted: Wanted) -> KnownFiles:
            pin = lock.get(source)
            # The settings have a secret, which files that are here do not need.
            library = Library(self.index, self._foreign(manifest))
            if again or library.here(source, pin, wanted=wanted) is None:
                library = self.library(manifest, author)
            without, refresh = self.offline(offline), again and pin is None
            located = library.locate(source, pin, without, wanted=wanted, refresh=refresh, cancelled=cancelled.is_set)
            if again:
                self._verify_stored(located)
            found = library.ensure(expecting(located, digest), report, cancelled.is_set, wanted=wanted, offline=without)
            for warning in found.warnings:
                report.warn(warning)
            return described(found)

        for adapter in model.adapters:
            if not is_local(adapter.from_):
                stored(adapter.from_, adapter.digest, "adapter")
        for drafter in model.sources[1:]:
            stored(drafter, None, "text")
        if model.projector_source is not None:
            stored(model.projector_source, None, "projector")
        if is_script(model.from_):
            script = script_files(model.from_)
            require_digest(model.from_, model.digest, script.digest or "")
            return script
        return stored(model.from_, model.digest, wanted_kinds([model])[model.from_])

    def _verify_stored(self, located: Located) -> None:
        """Verify the stored files, which sets wrong ones aside."""
        for digest in {file.digest for file in located.files if file.digest}:
            if self.index.blobs.has(digest):
                self.index.blobs.verify(digest)

    def library(self, manifest: Manifest, author: Requester = _OPERATOR) -> Library:
        """Return the sources with the settings of a manifest."""
        return Library(self.index, self._foreign(manifest), self.settings(manifest, author))

    def offline(self, asked: bool) -> bool:
        """Return True if no network may be used, by the option or by HF_HUB_OFFLINE."""
        return asked or self._env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")

    def _foreign(self, manifest: Manifest) -> Foreign:
        stores = manifest.sources.stores
        roots = usual_roots(self._env, huggingface=stores.huggingface, ollama=stores.ollama, gguf=stores.gguf)
        return Foreign(roots)

    def settings(self, manifest: Manifest, author: Requester = _OPERATOR) -> Settings:
        """Return the settings of sources in a manifest, completed by those of the author of a request."""
        hub = manifest.sources.hf
        token = read_secret(hub.token, "sources.hf.token", self._env) if hub.token else None
        own = HubSettings(
            endpoint=hub.endpoint or author.hub.endpoint,
            token=token or author.hub.token,
            token_from=place_of(hub.token) if hub.token else author.hub.token_from,
        )
        return Settings(
            hub=own,
            public_only=author.public_only,
            trusted=frozenset({_hub_address(own)}) if author.public_only else frozenset(),
            env=self._env,
            parallel=manifest.sources.parallel,
            neighbours=tuple(self._neighbour(name, peer) for name, peer in manifest.peers.items() if peer.share),
        )

    def _neighbour(self, name: str, peer: Peer) -> Neighbour:
        """Return a peer that shares its files. A key that this machine lacks leaves the others in use."""
        place, key, problem = f"peers.{name}.key", None, ""
        if peer.key is not None:
            try:
                key = read_secret(peer.key, place, self._env)
            except (MullamaError, OSError) as error:
                problem = str(error)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return Neighbour(
            name=name, url=peer.url, credential=Credential(headers, place), ca_file=peer.ca_file,
            connect=peer.connect_timeout, problem=problem,
        )  # fmt: skip


def _hub_address(hub: HubSettings) -> tuple[str, int]:
    from mullama.sources.huggingface import hub_endpoint  # needed for downloads that a client causes only

    parts = urlsplit(hub_endpoint(hub))
    return (parts.hostname or "").lower(), parts.port or (80 if parts.scheme == "http" else 443)


def is_local(source: str) -> bool:
    """Return True for files of this machine, which no network can provide."""
    return is_script(source) or isinstance(parse_source(source), (BuiltinRef, PathRef))


def _absent(source: str, error: MullamaError | None = None) -> KnownFiles:
    """Return the files of a source that cannot be loaded now, of this machine with the reason.

    error: the reason why files that are there cannot be loaded. The check of the model reports that of another source.
    """
    if not is_local(source):
        return KnownFiles(source=source)
    try:
        registry.locate(parse_source(source), Settings(), lambda: False, (), "text")
    except MullamaError as found:
        error = found
    missing = isinstance(error, NotFound)
    error = error or NotFound(f"{source} cannot be used")
    file = UnusableFile(reason=error.message, hint=error.hint, missing=missing)
    return KnownFiles(source=source, unusable=file, size=0)


def _known_script(source: str) -> KnownFiles:
    try:
        return script_files(source)
    except MullamaError as error:
        return _absent(source, error)


def described(stored: StoredWeights) -> KnownFiles:
    """Return stored weights in the form of the planner."""
    return KnownFiles(
        source=stored.source,
        digest=stored.digest or None,
        stamps=stored.stamps,
        size=stored.size,
        facts=stored.facts,
        stored=True,
        paths=stored.files,
        projector=_projector_of(stored),
        weights=stored,
    )


def _projector_of(stored: StoredWeights) -> ProjectorFile | None:
    """Return the projector beside stored weights, or the stored file itself if it is one."""
    if stored.facts.projector is None:
        return stored.projector
    path = stored.files[0]
    return ProjectorFile(
        path=path, digest=stored.digest, size=stored.size, facts=stored.facts.projector, stamp=stored.stamps[path]
    )


class _LoopProgress:
    """Passes the progress of a download from its thread to the event loop."""

    def __init__(
        self, name: str, report: Report, counted: Callable[[int], None], origins: dict[str, str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self._name, self._report, self._counted, self._loop = name, report, counted, loop
        self._origins = origins
        self._seen: dict[str, int] = {}

    def __call__(self, progress: DownloadProgress) -> None:
        before = self._seen.get(progress.file, progress.resumed)
        if progress.phase == "downloading" and progress.completed > before:
            self._loop.call_soon_threadsafe(self._counted, progress.completed - before)
        self._seen[progress.file] = progress.completed
        if progress.phase == "done" and progress.origin and progress.digest:
            self._origins[progress.digest] = progress.origin
        line = {
            "event": "fetch",
            "model": self._name,
            "file": progress.file,
            "phase": progress.phase,
            "done": progress.completed,
            "total": progress.total,
            "resumed": progress.resumed,
            "digest": progress.digest,
            "message": progress.message,
            "origin": progress.origin,
        }
        self._loop.call_soon_threadsafe(self._report, line)

    def warn(self, message: str) -> None:
        line = {"event": "warning", "model": self._name, "message": message}
        self._loop.call_soon_threadsafe(self._report, line)
