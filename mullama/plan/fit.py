"""Memory that models need on a machine, computed from the manifest and the GGUF headers.

This module makes the choices that the manifest leaves open (`gpu.layers: auto`, no `context.size`), so the plan, the
preflight check and the load use the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from mullama.errors import Invalid
from mullama.manifest.checks import pool_too_small
from mullama.manifest.spec import Budget, Gpu, Manifest, Model, share_of
from mullama.manifest.spec.readers import writes_text
from mullama.plan.devices import device_bound, known_devices, usable_devices
from mullama.plan.drafting import draft_kind, draft_tokens
from mullama.plan.observed import Device, KnownFiles, Machine
from mullama.plan.projectors import projector_of
from mullama.struct import Struct, replace
from mullama.units import counted, size
from mullama.weights.experts import expert_layers
from mullama.weights.facts import WeightFacts
from mullama.weights.memory import (
    DRAFT_STATES,
    ROWS,
    ContextShape,
    WeightsPlacement,
    checkpoint_bytes,
    draft_rows,
    largest_context,
    layer_bytes,
)
from mullama.weights.memory import need as memory_need
from mullama.weights.stored import ProjectorFile

DEFAULT_CONTEXT = 8192
"""Context size in tokens of a model without `context.size` that was trained on at least as many."""

_FIRST_POOL = 4  # divides the worst case, before the use of a model is known
_USE_HEADROOM = 1.25  # times the most tokens that were used at once
_POOL_STEP = 256  # tokens
_CHARACTERS = 4  # of a token, on average
_NAMED = 8  # models in one message
_GPU_HEADROOM = 512 * 1024**2

# Additions of the engine to the requested sizes; tests/engines/llamacpp/test_memory.py compares them.
_IDLE_STATES = 1  # ended conversations that a recurrent model keeps
_VECTOR_SEQUENCES = 64  # inputs of one decode of embeddings


class Need(Struct, frozen=True, kw_only=True):
    """Bytes on all devices together: the weights, which models may share, and one context."""

    weights: int
    context: int
    devices: tuple[tuple[str, int, int], ...] = ()
    """(name, bytes of weights, bytes of context) of each device, parts of the sums; main memory has the rest."""

    @property
    def total(self) -> int:
        return self.weights + self.context


class Placement(Struct, frozen=True, kw_only=True):
    """The choice of devices, in llama.cpp's order, and what is placed on them."""

    layers: int = 0
    """Number of layers on devices, -1 for all."""
    tensor_split: tuple[float, ...] = ()
    """The share of each device; empty for one device."""
    devices: tuple[Device, ...] = ()
    experts: int = 0
    """Number of layers whose experts stay in main memory, -1 for all."""


def context_size(model: Model, facts: WeightFacts | None) -> int:
    """Return the context size of one request in tokens."""
    if model.context.size is not None:
        return model.context.size
    trained = facts.train_context if facts and facts.train_context else DEFAULT_CONTEXT
    return min(trained, DEFAULT_CONTEXT)


def projector_memory(model: Model, files: Mapping[str, KnownFiles]) -> int:
    """Return the memory of the projector of a model, 0 without one. files: by source."""
    known = files.get(model.from_)
    return loaded_projector(model, known.facts if known else None, projector_of(model, files))


def loaded_projector(model: Model, facts: WeightFacts | None, projector: ProjectorFile | None) -> int:
    """Return the bytes of a projector and of its work buffers, after the largest medium that the context has room for.

    libmtmd keeps the buffers from the first medium on. A larger medium is refused before it is encoded.
    """
    if projector is None or not projector.kinds:
        return 0
    return projector.size + projector.facts.work_bytes(context_size(model, facts))


def pool_tokens(model: Model, facts: WeightFacts | None, used: int = 0) -> int:
    """Return the tokens of the pool of a model, beside those of its declared prefixes; 0 for the worst case.

    used: the most tokens that requests held at once, as observed; 0 if it is not known. Raises `Invalid` for a pool
    that has no room for one request.
    """
    asked, size = model.context.pool, context_size(model, facts)
    worst = size * model.limits.parallel
    sure = facts is not None or model.context.size is not None  # the size may be that of weights that are not here yet
    if isinstance(asked, int) and asked < size and sure:
        text, hint = pool_too_small(asked, size)
        raise Invalid(f"context.pool: {text}", hint=hint)
    cellless = facts is not None and not any(layer.key for layer in facts.per_layer)
    if asked == "worst_case" or not writes_text(model) or cellless:
        return 0
    if asked == "auto":
        wanted = math.ceil(_USE_HEADROOM * used) if used else worst // _FIRST_POOL
        asked = -(-max(wanted, size) // _POOL_STEP) * _POOL_STEP
    return asked if asked < worst else 0


def requested_shape(model: Model, facts: WeightFacts | None, used: int = 0) -> ContextShape:
    """Return the context that the manifest asks for. used: see `pool_tokens`, which also raises the error."""
    context = model.context
    return ContextShape(
        size=context_size(model, facts),
        parallel=model.limits.parallel,
        pool=pool_tokens(model, facts, used),
        batch=context.batch,
        ubatch=context.ubatch or context.batch,
        kv_k=context.kv.k,
        kv_v=context.kv.v,
        flash=context.flash_attention,
        draft_tokens=draft_tokens(model, facts),
    )


def context_shape(model: Model, facts: WeightFacts | None, used: int = 0) -> ContextShape:
    """Return the context as the engine makes it, as far as the header is known. used: see `pool_tokens`."""
    asked = requested_shape(model, facts, used)
    if facts is None:
        return asked
    declared = bool(model.system or model.messages)
    if asked.pool:
        worst = asked.size * asked.parallel
        asked = replace(asked, pool=min(asked.pool + _declared_tokens(model, asked.size), worst))
    bound = None if model.context.checkpoints == "auto" else model.context.checkpoints
    return as_made(asked, facts, vectors=not writes_text(model), beginnings=int(declared), checkpoints=bound)


def _declared_tokens(model: Model, size: int) -> int:
    """Return an estimate of the tokens of the declared prefix, which the engine counts exactly."""
    texts = (model.system or "", *(message.content for message in model.messages))
    return min(sum(map(len, texts)) // _CHARACTERS, size)


def as_made(
    asked: ContextShape,
    facts: WeightFacts,
    *,
    vectors: bool = False,
    beginnings: int = 0,
    checkpoints: int | None = None,
) -> ContextShape:
    """Return the shape with the sequences, rows of logits and checkpoints that the engine adds.

    vectors: the context computes embeddings. It has cells for one input of full size, and decodes many short inputs
        at once; an encoder needs each input in one batch.
    beginnings: number of declared prefixes, whose states a recurrent or sliding-window model keeps.
    checkpoints: most bytes of them, None for `checkpoint_bytes`.
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
        checkpoints=checkpoint_bytes(facts, asked) if checkpoints is None or shared else checkpoints,
    )


def placement(
    model: Model,
    facts: WeightFacts | None,
    machine: Machine | None,
    used: int = 0,
    drafter: WeightFacts | None = None,
    projector: int = 0,
) -> Placement:
    """Return the devices, and `gpu.layers` and `gpu.experts` as numbers: for `auto` as many layers as fit.

    used, drafter, projector: see `need`. Raises `Invalid` for devices that are not there, and for more layers with
    experts than the model has.
    """
    gpu, devices = model.gpu, usable_devices(model.gpu, machine)
    check_experts(gpu, facts)
    split = gpu.tensor_split
    if devices and gpu.main >= len(devices):
        raise Invalid(f"gpu.main is {gpu.main}; the model has {counted(len(devices), 'device')}", hint=_FROM_ZERO)
    if len(split) > len(devices) > 0:
        text = f"gpu.tensor_split has {counted(len(split), 'share')}; the model has {counted(len(devices), 'device')}"
        raise Invalid(text, hint=_FROM_ZERO)
    if gpu.split == "none":
        devices, split = devices[gpu.main : gpu.main + 1], ()
    if isinstance(gpu.layers, dict):
        layers, split = _by_device(gpu.layers, len(devices))
    else:
        # A machine that is not known is taken to have what the manifest asks for.
        layers = -1 if gpu.layers == "all" else _MANY if gpu.layers == "auto" else gpu.layers
        if len(devices) > 1 and not split:
            split = _by_free_memory(devices)
    place = Placement(layers=layers, tensor_split=split, devices=devices)
    if layers == _MANY and not devices:
        return replace(place, layers=0, devices=())
    if gpu.experts == "all" or isinstance(gpu.experts, int):
        place = replace(place, experts=-1 if gpu.experts == "all" else gpu.experts)
    return _fitted(model, facts, place, used, drafter, projector)


_FROM_ZERO = "devices are numbered from 0; mullama doctor lists them"
_MANY = -2  # `gpu.layers: auto`, until a number is found


def check_experts(gpu: Gpu, facts: WeightFacts | None) -> None:
    """Raise `Invalid` for more layers with experts than the weights have."""
    if isinstance(gpu.experts, int) and facts is not None and gpu.experts > (most := len(expert_layers(facts))):
        text = f"the model has {counted(most, 'layer')} with experts" if most else "the model has no experts"
        raise Invalid(f"gpu.experts is {gpu.experts}, and {text}", hint="auto, all, or a smaller number")


def _by_device(layers: dict[str, int], devices: int) -> tuple[int, tuple[float, ...]]:
    """Return the layers and shares of a map: {"0": 30, "1": 18} is 48 layers in shares of 30 and 18."""
    if devices and (beyond := [d for d in layers if int(d) >= devices]):
        raise Invalid(
            f"gpu.layers names device {beyond[0]}; the model has {counted(devices, 'device')}", hint=_FROM_ZERO
        )
    count = max((int(device) for device in layers), default=-1) + 1
    shares = tuple(float(layers.get(str(device), 0)) for device in range(count))
    return sum(layers.values()), shares


def _by_free_memory(devices: tuple[Device, ...]) -> tuple[float, ...]:
    """Return shares in MiB of free memory, as llama.cpp chooses them; equal ones where some is unknown."""
    shares = tuple(float(device.free >> 20) for device in devices)
    return shares if all(shares) else (1.0,) * len(devices)


def _fitted(
    model: Model,
    facts: WeightFacts | None,
    place: Placement,
    used: int,
    drafter: WeightFacts | None,
    projector: int,
) -> Placement:
    """Return the placement with the layers and experts that `auto` leaves open.

    The experts of few layers go to main memory before whole layers do, because a token needs a small part of them.
    """
    free_experts = model.gpu.experts == "auto" and facts is not None and bool(expert_layers(facts))
    automatic = place.layers == _MANY
    whole = replace(place, layers=-1) if automatic else place
    if facts is None or not (automatic or free_experts) or not place.devices:
        return whole
    if not all(device.total for device in place.devices):  # a host that does not answer, and that the model names
        return whole

    def fits(layers: int, experts: int) -> bool:
        tried = replace(whole, layers=layers, experts=experts)
        found = _on_devices(need_at(model, facts, tried, drafter, used, projector))
        return all(found.get(device.name, 0) + _headroom(device) <= device.free for device in place.devices)

    most = len(expert_layers(facts)) if free_experts else 0
    for experts in range(most + 1) if free_experts else (place.experts,):
        if fits(whole.layers, experts):
            return replace(whole, experts=experts)
    last = -1 if free_experts else place.experts
    if not automatic:
        return replace(whole, experts=last)
    layers = next((n for n in range(facts.layers, 0, -1) if fits(n, last)), 0)
    return replace(whole, layers=layers, experts=last if layers else 0, devices=place.devices if layers else ())


def _on_devices(found: Need | None) -> dict[str, int]:
    """Return the bytes on each device."""
    return {name: weights + context for name, weights, context in found.devices} if found else {}


def beside_layers(
    model: Model, facts: WeightFacts | None, place: Placement, drafter: WeightFacts | None, projector: int
) -> tuple[int, ...]:
    """Return the bytes that a draft model and a projector take on each device of a placement."""
    whole = _on_devices(need_at(model, facts, place, drafter, 0, projector))
    layers = _on_devices(need_at(model, facts, place))
    return tuple(whole.get(device.name, 0) - layers.get(device.name, 0) for device in place.devices)


def _headroom(device: Device) -> int:
    """Return the bytes that stay free on a device for the driver: less on a small one."""
    return min(_GPU_HEADROOM, device.free // 16)


def _shape(gpu: Gpu, place: Placement) -> WeightsPlacement:
    return WeightsPlacement(
        gpu_layers=place.layers,
        devices=len(place.devices),
        split=gpu.split,
        main_gpu=0 if gpu.split == "none" else gpu.main,
        tensor_split=place.tensor_split,
        experts=place.experts,
    )


def need(
    model: Model,
    facts: WeightFacts | None,
    machine: Machine | None,
    drafter: WeightFacts | None = None,
    used: int = 0,
    projector: int = 0,
) -> Need | None:
    """Return the memory on all devices together; None if the header is not known.

    drafter: the facts of its draft model, which is a part of the context. used: see `pool_tokens`. projector: bytes of
    its projector, which is a part of the context, too, see `projector_memory`.
    """
    if facts is None:
        return None
    place = placement(model, facts, machine, used, drafter, projector)
    return need_at(model, facts, place, drafter, used, projector)


def known_need(
    model: Model,
    facts: WeightFacts | None,
    machine: Machine | None,
    drafter: WeightFacts | None = None,
    used: int = 0,
    projector: int = 0,
) -> Need | None:
    """Return the memory as `need`; None for a model that cannot be placed: its load reports the reason."""
    try:
        return need(model, facts, machine, drafter, used, projector)
    except Invalid:
        return None


def placement_problems(
    desired: Manifest, files: Mapping[str, KnownFiles], machine: Machine
) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted path, message, hint) for each model that this machine cannot place as declared."""
    for name, model in desired.models.items():
        known = files.get(model.from_)
        try:
            facts = known.facts if known else None
            place = placement(model, facts, machine)
            _check_split(model.gpu, place, machine)
            if _without_device(model.gpu, place):
                raise Invalid(f"gpu.layers {_NO_DEVICE}", hint=f"gpu.layers: auto; {known_devices(machine.gpus)}")
            pool_tokens(model, facts)
        except Invalid as error:
            field = next((f for f in _FIELDS if error.message.startswith(f)), "gpu")
            yield f"models.{name}.{field}", error.message.removeprefix(f"{field}: "), error.hint


_FIELDS = ("context.pool", "gpu.devices", "gpu.layers", "gpu.experts", "gpu.main", "gpu.split", "gpu.tensor_split")


def _check_split(gpu: Gpu, place: Placement, machine: Machine | None) -> None:
    """Raise `Invalid` for `split: tensor` without a device, as the engine does. `row` has no effect there."""
    if gpu.split == "tensor" and machine is not None and not place.devices:
        hint = f"gpu.split: layer; {known_devices(machine.gpus)}"
        raise Invalid("gpu.split is tensor, and the model has no device", hint=hint)


_NO_DEVICE = "puts layers on a device, and the model has none: all layers stay in main memory"


def _without_device(gpu: Gpu, place: Placement) -> bool:
    """Return True for layers that the manifest wants on a device, where the model has none."""
    wanted = gpu.layers.values() if isinstance(gpu.layers, dict) else (gpu.layers,)
    return not place.devices and any(count not in ("auto", 0) for count in wanted)


def layers_without_device(desired: Manifest, machine: Machine | None) -> str | None:
    """Return a sentence about the models whose layers this machine cannot put on a device; None without any."""
    if machine is None or any(not device.fault for device in machine.gpus):
        return None
    names = [name for name, model in desired.models.items() if _without_device(model.gpu, Placement())]
    if not names:
        return None
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"gpu.layers of {shown}: {known_devices(machine.gpus)}; all layers stay in main memory"


def need_at(
    model: Model,
    facts: WeightFacts | None,
    place: Placement,
    drafter: WeightFacts | None = None,
    used: int = 0,
    projector: int = 0,
) -> Need | None:
    """Return the memory at this placement; None if the header is not known. See `need`."""
    if facts is None:
        return None
    names = tuple(device.name for device in place.devices)
    shape = _shape(model.gpu, place)
    found = _need(facts, shape, context_shape(model, facts, used), names)
    if projector:
        found = _with_projector(found, projector, names[0] if place.layers and names else "")
    kind = draft_kind(model, facts)
    if kind == "mtp":
        return replace(found, context=found.context + _nextn_context(facts, drafting_shape(model, facts)))
    if drafter is None or kind != "model":
        return found
    beside = replace(shape, gpu_layers=-1 if place.layers else 0, tensor_split=(), experts=0)
    small = _need(drafter, beside, drafting_shape(model, facts), names)
    unused = 0 if place.layers else _unused_draft_cells(model, facts, drafter, used)
    return replace(found, context=found.context + small.total - unused, devices=_with_drafter(found, small))


def _with_projector(found: Need, projector: int, device: str) -> Need:
    """Return the memory with a projector, which is loaded on the first device of the model, "" for main memory."""
    on = {name: (weights, context) for name, weights, context in found.devices}
    if device:
        weights, context = on.get(device, (0, 0))
        on[device] = weights, context + projector
    devices = tuple((name, weights, context) for name, (weights, context) in on.items())
    return replace(found, context=found.context + projector, devices=devices)


def _with_drafter(found: Need, small: Need) -> tuple[tuple[str, int, int], ...]:
    """Return the devices with the draft model, which counts as a part of the context."""
    extra = {name: weights + context for name, weights, context in small.devices}
    mine = {name: (weights, context) for name, weights, context in found.devices}
    names = dict.fromkeys((*mine, *extra))
    return tuple((n, mine.get(n, (0, 0))[0], mine.get(n, (0, 0))[1] + extra.get(n, 0)) for n in names)


def kept_placement(old: Model, place: Placement, new: Model, machine: Machine | None) -> Placement | None:
    """Return the placement of a loaded model, if its next revision can keep it; None for a new choice.

    The choice of `auto` depends on the free memory, and the loaded model itself has a part of it: a change of a system
    prompt would load the weights again.
    """
    same = (old.gpu, old.memory, old.context, old.limits.parallel, old.task, old.mmproj, _drafter(old)) == (
        new.gpu, new.memory, new.context, new.limits.parallel, new.task, new.mmproj, _drafter(new),
    )  # fmt: skip
    try:
        usable = {device.address for device in usable_devices(new.gpu, machine)}
    except Invalid:
        return None
    return place if same and {device.address for device in place.devices} <= usable else None


def place_bounds(budget: Budget, machine: Machine | None) -> dict[str, int]:
    """Return the bytes that all models may use on each device, and in main memory by the name "".

    Empty for a machine without devices, whose `memory_bound` is all there is to know.
    """
    if machine is None or machine.ram_total == 0 or not machine.gpus:
        return {}
    devices = {d.name: device_bound(d, number, budget) for number, d in enumerate(machine.gpus) if d.total}
    return {"": main_memory_bound(budget, machine), **devices}


def main_memory_bound(budget: Budget, machine: Machine) -> int:
    """Return the bytes that all models may use of main memory."""
    ram = share_of(budget.ram, machine.ram_total)
    return max(0, (machine.ram_total if ram is None else ram) - budget.reserve)


def _nextn_context(facts: WeightFacts, shape: ContextShape) -> int:
    """Return the bytes of the layer that predicts a further token: a cache, its logits, and the model's states."""
    cells = shape.size * shape.parallel
    cache = cells * (facts.key_length + facts.value_length) * max(facts.kv_heads, default=0) * 2
    return cache + 4 * (2 * ROWS * facts.vocabulary + shape.batch * facts.embedding_length)


def drafting_shape(model: Model, facts: WeightFacts) -> ContextShape:
    """Return the context of the draft model of these weights: as long, for as many requests, in the worst case."""
    shape = requested_shape(model, facts)
    return replace(shape, pool=0, kv_k="f16", kv_v="f16", draft_tokens=0, sequences=shape.parallel, outputs=ROWS)


def _unused_draft_cells(model: Model, facts: WeightFacts, drafter: WeightFacts, used: int) -> int:
    """Return the bytes of the cache of a draft model that take no memory, see `speculation.model`.

    It reads the text of each request on its own, also what the requests share.
    """
    pool, shape = context_shape(model, facts, used).pool, drafting_shape(model, facts)
    if not pool or drafter.recurrent or drafter.window or model.context.flash_attention == "off":
        return 0
    read = pool + (shape.parallel - 1) * _declared_tokens(model, shape.size)
    worst = shape.size * shape.parallel
    whole, part = (sum(layer_bytes(drafter, replace(shape, pool=tokens))) for tokens in (worst, min(read, worst)))
    return whole - part


def _drafter(model: Model) -> str | None:
    return model.draft.source if model.draft else None


def drafter_facts(model: Model | None, files: Mapping[str, KnownFiles]) -> WeightFacts | None:
    """Return the facts of the draft model; None without one, or if they are not known."""
    source = _drafter(model) if model else None
    known = files.get(source) if source else None
    return known.facts if known else None


@lru_cache(maxsize=256)
def _need(facts: WeightFacts, shape: WeightsPlacement, context: ContextShape, names: tuple[str, ...]) -> Need:
    """Compute the memory; cached, because models of one manifest often share weights and shape."""
    found = memory_need(facts, shape, [context])
    devices = tuple(
        (name, gpu.weights, gpu.kv + gpu.compute) for name, gpu in zip(names, found.gpus, strict=False) if gpu.total
    )
    return Need(weights=found.weights, context=sum(found.contexts), devices=devices)


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
        parts = device_parts(model, self._files, self._machine) if model else {}
        return {part: sum(places.values()) for part, places in parts.items()}


def device_parts(
    model: Model, files: Mapping[str, KnownFiles], machine: Machine | None
) -> dict[object, dict[str, int]]:
    """Return the weights and the context of a model with their bytes on each device, "" for main memory.

    Models with an equal key share the part. Empty if the header is not known.
    """
    known = files.get(model.from_)
    if known is None:
        return {}
    beside = projector_memory(model, files)
    wanted = known_need(model, known.facts, machine, drafter_facts(model, files), known.used, beside)
    if wanted is None:
        return {}
    weights = (known.digest or model.from_, repr(model.gpu), repr(model.memory))
    context = (weights, *_context_key(model, known), beside)
    on_weights = {name: count for name, count, _ in wanted.devices}
    on_context = {name: count for name, _, count in wanted.devices}
    return {
        weights: {"": wanted.weights - sum(on_weights.values()), **on_weights},
        context: {"": wanted.context - sum(on_context.values()), **on_context},
    }


def _context_key(model: Model, known: KnownFiles) -> tuple[object, ...]:
    """Return what models with one context have in common. They may declare different prefixes."""
    asked = requested_shape(model, known.facts, known.used)
    return (asked, model.task, model.context.checkpoints, repr(model.adapters), repr(model.draft))


def stays(model: Model) -> bool:
    """True if the model is loaded at the start and has no idle time after which it is unloaded."""
    ttl = model.residency.ttl
    return model.residency.load == "at_start" and (ttl is None or ttl == math.inf)


def room_for_both(new: Need, *, heavy: bool, machine: Machine) -> bool:
    """True if the new context, with `heavy` also the new weights, fits into the free memory."""
    wanted = new.total if heavy else new.context
    free = machine.ram_available + sum(device.free for device in machine.gpus)
    return machine.ram_total == 0 or wanted <= free


def memory_bound(budget: Budget, machine: Machine | None) -> int | None:
    """Return the bytes that all models together may use, on all devices; None for a machine of unknown memory.

    This is the budget of the manifest, or the total memory without one; the reserve is subtracted.
    """
    if machine is None or machine.ram_total == 0:
        return None
    gpus = [device_bound(device, number, budget) for number, device in enumerate(machine.gpus)]
    return main_memory_bound(budget, machine) + sum(gpus)


def too_large(
    name: str,
    model: Model,
    facts: WeightFacts,
    budget: Budget,
    machine: Machine | None,
    drafter: WeightFacts | None = None,
    projector: int = 0,
) -> str | None:
    """Return the reason why the machine can never load a model, with a context size that fits; None if it can."""
    wanted, bound = need(model, facts, machine, drafter, projector=projector), memory_bound(budget, machine)
    if wanted is None or bound is None or wanted.total <= bound:
        return None
    shape, fields = context_shape(model, facts), "context.size"
    if isinstance(model.context.pool, int) and shape.pool:
        shape, fields = replace(shape, pool=shape.size), "context.size and a context.pool"
    fitting = largest_context(facts, WeightsPlacement(), shape, bound - projector)
    instead = f"a {fields} of {fitting} would fit" if fitting else "no context of any size would fit"
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
        beside = projector_memory(model, files)
        wanted = known_need(model, known.facts, machine, drafter_facts(model, files), known.used, beside)
        if wanted is None:
            continue
        counted.append(name)
        digest = known.digest or model.from_
        weights[digest] = max(wanted.weights, weights.get(digest, 0))
        key = (digest, *_context_key(model, known), beside)
        contexts[key] = max(wanted.context, contexts.get(key, 0))
    total = sum(weights.values()) + sum(contexts.values())
    if total <= bound:
        return None
    names = ", ".join(counted[:_NAMED]) + (f" and {len(counted) - _NAMED} more" if len(counted) > _NAMED else "")
    return (
        f"the models that stay loaded ({names}) need {size(total, digits=2)} and may use"
        f" {size(bound, digits=2)}: requests will unload one for another; set residency.load: on_demand,"
        " a residency.ttl or a smaller context"
    )
