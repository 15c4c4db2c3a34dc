"""Model cards for `list`, `ps` and `show`, made from deployments and the live state."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

from mullama.chat.inventory import AdapterCard, ModelCard
from mullama.chat.types import DEFAULT_SAMPLING
from mullama.errors import MullamaError, masked, masked_tree
from mullama.manifest.modelfile import from_tree, render_modelfile
from mullama.manifest.spec.readers import PEER_SIGN, targets_of
from mullama.manifest.tree import unusual
from mullama.names import DEFAULT_ROUTE, JSONValue
from mullama.runtime.base import Caller
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.events import FOREVER
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.scheduler.wants import unit_ttl
from mullama.runtime.serving.prompt_settings import (
    capabilities,
    chosen_template,
    effective_defaults,
    special_text,
    thinking_levels,
)
from mullama.runtime.serving.tries import not_allowed
from mullama.runtime.snapshot import Deployment, Snapshot, key_of
from mullama.sources.local_files import look_into
from mullama.struct import replace
from mullama.weights.facts import WeightFacts

_SHORT_ARRAY = 5
# Ollama's words for where a template came from.
_TEMPLATE_SOURCES = {"manifest": "renderer", "source": "go_template", "gguf": "gguf_chat_template", "none": "none"}


def cards(snapshot: Snapshot, pool: Pool, caller: Caller) -> tuple[ModelCard, ...]:
    """Return the models and routes that the caller may use in its dialect, newest first."""
    spoken = {name: d for name, d in snapshot.deployments.items() if snapshot.speaks(d, caller.dialect)}
    own = {name: card(d, pool) for name, d in spoken.items() if caller.may_use(name)}
    targets: dict[str, str] = {}
    for route, declared in snapshot.manifest.routes.items():
        usable = (target for target in targets_of(declared) if target in spoken and caller.may_use(target, route))
        if route not in own and route != DEFAULT_ROUTE and (first := next(usable, None)) is not None:
            targets[route] = first
    adapted = [
        replace(own[name], name=adapter.name, parent=name, paths=())
        for name in own
        for adapter in snapshot.deployments[name].model.adapters
        if adapter.expose and adapter.name
    ]
    remote = [
        _peer_card(route, target)
        for route, declared in snapshot.manifest.routes.items()
        if route not in targets and route != DEFAULT_ROUTE
        and PEER_SIGN in (target := targets_of(declared)[0])
        and caller.may_use(target, route)
    ]  # fmt: skip
    known = own | {name: card(spoken[name], pool) for name in set(targets.values()) - own.keys()}
    routes = [replace(known[target], name=route, route_of=target, paths=()) for route, target in targets.items()]
    default = snapshot.names.get(DEFAULT_ROUTE)
    shown = {name: c if "admin" in caller.roles else replace(c, paths=()) for name, c in own.items()}
    listed = [
        replace(
            c,
            is_default=c.name == default,
            aliases=tuple(route for route, target in targets.items() if target == c.name),
        )
        for c in shown.values()
    ]
    return tuple(sorted([*listed, *adapted, *routes, *remote], key=lambda c: -c.modified))


def _peer_card(route: str, target: str) -> ModelCard:
    return ModelCard(name=route, route_of=target, capabilities=("completion",))


def peer_card(snapshot: Snapshot, name: str, caller: Caller) -> ModelCard | None:
    """Return the card of a route to a model of a peer, of which only its names are known; None for another name.

    Raises `Denied` for a route that the key may not use.
    """
    key = key_of(name)
    target = snapshot.names.get(key, "")
    if PEER_SIGN not in target:
        return None
    route = next(route for route in snapshot.manifest.routes if key_of(route) == key)
    if not caller.may_use(target, route):
        raise not_allowed(caller, name)
    return _peer_card(route, target)


def running_cards(snapshot: Snapshot, pool: Pool, caller: Caller) -> tuple[ModelCard, ...]:
    """Return the models in memory, those that stay longest first."""
    loaded = [c for c in cards(snapshot, pool, caller) if c.loaded and c.name in snapshot.deployments]
    return tuple(sorted(loaded, key=lambda c: -(c.expires or 0.0)))


def show_card(snapshot: Snapshot, pool: Pool, deployment: Deployment) -> ModelCard:
    """Return the complete card of one model, without what `with_headers` adds."""
    aliases = tuple(n for n, t in snapshot.aliases.items() if t == deployment.name)
    levels = thinking_levels(deployment.settings)
    return replace(card(deployment, pool), aliases=aliases, thinking_levels=levels, modelfile=_modelfile(deployment))


def with_headers(shown: ModelCard, deployment: Deployment, verbose: bool) -> ModelCard:
    """Return the card with the headers of the files, which this reads. Arrays longer than five are empty unless
    `verbose`, as are those that no part of mullama reads."""
    projector, files = deployment.projector, deployment.files
    facts = _header(files.paths, tuple(sorted(files.stamps.items())))
    beside = _header((projector.path,), ((projector.path, projector.stamp),)) if projector and projector.path else None
    tensors = tuple((t.name, t.type, tuple(t.shape)) for t in facts.tensors) if facts and verbose else ()
    return replace(
        shown,
        metadata=_metadata(facts.metadata, verbose) if facts else {},
        tensors=tensors,
        projector_metadata=_metadata(beside.metadata, verbose) if beside else {},
    )


@lru_cache(maxsize=32)
def _header(paths: tuple[str, ...], stamps: tuple[tuple[str, str], ...]) -> WeightFacts | None:
    """Return the header of files; None for a model without files, or with one that is no GGUF.

    stamps: the states of the files, for which a header that was read holds.
    """
    try:
        return look_into(paths) if paths else None
    except (MullamaError, OSError):
        return None


def _modelfile(deployment: Deployment) -> str:
    """Return the model as a Modelfile."""
    return render_modelfile(*from_tree(masked_tree(unusual(deployment.model))))


def states(snapshot: Snapshot, pool: Pool, caller: Caller) -> dict[str, str]:
    """Return the state of each model that the caller may use in its dialect, by its name."""
    return {
        name: pool.phase(d.unit).value
        for name, d in snapshot.deployments.items()
        if snapshot.speaks(d, caller.dialect) and caller.may_use(name)
    }


def card(deployment: Deployment, pool: Pool) -> ModelCard:
    """Return the card of a model in a listing."""
    model, facts, files = deployment.model, deployment.files.facts, deployment.files
    unit = pool.state.units.get(deployment.unit)
    loaded = unit is not None and unit.phase is Phase.READY
    context = pool.context_facts(deployment.unit)
    worker = pool.worker(deployment.unit)
    memory = deployment.serve.weights_bytes + deployment.serve.context_bytes
    layers = worker.facts.gpu_layers if worker else 0
    _, _, source = chosen_template(model, files)
    effective = effective_defaults(model, files)
    return ModelCard(
        name=deployment.name,
        digest=files.digest or "",
        size=files.size or 0,
        modified=deployment.modified,
        family=facts.architecture if facts else "",
        families=(facts.architecture,) if facts else (),
        parameter_count=facts.parameter_count if facts else 0,
        parameter_size=facts.parameter_size if facts else "",
        quantization=facts.quantization if facts else "",
        context_size=context.size if context else deployment.options.size,
        train_context=facts.train_context if facts else 0,
        embedding_length=facts.embedding_length if facts else 0,
        vocabulary=facts.vocabulary if facts else 0,
        capabilities=capabilities(deployment.settings, facts),
        thinking_levels=deployment.settings.template.traits.levels,
        bos_text=special_text(facts, "bos"),
        eos_text=special_text(facts, "eos"),
        description=model.description or "",
        license="\n\n".join(effective.license),
        system=effective.system,
        template=effective.template,
        template_source=_TEMPLATE_SOURCES[source],
        parameters=_parameters(deployment, effective.parameters),
        sampling=deployment.settings.sampling.over(DEFAULT_SAMPLING),
        max_tokens=_limit(deployment),
        stop=deployment.settings.stop,
        draft=deployment.options.draft.kind if deployment.options.draft else "",
        adapters=tuple(
            AdapterCard(source=masked(declared.from_), scale=adapter.scale, name=declared.name or "")
            for declared, adapter in zip(model.adapters, deployment.options.adapters, strict=False)
        ),
        messages=deployment.settings.messages,
        source=masked(model.from_),
        resolved=masked(files.weights.resolved) if files.weights else "",
        paths=files.paths,
        stored=files.stored,
        loaded=loaded,
        state=unit.phase.value if unit else Phase.COLD.value,
        active=pool.state.active(deployment.name),
        parallel=deployment.options.parallel,
        memory=memory if loaded else 0,
        memory_gpu=_on_devices(deployment) if loaded and layers else 0,
        gpu_layers=layers,
        expires=_expires(deployment, pool) if loaded else None,
    )


def _on_devices(deployment: Deployment) -> int:
    """Return the bytes of a model that are not in main memory."""
    return sum(deployment.serve.weights_on.values()) + sum(deployment.serve.context_on.values())


def _expires(deployment: Deployment, pool: Pool) -> float:
    """Return when the model and those that share its context unload (unix seconds), infinity for never."""
    unit = pool.state.units[deployment.unit]
    ttl = unit_ttl(pool.state, deployment.unit)
    return FOREVER if ttl == FOREVER else time.time() + max(0.0, unit.last_used + ttl - time.monotonic())


def _parameters(deployment: Deployment, effective: Mapping[str, JSONValue]) -> tuple[tuple[str, JSONValue], ...]:
    """Return the parameters for requests that set none."""
    return (
        *((name, value) for name, value in effective.items() if name != "num_ctx"),
        ("num_ctx", deployment.options.size),
    )


def _limit(deployment: Deployment) -> int | None:
    """Return the most tokens of an answer to a request without a limit."""
    limits = (deployment.settings.max_tokens, deployment.model.limits.max_tokens)
    return min((limit for limit in limits if limit is not None and limit >= 0), default=None)


def _metadata(metadata: Mapping[str, JSONValue], verbose: bool) -> dict[str, JSONValue]:
    def shown(value: JSONValue) -> JSONValue:
        if isinstance(value, Mapping):  # an array that was not read, by its length
            return []
        return [] if isinstance(value, list | tuple) and len(value) > _SHORT_ARRAY and not verbose else value

    return {key: shown(value) for key, value in metadata.items()}
