"""Memory that models need on a machine, computed from the manifest and the GGUF headers.

This module makes the choices that the manifest leaves open (`gpu.layers: auto`, no `context.size`), so the plan, the
preflight check and the load use the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

from mullama.errors import Invalid
from mullama.manifest.spec import Budget, Gpu, Manifest, Model, share_of
from mullama.plan.drafting import draft_kind, draft_tokens
from mullama.plan.observed import KnownFiles, Machine
from mullama.struct import Struct, replace
from mullama.units import size
from mullama.weights.facts import WeightFacts
from mullama.weights.memory import (
    DRAFT_STATES,
    ROWS,
    ContextShape,
    WeightsPlacement,
    checkpoint_bytes,
    draft_rows,
    largest_context,
)
from mullama.weights.memory import need as memory_need

DEFAULT_CONTEXT = 8192
"""Context size in tokens of a model without `context.size` that was trained on at least as many."""

_NAMED = 8  # models in one message
_GPU_HEADROOM = 512 * 1024**2

# Additions of the engine to the requested sizes; tests/engines/llamacpp/test_memory.py compares them.
_IDLE_STATES = 1  # ended conversations that a recurrent model keeps
_VECTOR_SEQUENCES = 64  # inputs of one decode of embeddings


class Need(Struct, frozen=True, kw_only=True):
    """Bytes on all devices together: the weights, which models may share, and one context."""

    weights: int
    context: int

    @property
    def total(self) -> int:
        return self.weights + self.context


class Placement(Struct, frozen=True, kw_only=True):
    """Number of layers on GPUs (-1 for all), and the share of each GPU (empty for equal shares)."""

    layers: int = 0
    tensor_split: tuple[float, ...] = ()


def context_size(model: Model, facts: WeightFacts | None) -> int:
    """Return the context size of one request in tokens."""
    if model.context.size is not None:
        return model.context.size
    trained = facts.train_context if facts and facts.train_context else DEFAULT_CONTEXT
    return min(trained, DEFAULT_CONTEXT)


def requested_shape(model: Model, facts: WeightFacts | None) -> ContextShape:
    """Return the context that the manifest asks for."""
    context = model.context
    return ContextShape(
        size=context_size(model, facts),
        parallel=model.limits.parallel,
        batch=context.batch,
        ubatch=context.ubatch or context.batch,
        kv_k=context.kv.k,
        kv_v=context.kv.v,
        flash=context.flash_attention,
        draft_tokens=draft_tokens(model, facts),
    )


def context_shape(model: Model, facts: WeightFacts | None) -> ContextShape:
    """Return the context as the engine makes it, as far as the header is known."""
    asked = requested_shape(model, facts)
    if facts is None:
        return asked
    declared = bool(model.system or model.messages)
    return as_made(asked, facts, vectors=model.task != "chat", beginnings=int(declared))


def as_made(asked: ContextShape, facts: WeightFacts, *, vectors: bool = False, beginnings: int = 0) -> ContextShape:
    """Return the shape with the sequences, rows of logits and checkpoints that the engine adds.

    vectors: the context computes embeddings. It has cells for one input of full size, and decodes many short inputs
        at once; an encoder needs each input in one batch.
    beginnings: number of declared prefixes, whose states a recurrent or sliding-window model keeps.
    """
    size = asked.size or facts.train_context
    if vectors:
        sequences = 1 if facts.recurrent else _VECTOR_SEQUENCES
        ubatch = min(asked.ubatch, size) if facts.causal else size
        return replace(asked, size=size, parallel=1, batch=size, ubatch=ubatch, sequences=sequences)
    shared = not facts.recurrent and facts.window == 0
    sequences = asked.parallel + 1 + (0 if shared else beginnings + _IDLE_STATES)
    if asked.draft_tokens and facts.recurrent:
        sequences += DRAFT_STATES
    batch = max(asked.batch, asked.parallel)
    return replace(
        asked,
        batch=batch,
        ubatch=min(asked.ubatch, batch),
        sequences=sequences,
        outputs=max(ROWS, sequences) + draft_rows(asked.draft_tokens, asked.parallel, facts.vocabulary),
        checkpoints=checkpoint_bytes(facts, asked),
    )


def placement(model: Model, facts: WeightFacts | None, machine: Machine | None) -> Placement:
    """Return `gpu.layers` as numbers: the layers of a map, all for `all`, as many as fit for `auto`."""
    gpu, gpus = model.gpu, machine.gpus if machine else ()
    match gpu.layers:
        case "all":
            return Placement(layers=-1, tensor_split=gpu.tensor_split)
        case "auto":
            return Placement(layers=_automatic(model, facts, machine) if gpus else 0, tensor_split=gpu.tensor_split)
        case int(count):
            return Placement(layers=count, tensor_split=gpu.tensor_split)
        case per_device:
            return _by_device(per_device, len(gpus))


def _by_device(layers: dict[str, int], devices: int) -> Placement:
    """Return the placement of a map: {"0": 30, "1": 18} is 48 layers in shares of 30 and 18."""
    if devices and (beyond := [d for d in layers if int(d) >= devices]):
        raise Invalid(f"gpu.layers names GPU {beyond[0]}; this machine has {devices}", hint="GPUs are numbered from 0")
    count = max((int(device) for device in layers), default=-1) + 1
    shares = tuple(float(layers.get(str(device), 0)) for device in range(count))
    return Placement(layers=sum(layers.values()), tensor_split=shares)


def _automatic(model: Model, facts: WeightFacts | None, machine: Machine | None) -> int:
    """Return the highest number of layers whose weights, cache and buffers fit into the free memory of each GPU."""
    if facts is None or machine is None:
        return -1
    free = [free for _, _, free in machine.gpus]
    shape, contexts = _shape(model.gpu, Placement(layers=-1), len(free)), [context_shape(model, facts)]
    for layers in range(facts.layers + 1, 0, -1):
        found = memory_need(facts, replace(shape, gpu_layers=layers), contexts)
        used = (gpu.weights + gpu.kv + gpu.compute for gpu in found.gpus)
        if all(need + _GPU_HEADROOM <= have for need, have in zip(used, free, strict=False)):
            return layers
    return 0


def _shape(gpu: Gpu, place: Placement, devices: int) -> WeightsPlacement:
    return WeightsPlacement(
        gpu_layers=place.layers,
        devices=devices,
        split=gpu.split,
        main_gpu=gpu.main,
        tensor_split=place.tensor_split,
    )


def need(
    model: Model, facts: WeightFacts | None, machine: Machine | None, drafter: WeightFacts | None = None
) -> Need | None:
    """Return the memory on all devices together; None if the header is not known.

    drafter: the facts of its draft model, which is a part of the context.
    """
    if facts is None:
        return None
    place = placement(model, facts, machine)
    shape = _shape(model.gpu, place, len(machine.gpus) if machine else 0)
    found = _need(facts, shape, context_shape(model, facts))
    kind = draft_kind(model, facts)
    if kind == "mtp":
        return replace(found, context=found.context + _nextn_context(facts, drafting_shape(model, facts)))
    if drafter is None or kind != "model":
        return found
    beside = replace(shape, gpu_layers=-1 if place.layers else 0, tensor_split=())
    small = _need(drafter, beside, drafting_shape(model, facts))
    return replace(found, context=found.context + small.total)


def _nextn_context(facts: WeightFacts, shape: ContextShape) -> int:
    """Return the bytes of the layer that predicts a further token: a cache, its logits, and the model's states."""
    cells = shape.size * shape.parallel
    cache = cells * (facts.key_length + facts.value_length) * max(facts.kv_heads, default=0) * 2
    return cache + 4 * (2 * ROWS * facts.vocabulary + shape.batch * facts.embedding_length)


def drafting_shape(model: Model, facts: WeightFacts) -> ContextShape:
    """Return the context of the draft model of these weights: as long, for as many requests."""
    shape = requested_shape(model, facts)
    return replace(shape, kv_k="f16", kv_v="f16", draft_tokens=0, sequences=shape.parallel, outputs=ROWS)


def drafter_facts(model: Model | None, files: Mapping[str, KnownFiles]) -> WeightFacts | None:
    """Return the facts of the draft model; None without one, or if they are not known."""
    source = model.draft.source if model and model.draft else None
    known = files.get(source) if source else None
    return known.facts if known else None


@lru_cache(maxsize=256)
def _need(facts: WeightFacts, shape: WeightsPlacement, context: ContextShape) -> Need:
    """Compute the memory; cached, because models of one manifest often share weights and shape."""
    found = memory_need(facts, shape, [context])
    weights = found.weights_ram + sum(gpu.weights for gpu in found.gpus)
    return Need(weights=weights, context=sum(found.contexts))


class MemoryLedger:
    """The memory that a change of the models adds and frees, where models may share weights and contexts.

    Each part counts once: it is added by the first model that asks for it and had no owner, and freed with its last.
    """

    def __init__(
        self, old: Iterable[Model], new: Iterable[Model], files: Mapping[str, KnownFiles], machine: Machine | None
    ) -> None:
        self._files, self._machine = files, machine
        self._old = {part for model in old for part in self._parts(model)}
        self._new = {part for model in new for part in self._parts(model)}

    def added(self, model: Model | None) -> int:
        """Return the bytes of the parts that this model is the first to need."""
        fresh = {part: count for part, count in self._parts(model).items() if part not in self._old}
        self._old |= fresh.keys()
        return sum(fresh.values())

    def freed(self, model: Model | None) -> int:
        """Return the bytes of the parts that no model needs when this one is gone."""
        gone = {part: count for part, count in self._parts(model).items() if part not in self._new}
        self._new |= gone.keys()
        return sum(gone.values())

    def _parts(self, model: Model | None) -> dict[object, int]:
        """Return the weights and the context of a model with their bytes; empty if they are not known."""
        known = self._files.get(model.from_) if model else None
        try:
            drafter = drafter_facts(model, self._files)
            wanted = need(model, known.facts, self._machine, drafter) if model and known else None
        except Invalid:  # a GPU that is missing: loading the model reports it
            wanted = None
        if model is None or known is None or wanted is None:
            return {}
        weights = (known.digest or model.from_, repr(model.gpu), repr(model.memory))
        context = (weights, context_shape(model, known.facts), repr(model.adapters), repr(model.draft))
        return {weights: wanted.weights, context: wanted.context}


def stays(model: Model) -> bool:
    """True if the model is loaded at the start and has no idle time after which it is unloaded."""
    ttl = model.residency.ttl
    return model.residency.load == "at_start" and (ttl is None or ttl == math.inf)


def room_for_both(new: Need, *, heavy: bool, machine: Machine) -> bool:
    """True if the new context, with `heavy` also the new weights, fits into the free memory."""
    wanted = new.total if heavy else new.context
    free = machine.ram_available + sum(free for _, _, free in machine.gpus)
    return machine.ram_total == 0 or wanted <= free


def memory_bound(budget: Budget, machine: Machine | None) -> int | None:
    """Return the bytes that all models together may use, on all devices; None for a machine of unknown memory.

    This is the budget of the manifest, or the total memory without one; the reserve is subtracted.
    """
    if machine is None or machine.ram_total == 0:
        return None
    ram = share_of(budget.ram, machine.ram_total)
    gpus = [_gpu_share(budget, index, total) for index, (_, total, _) in enumerate(machine.gpus)]
    return max(0, (machine.ram_total if ram is None else ram) - budget.reserve) + sum(gpus)


def _gpu_share(budget: Budget, index: int, total: int) -> int:
    share = share_of(budget.gpu.get(str(index)), total)
    return total if share is None else share


def too_large(
    name: str,
    model: Model,
    facts: WeightFacts,
    budget: Budget,
    machine: Machine | None,
    drafter: WeightFacts | None = None,
) -> str | None:
    """Return the reason why the machine can never load a model, with a context size that fits; None if it can."""
    wanted, bound = need(model, facts, machine, drafter), memory_bound(budget, machine)
    if wanted is None or bound is None or wanted.total <= bound:
        return None
    fitting = largest_context(facts, WeightsPlacement(), context_shape(model, facts), bound)
    instead = f"a context.size of {fitting} would fit" if fitting else "no context of any size would fit"
    return f"{name} needs {size(wanted.total, digits=2)} and may use {size(bound, digits=2)}: {instead}"


def oversubscribed(desired: Manifest, files: Mapping[str, KnownFiles], machine: Machine | None) -> str | None:
    """Return the reason why the models that stay loaded do not fit into memory together; None if they fit.

    Shared weights and contexts count once; models of unknown size are left out. The sum is over all devices, so each
    single device may still lack room.
    """
    bound = memory_bound(desired.hardware.budget, machine)
    if bound is None:
        return None
    counted: list[str] = []
    weights: dict[object, int] = {}
    contexts: dict[object, int] = {}
    for name, model in desired.models.items():
        known = files.get(model.from_)
        if known is None or not stays(model):
            continue
        try:
            wanted = need(model, known.facts, machine, drafter_facts(model, files))
        except Invalid:  # a GPU that is missing: loading the model reports it, and other models have a plan
            continue
        if wanted is None:
            continue
        counted.append(name)
        digest = known.digest or model.from_
        weights[digest] = max(wanted.weights, weights.get(digest, 0))
        contexts[digest, context_shape(model, known.facts), model.adapters, model.draft] = wanted.context
    total = sum(weights.values()) + sum(contexts.values())
    if total <= bound:
        return None
    names = ", ".join(counted[:_NAMED]) + (f" and {len(counted) - _NAMED} more" if len(counted) > _NAMED else "")
    return (
        f"the models that stay loaded ({names}) need {size(total, digits=2)} and may use"
        f" {size(bound, digits=2)}: requests will unload one for another; set residency.load: on_demand,"
        " a residency.ttl or a smaller context"
    )
