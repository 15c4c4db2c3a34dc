"""Builds a deployment from a model and its files, and a snapshot from deployments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mullama.chat.media import MediaLimits
from mullama.chat.model_settings import ModelSettings
from mullama.chat.template import Rendered
from mullama.chat.types import Tool
from mullama.engines.base import (
    Adapter,
    ContextOptions,
    DraftOptions,
    EngineChoice,
    LayerFit,
    MediaFacts,
    Prefix,
    Projector,
    WeightsOptions,
)
from mullama.engines.observed_use import read_use, use_path
from mullama.errors import Invalid, ModelUnavailable, MullamaError
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.spec.readers import PEER_SIGN, targets_of, writes_text
from mullama.manifest.tree import revision
from mullama.names import ModelName
from mullama.plan.drafting import draft_kind, draft_tokens
from mullama.plan.fit import (
    Placement,
    beside_layers,
    context_shape,
    kept_placement,
    loaded_projector,
    memory_bound,
    need_at,
    place_bounds,
    placement,
    requested_shape,
)
from mullama.plan.observed import KnownFiles, Machine
from mullama.reconcile.scripted_models import is_script
from mullama.runtime.base import Access
from mullama.runtime.routing import model_rules, routings
from mullama.runtime.scheduler.events import FOREVER, GroupBound, Rules, Serve, UnitKey
from mullama.runtime.serving.prompt_settings import (
    model_settings,
    probe_prompt,
    transcription_settings,
    warm_prefix,
)
from mullama.runtime.snapshot import Deployment, Snapshot, unit_key
from mullama.struct import replace
from mullama.weights.experts import expert_patterns
from mullama.weights.facts import WeightFacts
from mullama.weights.stored import ProjectorFile

ON_DEMAND_TTL = 300.0
_BUILTIN = "builtin:"


class DeploymentBuilder:
    """Builds deployments for one machine.

    prefixes: the folder of computed prefixes. memory: a folder in main memory, None on a machine without one. tools:
    returns the tools that the server adds to every conversation with a model.
    """

    def __init__(
        self,
        *,
        machine: Machine | None,
        prefixes: Path | None,
        memory: Path | None = None,
        tools: Callable[[Model], Sequence[Tool]] = lambda model: (),
    ) -> None:
        self.machine = machine
        self._tools = tools
        self._prefixes = prefixes
        self._memory = memory

    def build(
        self,
        name: str,
        model: Model,
        files: KnownFiles,
        generation: int,
        adapters: tuple[KnownFiles, ...] = (),
        drafter: KnownFiles | None = None,
        old: Deployment | None = None,
        projector: ProjectorFile | None = None,
    ) -> Deployment:
        """Return the deployment of a model. old: the one that serves, whose placement it keeps where it can.
        projector: the projector of its images and sounds.

        Raises `Invalid` for a template that does not compile, and for devices and memory that are not there.
        """
        settings = model_settings(name, model, files)
        if projector is not None:
            settings = replace(
                settings,
                media=projector.kinds,
                transcription=transcription_settings(model, projector.facts.audio_type),
            )
        files = self._with_use(model, files)
        small, beside = drafter.facts if drafter else None, loaded_projector(model, files.facts, projector)
        place = self._place(model, files, small, beside, old)
        choice = self._choice(model, files, place, small, beside)
        options = self._context(model, files, settings, adapters)
        options = replace(
            options,
            draft=draft_options(model, files, drafter),
            projector=_projector(model, projector, on_device=bool(place.layers)),
        )
        digests = tuple(part.digest or "" for part in (*adapters, *((drafter,) if drafter else ())))
        unit = unit_key(choice, files.digest or "", options, digests, name if options.adapters else "")
        wanted = need_at(model, files.facts, place, small, files.used, beside)
        return Deployment(
            name=name,
            model=model,
            revision=revision(model),
            generation=generation,
            files=files,
            adapters=adapters,
            drafter=drafter,
            projector=projector,
            choice=choice,
            options=replace(options, state_key=unit.weights + unit.context),
            settings=settings,
            rules=model_rules(model),
            serve=Serve(
                name=name,
                unit=unit,
                parallel=model.limits.parallel,
                queue=model.limits.queue,
                load_timeout=model.limits.timeout,
                ttl=time_to_live(model),
                priority=model.residency.priority,
                at_start=model.residency.load == "at_start",
                when_room=model.residency.load == "when_room",
                drain_timeout=model.rollout.drain_timeout,
                weights_bytes=wanted.weights if wanted else 0,
                context_bytes=wanted.context if wanted else 0,
                weights_on={name: weights for name, weights, _ in wanted.devices} if wanted else {},
                context_on={name: context for name, _, context in wanted.devices} if wanted else {},
            ),
            place=place,
            modified=_modified(files),
        )

    def unavailable(self, name: str, model: Model, error: ModelUnavailable) -> Deployment:
        """Return the deployment of a model without files: it is listed, and every request gets the error."""
        files = KnownFiles(source=model.from_)
        return Deployment(
            name=name,
            model=model,
            revision=revision(model),
            generation=0,
            files=files,
            choice=EngineChoice(name=engine_of(files), files=(), options=WeightsOptions()),
            options=ContextOptions.of(requested_shape(model, None)),
            settings=model_settings(name, model.model_copy(update={"template": None}), files),
            serve=Serve(name=name, unit=UnitKey("", name)),
            unavailable=error,
        )

    def _place(
        self, model: Model, files: KnownFiles, drafter: WeightFacts | None, projector: int, old: Deployment | None
    ) -> Placement:
        if old is not None and old.files.digest == files.digest and files.digest is not None:
            kept = kept_placement(old.model, old.place, model, self.machine)
            if kept is not None:
                return kept
        return placement(model, files.facts, self.machine, files.used, drafter, projector)

    def choice(
        self, model: Model, files: KnownFiles, drafter: WeightFacts | None = None, projector: int = 0
    ) -> EngineChoice:
        """Return the engine, files and options of the worker of a model that does not serve yet; errors as `build`.

        drafter, projector: see `fit.need`.
        """
        files = self._with_use(model, files)
        place = self._place(model, files, drafter, projector, None)
        return self._choice(model, files, place, drafter, projector)

    def _choice(
        self, model: Model, files: KnownFiles, place: Placement, drafter: WeightFacts | None, projector: int
    ) -> EngineChoice:
        options = self._weights(model, files, place, drafter, projector)
        return EngineChoice(name=engine_of(files), files=files.paths, options=options)

    def _weights(
        self, model: Model, files: KnownFiles, place: Placement, drafter: WeightFacts | None, projector: int
    ) -> WeightsOptions:
        automatic = model.gpu.layers == "auto" and place.layers and place.devices
        fit = None
        if automatic and files.facts is not None:
            fit = LayerFit(
                shape=context_shape(model, files.facts, files.used),
                rooms=tuple(device.free for device in place.devices),
                beside=beside_layers(model, files.facts, place, drafter, projector),
            )
        return WeightsOptions(
            gpu_layers=place.layers,
            devices=tuple(device.address for device in place.devices) if place.layers else (),
            split=model.gpu.split,
            main_gpu=0 if model.gpu.split == "none" else model.gpu.main,
            tensor_split=place.tensor_split,
            in_main_memory=expert_patterns(files.facts, place.experts) if place.layers else (),
            fit=fit,
            mmap=model.memory.mmap,
            mlock=model.memory.mlock,
            drafting=draft_kind(model, files.facts) == "mtp",
            extra_buffers=model.memory.extra_buffers,
        )

    def _context(
        self, model: Model, files: KnownFiles, settings: ModelSettings, adapters: tuple[KnownFiles, ...]
    ) -> ContextOptions:
        context, rope, keep = model.context, model.context.rope, model.residency.keep
        if keep.ram and self._prefixes and not self._memory:
            raise Invalid(
                "residency.keep.ram needs a file system in memory at /dev/shm, and this machine has none",
                hint="residency.keep.conversations keeps them on disk",
            )
        options = ContextOptions.of(requested_shape(model, files.facts, files.used))
        made = context_shape(model, files.facts, files.used)
        return replace(
            options,
            checkpoint_bytes=made.checkpoints if files.facts else options.checkpoint_bytes,
            threads=context.threads or 0,
            threads_batch=context.threads or 0,
            embedding=not writes_text(model),
            pooling=context.pooling or ("rank" if model.task == "rerank" else ""),
            rope_scaling=(rope.scaling or "") if rope else "",
            rope_freq_base=(rope.base or 0.0) if rope else 0.0,
            rope_freq_scale=(rope.scale or 0.0) if rope else 0.0,
            adapters=_adapters(model, adapters),
            prefixes=self._declared(model, settings),
            state_dir=str(self._prefixes) if self._prefixes else None,
            prefix_bytes=keep.prefixes,
            keep_bytes=keep.conversations,
            ram_dir=str(self._memory) if self._memory else None,
            ram_bytes=keep.ram,
            pool_auto=context.pool == "auto" and writes_text(model),
            use_file=self._use_file(model, files),
        )

    def _declared(self, model: Model, settings: ModelSettings) -> tuple[Prefix, ...]:
        """Return the text with which every conversation with a model begins."""
        begin = Rendered(text="")
        if model.task == "chat":
            try:
                begin = warm_prefix(settings, self._tools(model))
            except MullamaError:  # of a template that fails for these tools: requests with them get the error
                begin = warm_prefix(settings)
        return (Prefix(text=begin.text, joint=begin.joint),) if begin.text else ()

    def with_tools(self, deployment: Deployment) -> Deployment:
        """Return the deployment with the tools of its model as they are now in its declared prefix."""
        if deployment.unavailable is not None:
            return deployment
        found = self._declared(deployment.model, deployment.settings)
        options = deployment.options
        return deployment if found == options.prefixes else replace(
            deployment, options=replace(options, prefixes=found)
        )  # fmt: skip

    def _with_use(self, model: Model, files: KnownFiles) -> KnownFiles:
        """Return the files with what requests have used, where it decides the size of a pool."""
        path = self._use_file(model, files)
        return replace(files, used=read_use(Path(path))) if path else files

    def _use_file(self, model: Model, files: KnownFiles) -> str | None:
        """Return the file for what requests use, which the next choice of an automatic pool reads."""
        if self._prefixes is None or files.digest is None or model.context.pool != "auto":
            return None
        return str(use_path(self._prefixes, files.digest))

    def joined(self, owner: Deployment, all: Iterable[Deployment]) -> Deployment:
        """Return the owner with the prefixes of all models that share its unit, and their largest thread count."""
        sharing = [d.options for d in all if d.unit == owner.unit]
        prefixes = tuple(dict.fromkeys(prefix for options in sharing for prefix in options.prefixes))
        asked = [options.threads for options in sharing]
        threads = 0 if 0 in asked else max(asked)  # 0 is every core
        options = replace(owner.options, prefixes=prefixes, threads=threads, threads_batch=threads)
        return replace(owner, options=options)

    def snapshot(
        self,
        manifest: Manifest,
        deployments: Mapping[str, Deployment],
        generation: int,
        machine: Machine | None,
        access: Access,
    ) -> Snapshot:
        limits = manifest.server.limits
        media = limits.media
        media_limits = MediaLimits(
            count=media.count, image=media.image, pixels=media.pixels, sound=media.sound, seconds=media.seconds
        )
        deployments = MappingProxyType(
            {
                name: replace(
                    d,
                    serve=replace(d.serve, queue_timeout=limits.queue_timeout),
                    settings=replace(d.settings, media_limits=media_limits),
                )
                for name, d in deployments.items()
            }
        )
        own = {ModelName.parse(name).key for name in deployments}
        return Snapshot(
            generation=generation,
            revision=revision(manifest),
            manifest=manifest,
            access=replace(access, generation=generation),
            deployments=deployments,
            names=_names(manifest, deployments),
            routes=MappingProxyType({key: route for key, route in routings(manifest).items() if key not in own}),
            exposed=_exposed(deployments),
            rules=rules_of(manifest, machine),
        )

    def probe_prompt(self, deployment: Deployment, prompt: str, *, answered: bool) -> Rendered:
        return probe_prompt(deployment.settings, prompt, answered=answered)


def rules_of(manifest: Manifest, machine: Machine | None) -> Rules:
    """Return the bounds over all models of a manifest on this machine."""
    limits = manifest.server.limits
    return Rules(
        concurrency=limits.concurrency,
        queue=limits.queue,
        budget=memory_bound(manifest.hardware.budget, machine),
        places=place_bounds(manifest.hardware.budget, machine),
        groups=tuple(
            GroupBound(name=name, models=frozenset(group.models), most=group.max)
            for name, group in manifest.groups.items()
        ),
    )


def draft_options(model: Model, files: KnownFiles, drafter: KnownFiles | None) -> DraftOptions | None:
    """Return how tokens of a model are guessed ahead; None for not at all. drafter: the files of its draft model."""
    kind, draft = draft_kind(model, files.facts), model.draft
    if not kind or draft is None:
        return None
    return DraftOptions(
        kind=kind,
        files=drafter.paths if drafter else (),
        digest=(drafter.digest or "") if drafter else "",
        automatic=draft.from_ == "auto",
        tokens=draft_tokens(model, files.facts),
        min_probability=draft.min_probability,
        until_parallel=draft.until_parallel or 0,
    )


def _projector(model: Model, file: ProjectorFile | None, *, on_device: bool) -> Projector | None:
    """Return the projector of a context; None for a model without one, and for a script, which needs none."""
    if file is None or not file.path or not file.kinds:
        return None
    facts = MediaFacts(vision=file.facts.vision, audio=file.facts.audio)
    bundled = model.from_.startswith(_BUILTIN) and (model.projector_source or _BUILTIN).startswith(_BUILTIN)
    digest = file.digest.removeprefix("sha256:")
    return Projector(path=file.path, digest=digest, gpu=on_device, known=facts if bundled else None)


def time_to_live(model: Model) -> float:
    """Return the seconds that a model stays loaded after its last use: as declared, else without a limit."""
    if model.residency.ttl is not None:
        return model.residency.ttl
    return ON_DEMAND_TTL if model.residency.load == "on_demand" else FOREVER


def engine_of(files: KnownFiles) -> str:
    """Return the engine for these files: a script runs on the scripted engine."""
    return "scripted" if is_script(files.source) else "llamacpp"


def _modified(files: KnownFiles) -> float:
    try:
        return Path(files.paths[0]).stat().st_mtime
    except (IndexError, OSError):
        return 0.0


def _names(manifest: Manifest, deployments: Mapping[str, Deployment]) -> dict[str, str]:
    """Return every name that clients may use → its model. A model's own name wins over a route."""
    names = {name: d.name for d in deployments.values() for name, _ in _exposed_by(d)}
    for name, route in manifest.routes.items():
        targets = targets_of(route)
        names[ModelName.parse(name).key] = next((to for to in targets if PEER_SIGN not in to), targets[0])
    return names | {ModelName.parse(name).key: name for name in deployments}


def _exposed(deployments: Mapping[str, Deployment]) -> dict[str, int]:
    """Return every name of an exposed adapter → its number."""
    return {name: number for d in deployments.values() for name, number in _exposed_by(d)}


def _exposed_by(deployment: Deployment) -> Iterator[tuple[str, int]]:
    for number, adapter in enumerate(deployment.model.adapters):
        if adapter.expose and adapter.name:
            yield ModelName.parse(adapter.name).key, number


def _adapters(model: Model, files: tuple[KnownFiles, ...]) -> tuple[Adapter, ...]:
    """Return the adapters of a context. An exposed one is applied to the requests that name it."""
    found = [(known.paths[0], known.digest or "") for known in files] or [(name, "") for name in model.adapter_sources]
    return tuple(
        Adapter(path=path, digest=digest, scale=0.0 if adapter.expose else adapter.scale)
        for (path, digest), adapter in zip(found, model.adapters, strict=True)
    )
