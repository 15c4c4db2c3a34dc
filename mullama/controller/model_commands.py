"""Imperative commands on models: each edits the overlay, as a change like any other.

A name that the manifest owns cannot be changed this way; the error names the manifest and the line.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from mullama.chat.inventory import (
    CopyModel,
    CreateModel,
    DeleteModel,
    PullModel,
    SetAdapterScales,
    SetDefault,
    TaskStatus,
)
from mullama.controller.current import Current
from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change, Edit, Line, ProgressQueue
from mullama.errors import Conflict, Denied, Invalid, MullamaError, NotFound, Unsupported
from mullama.manifest.load import load
from mullama.manifest.spec import Model, Parameters
from mullama.manifest.spec.readers import DRAFT_WORDS
from mullama.manifest.tree import block_to_tree
from mullama.names import Digest, ModelName, PathRef, UrlRef, model_name_of, parse_source
from mullama.reconcile.files import Files
from mullama.reconcile.includes import PinnedIncludes
from mullama.reconcile.overlay import Overlay
from mullama.runtime.base import ApplyOptions, Origin
from mullama.runtime.serving.adapters import numbered
from mullama.sources.settings import requester
from mullama.struct import replace
from mullama.weights.choose import role

_ON_DEMAND = {"residency": {"load": "on_demand"}}
_CHANGE_MANIFEST = "change the manifest and apply it"


class ModelCommands:
    """The changes that clients make without a manifest. Implements `runtime.serving.service.ModelCommands`."""

    def __init__(self, reconciler: Reconciler, files: Files, env: Mapping[str, str]) -> None:
        self._reconciler, self._blobs, self._env = reconciler, files.index.blobs, env

    # Models

    async def pull(self, request: PullModel) -> AsyncIterator[TaskStatus]:
        """Download the files of a source and add a model that loads on demand."""
        self._require_allowed(request.source)
        name = request.name or model_name_of(request.source)
        yield TaskStatus(status="pulling manifest")
        current = self._reconciler.current
        known = current.find(name)
        tree: dict[str, Any] = {"from": request.source, **_ON_DEMAND}
        if known is not None:
            tree = _pulled_again(current, known, request.source)
        if request.again or (known is not None and current.snapshot.deployments[known].unavailable is not None):
            progress = ProgressQueue()
            work = self._reconciler.downloads.refresh(
                Model.model_validate(tree), current, name, progress.report, again=request.again
            )
            task = asyncio.create_task(work)
            async for status in _statuses(progress, task, name):
                yield status
            await task
        async for status in self._run(lambda overlay: self._add(overlay, name, tree, known), known or name):
            yield status

    async def create(self, request: CreateModel) -> AsyncIterator[TaskStatus]:
        """Add a model based on another one, or on uploaded files."""
        self._require_free(request.name)
        if request.quantize:
            raise Unsupported("the server does not quantize while creating", hint="mullama quantize makes the file")
        for source in _sources(request):
            self._require_allowed(source)
        request = replace(request, base=self._resolved(request.base), declared=self._resolved_fields(request.declared))
        tree = self._base_tree(request)
        tree = merged(tree, {name: value for name, value in request.declared.items() if name != "from"})
        override(tree, request)
        if request.adapters:
            tree["adapters"] = [{"from": path} for _, path in self._uploaded(request.adapters)]
        yield TaskStatus(status="parsing GGUF" if request.files else "creating model")
        async for status in self._run(lambda overlay: {**overlay, request.name: tree}, request.name):
            yield status

    def _base_tree(self, request: CreateModel) -> dict[str, Any]:
        """Return the tree on which the new model is based."""
        if request.files:
            return {**self._uploaded_model(request.files), **_ON_DEMAND}
        if request.base is None:
            raise Invalid("neither 'from' or 'files' was specified", field="from")
        current = self._reconciler.current
        known = current.find(request.base)
        if known is None:
            return {"from": request.base, **_ON_DEMAND}
        return {**block_to_tree(current.snapshot.deployments[known].model), **_ON_DEMAND}

    def _resolved_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Replace `blob:DIGEST` by the path of the uploaded file, in each field that names a file."""
        files = ("from", "mmproj", "draft")
        made = {key: self._resolved(value) if key in files else value for key, value in fields.items()}
        if isinstance(draft := fields.get("draft"), Mapping):
            made["draft"] = self._resolved_fields(draft)
        if isinstance(adapters := fields.get("adapters"), (list, tuple)):
            made["adapters"] = [self._resolved_fields(a) if isinstance(a, Mapping) else a for a in adapters]
        return made

    def _resolved(self, source: Any) -> Any:
        uploaded = isinstance(source, str) and source.startswith("blob:")
        return self._blob_path(Digest.parse(source.removeprefix("blob:")).text) if uploaded else source

    def _blob_path(self, digest: str) -> str:
        if not self._blobs.has(digest):
            raise NotFound(f"blob {digest} was not uploaded", name=digest)
        return self._blobs.path(digest)

    def _uploaded_model(self, files: Mapping[str, str]) -> dict[str, str]:
        """Return the paths of the one uploaded file that is the model, and of its projector if there is one."""
        paths: dict[bool, list[str]] = {False: [], True: []}
        for name, path in self._uploaded(files):
            paths[role(name) == "projector"].append(path)
        if len(paths[False]) != 1 or len(paths[True]) > 1:
            raise Unsupported(
                "a model is created from one uploaded file, and one projector", hint="merge a split file first"
            )
        return {"from": paths[False][0], **({"mmproj": paths[True][0]} if paths[True] else {})}

    def _uploaded(self, files: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the names and paths of uploaded files."""
        digests = {name: Digest.parse(digest.replace("sha256-", "sha256:")).text for name, digest in files.items()}
        return [(name, self._blob_path(digest)) for name, digest in digests.items()]

    async def copy(self, request: CopyModel) -> None:
        current = self._reconciler.current
        known = current.require(request.source)
        self._require_free(request.destination)
        tree = block_to_tree(current.snapshot.deployments[known].model)
        await self._finish(lambda overlay: {**overlay, request.destination: tree}, request.destination)

    async def delete(self, request: DeleteModel) -> None:
        known = self._reconciler.current.require(request.model)
        self._require_free(known, hint=_CHANGE_MANIFEST)
        if request.only_check:
            return
        await self._finish(
            lambda overlay: {n: tree for n, tree in overlay.items() if n != known and tree.get("route") != known}
        )

    async def set_default(self, request: SetDefault) -> None:
        """Set the route `default` in the overlay, unless the manifest declares one."""
        known = self._reconciler.current.require(request.model)
        self._require_free("default", hint=_CHANGE_MANIFEST)
        await self._finish(lambda overlay: {**overlay, "default": {"route": known}})

    async def set_adapter_scales(self, request: SetAdapterScales) -> None:
        """Set the scales of a model beside the manifest. For a model of the manifest, only the declared ones are
        accepted: its file would say one thing and the server do another.
        """
        current = self._reconciler.current
        known = current.require(request.model)
        adapters = current.snapshot.deployments[known].model.adapters
        asked = numbered(request.scales, [adapter.name or "" for adapter in adapters], known, "")
        scales = [asked.get(number, 0.0) for number in range(len(adapters))]
        declared = [adapter.scale for adapter in adapters]
        if scales == declared:
            return
        if known not in current.overlay:
            raise Unsupported(
                f'the manifest declares the scales {declared} for the adapters of "{known}"',
                hint="state `lora` in the request, or change adapters.*.scale and apply: the model stays loaded",
            )
        await self._finish(lambda overlay: _rescaled(overlay, known, scales), known)

    def _add(self, overlay: Overlay, name: str, tree: dict[str, Any], known: str | None) -> Overlay:
        """Add a pulled model. A known model with the same source needs no change, also when the manifest owns it."""
        current = self._reconciler.current
        if known is not None and tree["from"] == current.snapshot.deployments[known].model.from_:
            return overlay
        self._require_free(name)
        return {**overlay, known or name: tree}

    def _require_allowed(self, source: str) -> None:
        """Raise `Denied` for a source of this machine that a client of the API names and the manifest does not.

        Nothing is looked up before: the answer is the same for a file that exists and one that does not.
        """
        current = self._reconciler.current
        if not requester.get().public_only or source.startswith("blob:") or current.find(source) is not None:
            return
        models = current.manifest.models.values()
        declared = {source for model in models for source in model.all_sources}
        ref = parse_source(source)
        local = isinstance(ref, PathRef) or (isinstance(ref, UrlRef) and not ref.url.lower().startswith("https://"))
        if local and source not in declared:
            raise Denied(
                "a client of the API may not name a file or an unencrypted address of this machine",
                hint="declare it in the manifest, or use mullama on the machine of the server", authenticated=True,
            )  # fmt: skip

    def _require_free(self, name: str, hint: str = f"{_CHANGE_MANIFEST}, or choose another name") -> None:
        """Raise `Conflict` for a name that the manifest declares."""
        current = self._reconciler.current
        key = ModelName.parse(name).key
        declared = {ModelName.parse(n).key: n for n in (*current.manifest.models, *current.manifest.routes)}
        if key not in declared:
            return
        if current.origin.path is None:
            raise Conflict(
                f"{name} is declared by the options of the server, or by a manifest without a file",
                hint="start the server without it, or apply another manifest",
            )
        raise Conflict(f"{name} is declared in {self._location(current.origin, declared[key])}", hint=hint)

    def _location(self, origin: Origin, name: str) -> str:
        """Return where the manifest declares a name: the line if the file can be read, else the file."""
        assert origin.path is not None
        try:
            remote = PinnedIncludes(self._env, offline=True)
            places = load(origin.path, profiles=origin.profiles, env=self._env, remote=remote).places
        except MullamaError:
            return origin.path
        return str(places.get(f"models.{name}") or places.get(f"routes.{name}") or origin.path)

    async def _run(self, edit: Edit, name: str = "") -> AsyncIterator[TaskStatus]:
        """Apply an edit of the overlay and report its progress. A client that leaves does not stop it.

        name: the model that the client asked for; files of other models are reported only while they download.
        """
        change = Change(desired=None, options=ApplyOptions(trigger="api", by="overlay"), edit=edit)
        task = self._reconciler.start(change)
        async for status in _statuses(change.progress, task, name):
            yield status
        # The failures of other models are no failures of this command; the status has them.
        if (error := (await asyncio.shield(task)).failures.get(name)) is not None:
            raise error
        yield TaskStatus(status="success")

    async def _finish(self, edit: Edit, name: str = "") -> None:
        async for _ in self._run(edit, name):
            pass

    # Blobs

    def has_blob(self, digest: str) -> bool:
        return self._blobs.has(digest)

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store an upload; return False if it was stored before. Raises `Invalid` if its digest is another one."""
        if self.has_blob(digest):
            return False
        hashed = hashlib.sha256()
        with self._blobs.receive(digest) as partial:
            await asyncio.to_thread(partial.restart)
            async for chunk in chunks:
                hashed.update(chunk)
                await asyncio.to_thread(partial.write, chunk)
            actual = f"sha256:{hashed.hexdigest()}"
            if actual != digest:
                await asyncio.to_thread(partial.discard)
                raise Invalid(f"the body has the digest {actual}, the address has {digest}", field="digest")
            await asyncio.to_thread(partial.promote)
        return True


def _sources(request: CreateModel) -> Iterator[str]:
    """Yield every source that a request to create a model names."""
    declared = request.declared
    adapters = declared.get("adapters")
    items = adapters if isinstance(adapters, list | tuple) else ()
    listed = [item.get("from") for item in items if isinstance(item, Mapping)]
    draft = declared.get("draft")
    drafter = draft.get("from") if isinstance(draft, Mapping) else draft
    given = (request.base, declared.get("from"), declared.get("mmproj"), drafter, *listed)
    yield from (text for text in given if isinstance(text, str) and text not in DRAFT_WORDS)


def _rescaled(overlay: Overlay, name: str, scales: Sequence[float]) -> Overlay:
    """Return the overlay with these scales for the adapters of a model; without a change, if it has other adapters."""
    tree = overlay.get(name, {})
    adapters = tree.get("adapters", ())
    if len(adapters) != len(scales):
        return overlay
    changed = [{**adapter, "scale": scale} for adapter, scale in zip(adapters, scales, strict=True)]
    return {**overlay, name: {**tree, "adapters": changed}}


def _pulled_again(current: Current, known: str, source: str) -> dict[str, Any]:
    """Return the tree of a known model, with another source if the request names one."""
    tree = block_to_tree(current.snapshot.deployments[known].model)
    unchanged = current.find(source) == known or parse_source(source) == parse_source(tree["from"])
    return tree if unchanged else {**tree, "from": source}


async def _statuses(progress: ProgressQueue, task: asyncio.Task[Any], name: str) -> AsyncGenerator[TaskStatus, None]:
    """Yield the progress of a task in Ollama's words. Warnings and stored files of other models are left out."""
    warned: set[str] = set()  # a run that waited for a download looks at the files again
    async with aclosing(progress.follow(task)) as lines:
        async for line in lines:
            warning = line["message"] if line["event"] == "warning" else ""
            found = line["event"] == "fetch" and line["phase"] == "found"
            if warning in warned or ((warning or found) and line["model"] != name):
                continue
            warned |= {warning} - {""}
            if (status := _status(line)) is not None:
                yield status


def _status(line: Line) -> TaskStatus | None:
    """Return a line of progress in the words that Ollama's clients know."""
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
        case "warning":
            return TaskStatus(status=f"warning: {line['message']}")
        case _:
            return None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` overridden by `over`: maps merge, other values replace."""
    made = dict(base)
    for name, value in over.items():
        under = made.get(name)
        made[name] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return made


def override(tree: dict[str, Any], request: CreateModel) -> None:
    """Write the fields of a create request into a model's tree: parameters merge, the rest replaces."""
    if request.template is not None:
        # Ollama's clients send Go templates; Jinja's marks do not occur in those.
        tree["template"] = {"text": request.template, "syntax": "jinja" if "{%" in request.template else "go"}
    if request.system is not None:
        tree["system"] = request.system
    if request.license:
        tree["license"] = "\n\n".join(request.license)
    if request.messages:
        tree["messages"] = [{"role": m.role, "content": m.text} for m in request.messages]
    for name, value in request.parameters.items():
        _set_parameter(tree, name, value)


_BLOCKS = {
    "num_ctx": ("context", "size"), "num_batch": ("context", "batch"), "num_thread": ("context", "threads"),
    "num_gpu": ("gpu", "layers"), "main_gpu": ("gpu", "main"), "use_mmap": ("memory", "mmap"),
    "use_mlock": ("memory", "mlock"),
}  # fmt: skip


def _set_parameter(tree: dict[str, Any], name: str, value: Any) -> None:
    """Write one Modelfile parameter into the block where the manifest has it."""
    if name in _BLOCKS:
        block, field = _BLOCKS[name]
        tree.setdefault(block, {})[field] = value
        return
    if name not in Parameters.model_fields:
        raise Invalid(f"unknown parameter '{name}'", field=f"parameters.{name}")
    tree.setdefault("parameters", {})[name] = [value] if name == "stop" and isinstance(value, str) else value
