"""Imperative verbs: each edits the overlay and takes the one road, so there is one planner and one executor.

A name that the manifest owns cannot be changed that way; the error names the manifest and the line.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from mullama.chat.inventory import CopyModel, CreateModel, DeleteModel, PullModel, SetDefault, TaskStatus
from mullama.controller.overlay_trees import merged, override, same_source
from mullama.controller.reconciler import Line, Reconciler
from mullama.errors import Conflict, Invalid, MullamaError, NotFound, Unsupported
from mullama.manifest.load import load
from mullama.manifest.spec import Model
from mullama.manifest.tree import block_to_tree
from mullama.names import Digest, ModelName, model_name_of, suggest
from mullama.reconcile.files import Files, read_lock
from mullama.reconcile.overlay import Overlay

Report = Callable[[Line], None]


class ModelCommands:
    """What clients may change without the manifest."""

    def __init__(self, reconciler: Reconciler, files: Files, env: Mapping[str, str]) -> None:
        self._reconciler, self._files, self._env = reconciler, files, env

    # Models

    async def pull(self, request: PullModel) -> AsyncIterator[TaskStatus]:
        """Have the files of a source here, and a model of that name on demand."""
        name = request.name or model_name_of(request.source)
        yield TaskStatus(status="pulling manifest")
        known = self._known(name)
        tree = {"from": request.source, "residency": {"load": "on_demand"}}
        if known is not None:
            tree = self._pulled_again(known, request.source)
        if request.again:
            async for status in self._told(partial(self._fetched_again, name, tree), name):
                yield status
        async for status in self._run(lambda overlay: self._put(overlay, name, tree, known), name):
            yield status

    def _pulled_again(self, known: str, source: str) -> dict[str, Any]:
        """The tree of a model that is here: as it is, or from the other source that is named now."""
        tree = block_to_tree(self._reconciler.snapshot.deployments[known].model)
        itself = self._known(source) == known or same_source(source, tree["from"])
        return tree if itself else {**tree, "from": source}

    async def _fetched_again(self, name: str, tree: Mapping[str, Any], report: Report) -> None:
        """Ask the source anew; the run that follows finds what came of it."""
        model, manifest = Model.model_validate(tree), self._reconciler.snapshot.manifest
        lock = await asyncio.to_thread(read_lock, self._reconciler.origin.path)
        pin = lock.get(model.from_)
        await self._files.ensure(
            model, manifest, name, report, pin=pin, offline=False, counted=self._reconciler.count_bytes, again=True
        )

    async def create(self, request: CreateModel) -> AsyncIterator[TaskStatus]:
        """A model from another one, or from uploaded files."""
        self._own(request.name)
        if request.quantize:
            raise Unsupported(
                "quantizing while creating is not done by the server", hint="mullama quantize makes the file"
            )
        request = replace(request, base=self._path(request.base), said=self._placed(request.said))
        tree = self._based(request)
        tree = merged(tree, {name: value for name, value in request.said.items() if name != "from"})
        override(tree, request)
        yield TaskStatus(status="parsing GGUF" if request.files else "creating model")
        async for status in self._run(lambda overlay: {**overlay, request.name: tree}, request.name):
            yield status

    def _based(self, request: CreateModel) -> dict[str, Any]:
        """The tree that the new model begins from."""
        if request.files:
            return {"from": self._uploaded(request.files), "residency": {"load": "on_demand"}}
        if request.base is None:
            raise Invalid("neither 'from' or 'files' was specified", field="from")
        known = self._known(request.base)
        if known is None:
            return {"from": request.base, "residency": {"load": "on_demand"}}
        tree = block_to_tree(self._reconciler.snapshot.deployments[known].model)
        tree["residency"] = {"load": "on_demand"}
        return tree

    def _placed(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """With the path of an uploaded file where a file is named as `blob:DIGEST`."""
        made = {key: self._path(value) if key in ("from", "mmproj", "draft") else value for key, value in said.items()}
        if isinstance(adapters := said.get("adapters"), (list, tuple)):
            made["adapters"] = [self._placed(item) if isinstance(item, Mapping) else item for item in adapters]
        return made

    def _path(self, source: Any) -> Any:
        uploaded = isinstance(source, str) and source.startswith("blob:")
        return self._blob(Digest.parse(source.removeprefix("blob:")).text) if uploaded else source

    def _blob(self, digest: str) -> str:
        if not self._files.index.blobs.has(digest):
            raise NotFound(f"blob {digest} was not uploaded", name=digest)
        return self._files.index.blobs.path(digest)

    def _uploaded(self, files: Mapping[str, str]) -> str:
        """The path of the blob that is the model; several files are not joined here."""
        digests = {name: Digest.parse(digest.replace("sha256-", "sha256:")).text for name, digest in files.items()}
        models = [digest for name, digest in digests.items() if not name.startswith("mmproj")]
        if len(models) != 1:
            raise Unsupported("a model is created from one uploaded file", hint="merge a split file first")
        return self._blob(models[0])

    async def copy(self, request: CopyModel) -> None:
        known = self._there(request.source)
        self._own(request.destination)
        tree = block_to_tree(self._reconciler.snapshot.deployments[known].model)
        await self._finish(lambda overlay: {**overlay, request.destination: tree})

    async def delete(self, request: DeleteModel) -> None:
        known = self._there(request.model)
        self._own(known)
        if request.only_check:
            return
        await self._finish(
            lambda overlay: {n: tree for n, tree in overlay.items() if n != known and tree.get("route") != known}
        )

    async def set_default(self, request: SetDefault) -> None:
        """A route of the overlay; the manifest's own route `default` cannot be changed that way."""
        known = self._there(request.model)
        self._own("default")
        await self._finish(lambda overlay: {**overlay, "default": {"route": known}})

    def _known(self, name: str) -> str | None:
        """The model behind a name, with its own spelling."""
        try:
            target = self._reconciler.snapshot.names.get(ModelName.parse(name).key)
        except Invalid:
            return None
        return target if target in self._reconciler.snapshot.deployments else None

    def _there(self, name: str) -> str:
        """As `_known`; raises `NotFound` with near names where there is none."""
        known = self._known(name)
        if known is None:
            close = suggest(name, self._reconciler.snapshot.deployments)
            raise NotFound(f"model '{name}' not found", name=name, near=close)
        return known

    def _put(self, overlay: Overlay, name: str, tree: dict[str, Any], known: str | None) -> Overlay:
        """Pulling what is known already changes nothing but the files; what the manifest owns keeps its source."""
        if known is not None and tree["from"] == self._reconciler.snapshot.deployments[known].model.from_:
            return overlay
        self._own(name)
        return {**overlay, known or name: tree}

    def _own(self, name: str) -> None:
        """Raise when the manifest owns the name."""
        key = ModelName.parse(name).key
        owned = {
            ModelName.parse(n).key: n for n in (*self._reconciler.desired.models, *self._reconciler.desired.routes)
        }
        if key in owned:
            raise Conflict(
                f"{name} is declared in {self._place(owned[key])}",
                hint="change the manifest and apply it, or choose another name",
            )

    def _place(self, name: str) -> str:
        """Where the manifest names the model, as exactly as the file tells now."""
        origin = self._reconciler.origin
        if origin.path is None:
            return "the manifest"
        try:
            places = load(origin.path, profiles=origin.profiles, env=self._env).places
        except MullamaError:
            return origin.path
        return str(places.get(f"models.{name}") or places.get(f"routes.{name}") or origin.path)

    # The road

    async def _run(self, change: Callable[[Overlay], Overlay], name: str = "") -> AsyncIterator[TaskStatus]:
        """Edit the overlay and tell the progress in Ollama's words; of models but `name` only what is fetched."""

        async def edited(report: Report) -> None:
            failures = (await self._reconciler.edit(change, report)).failures
            if failures:
                raise next(iter(failures.values()))

        async for status in self._told(edited, name):
            yield status
        yield TaskStatus(status="success")

    async def _told(self, work: Callable[[Report], Coroutine[Any, Any, None]], name: str) -> AsyncIterator[TaskStatus]:
        """Do it, and say what it reports."""
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        task = asyncio.create_task(work(lines.put_nowait))
        task.add_done_callback(lambda done: lines.put_nowait(None))
        while (line := await lines.get()) is not None:
            passing = line["event"] == "fetch" and line["phase"] == "found" and line["model"] != name
            if not passing and (status := _status(line)) is not None:
                yield status
        await task

    async def _finish(self, change: Callable[[Overlay], Overlay]) -> None:
        async for _ in self._run(change):
            pass

    # Blobs

    def has_blob(self, digest: str) -> bool:
        return self._files.index.blobs.has(digest)

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store an upload under its digest; False when it was there. `Invalid` when the bytes have another one."""
        if self.has_blob(digest):
            return False
        blobs, hashed = self._files.index.blobs, hashlib.sha256()
        with blobs.receive(digest) as partial:
            await asyncio.to_thread(partial.restart)
            async for chunk in chunks:
                hashed.update(chunk)
                await asyncio.to_thread(partial.write, chunk)
            actual = f"sha256:{hashed.hexdigest()}"
            if actual != digest:
                await asyncio.to_thread(partial.discard)
                raise Invalid(f"the body has the digest {actual}, the address says {digest}", field="digest")
            await asyncio.to_thread(partial.promote)
        return True


def _status(line: Line) -> TaskStatus | None:
    """A line of progress in the words that Ollama's clients know."""
    match line["event"]:
        case "fetch":
            digest = line["digest"]
            label = digest.removeprefix("sha256:")[:12] if digest else line["file"]
            return TaskStatus(
                status="verifying sha256 digest" if line["phase"] == "verifying" else f"pulling {label}",
                file=line["file"],
                phase=line["phase"],
                digest=digest,
                total=line["total"],
                completed=line["done"],
                resumed=line["resumed"],
                message=line["message"],
            )
        case "phase" if line["phase"] == "commit":
            return TaskStatus(status="writing manifest")
        case _:
            return None
