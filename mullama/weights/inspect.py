"""Checks the headers of all parts of a set of weights, and returns their facts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from mullama.errors import BadWeights
from mullama.names import JSONValue
from mullama.struct import replace
from mullama.weights import architectures as known
from mullama.weights import check
from mullama.weights.experts import holds_experts
from mullama.weights.facts import Capability, Experts, LayerFacts, Role, RopeFacts, SpecialToken, WeightFacts
from mullama.weights.gguf import Array, Header, Read, Value, read_header
from mullama.weights.keys import Keys
from mullama.weights.kv_cache import Geometry, layer_caches, window
from mullama.weights.projector.abilities import projector_facts
from mullama.weights.tensors import FILE_TYPES, Tensor
from mullama.weights.vocabulary import check_vocabulary

MAX_SHOWN: Final = 64
_TEMPLATE: Final = "tokenizer.chat_template"
_TOOLS: Final = re.compile(r"\btools\b|\btool_calls\b")
_THINKS: Final = re.compile(
    r"</?think>|enable_thinking|reasoning_content|\bthinking\b|\[/?THINK\]|<\|channel\|?>|<seed:think>"
)
_INPUT: Final = ("token_embd.", "token_embd_norm.", "token_types.", "position_embd.", "per_layer_token_embd.")


def inspect(parts: Sequence[tuple[Read, int]]) -> WeightFacts:
    """Return the facts of an ordered set of files; each part is (read, size).

    Raises `BadWeights` for a file that native code must not read, with the key or tensor and the numbers.
    """
    return describe([read_header(read, size) for read, size in parts])


def describe(headers: Sequence[Header]) -> WeightFacts:
    """Return the facts of a set of files by their headers, as `inspect` does."""
    first = headers[0]
    tensors = _joined(headers)
    architecture = first.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise BadWeights("key general.architecture is missing", hint="the file is not a model")
    keys = Keys(first.metadata, architecture)
    kind = keys.text("general.type", "model")
    size = sum(header.size for header in headers)
    if architecture == known.PROJECTOR or kind == "mmproj":
        return _companion(keys, "projector", tensors, size)
    if kind == "adapter":
        return _companion(keys, "adapter", tensors, size)
    if kind != "model":
        raise BadWeights(f"key general.type is {kind!r}: this file is not a model")
    return _model(keys, tensors, size, len(headers))


def _joined(headers: Sequence[Header]) -> tuple[Tensor, ...]:
    """Return the tensors of all parts; raise `BadWeights` for parts of different sets."""
    first = Keys(headers[0].metadata, "")
    count = first.integer("split.count", 0)
    if max(count, 1) != len(headers):
        raise BadWeights(
            f"the first file says it is one of {max(count, 1)} parts, {len(headers)} were given",
            hint="a split model needs all of its parts, in order",
        )
    names: set[str] = set()
    for number, header in enumerate(headers):
        keys = Keys(header.metadata, "")
        if count and (keys.integer("split.no", 0), keys.integer("split.count", 0)) != (number, count):
            raise BadWeights(f"file {number + 1} of the set is not part {number + 1} of {count}")
        for tensor in header.tensors:
            if tensor.name in names:
                raise BadWeights(f"tensor {tensor.name} is in two parts of the set")
            names.add(tensor.name)
    wanted = first.integer("split.tensors.count", len(names))
    if wanted != len(names):
        raise BadWeights(f"the parts hold {len(names)} tensors, the first one announces {wanted}")
    return tuple(replace(tensor, part=number) for number, header in enumerate(headers) for tensor in header.tensors)


def _companion(keys: Keys, role: Role, tensors: tuple[Tensor, ...], size: int) -> WeightFacts:
    """Return the facts of a projector or an adapter, which has no vocabulary and no dimensions of its own."""
    if not tensors:
        raise BadWeights("the file holds no tensors")
    for tensor in tensors:
        if role == "adapter":
            check.check_type(tensor)
    if role == "adapter" and keys.text("adapter.type") != "lora":
        raise BadWeights(f"key adapter.type is {keys.text('adapter.type')!r}", hint="only LoRA adapters can be used")
    return WeightFacts(
        role=role, architecture=keys.architecture, name=keys.text("general.name"),
        quantization=_quantization(keys, tensors), parameter_count=sum(t.elements for t in tensors),
        size_bytes=size, layers=0, embedding_length=0, train_context=0, vocabulary=0, control=(),
        license=keys.text("general.license"), metadata=_plain(keys.all()), tensors=tensors,
        projector=projector_facts(keys, tensors) if role == "projector" else None,
    )  # fmt: skip


def _model(keys: Keys, tensors: tuple[Tensor, ...], size: int, parts: int) -> WeightFacts:
    check.check_architecture(keys.architecture)
    shape = check.check_geometry(keys)
    vocabulary, special, control = check_vocabulary(keys)
    templates = _templates(keys)
    check.check_templates(keys, templates)
    check.check_tensors(tensors, layers=shape.layers, vocabulary=vocabulary)
    pooling = check.POOLING[keys.integer("{}.pooling_type")] if keys.has("{}.pooling_type") else ""
    template = keys.text(_TEMPLATE)
    layers, input_bytes, output_bytes = _weighed(keys, shape, tensors)
    return WeightFacts(
        architecture=keys.architecture, name=keys.text("general.name") or keys.text("general.basename"),
        quantization=_quantization(keys, tensors), parameter_count=sum(t.elements for t in tensors),
        size_bytes=size, layers=shape.layers, embedding_length=shape.width, heads=_same(shape.heads),
        kv_heads=_same(shape.kv_heads), key_length=shape.key_length, value_length=shape.value_length,
        feed_forward=_same(shape.feed_forward), train_context=keys.integer("{}.context_length"),
        vocabulary=vocabulary, tokenizer=keys.text("tokenizer.ggml.model"),
        pre_tokenizer=keys.text("tokenizer.ggml.pre"), add_bos=keys.flag("tokenizer.ggml.add_bos_token"),
        add_eos=keys.flag("tokenizer.ggml.add_eos_token"), template=template, templates=templates,
        special=special, control=control, window=window(keys),
        cached=keys.architecture not in known.NO_CACHE, pooling=pooling,
        causal=keys.flag("{}.attention.causal") is not False, rope=_rope(keys, shape),
        experts=Experts(
            count=keys.integer("{}.expert_count", 0), shared=keys.integer("{}.expert_shared_count", 0),
            used=max(keys.per_layer("{}.expert_used_count", shape.layers, 0)),
            feed_forward=max(keys.per_layer("{}.expert_feed_forward_length", shape.layers, 0)),
        ),
        parts=parts, license=keys.text("general.license"),
        capabilities=_capabilities(keys.architecture, pooling, template, templates, special),
        drafting_layers=shape.layers - shape.trunk, per_layer=layers,
        input_bytes=input_bytes, output_bytes=output_bytes,
        tied=not any(tensor.name == "output.weight" for tensor in tensors),
        metadata=_plain(keys.all()), tensors=tensors,
    )  # fmt: skip


def _weighed(keys: Keys, shape: Geometry, tensors: tuple[Tensor, ...]) -> tuple[tuple[LayerFacts, ...], int, int]:
    """Return the facts of each layer, the bytes of the input tensors and those of the output tensors."""
    weights, experts = [0] * shape.layers, [0] * shape.layers
    input_bytes = output_bytes = 0
    for tensor in tensors:
        if tensor.layer is not None:
            weights[tensor.layer] += tensor.bytes
            experts[tensor.layer] += tensor.bytes if holds_experts(tensor.name) else 0
        elif tensor.name.startswith(_INPUT):
            input_bytes += tensor.bytes
        else:
            output_bytes += tensor.bytes
    caches = layer_caches(keys, shape)
    layers = tuple(
        LayerFacts(weights=w, experts=e, key=c.key, value=c.value, index=c.index, slides=c.slides, state=c.state)
        for w, e, c in zip(weights, experts, caches, strict=True)
    )
    return layers, input_bytes, output_bytes


def _templates(keys: Keys) -> tuple[tuple[str, str], ...]:
    """Return the named chat templates, `tokenizer.chat_template.NAME`."""
    prefix = f"{_TEMPLATE}."
    return tuple(
        (key.removeprefix(prefix), keys.text(key.replace("{", "{{").replace("}", "}}")))
        for key in sorted(keys.all())
        if key.startswith(prefix)
    )


def _quantization(keys: Keys, tensors: tuple[Tensor, ...]) -> str:
    if keys.has("general.file_type"):
        number = keys.integer("general.file_type") & ~1024
        if number in FILE_TYPES:
            return FILE_TYPES[number]
    bytes_by_type: Counter[str] = Counter()
    for tensor in tensors:
        bytes_by_type[tensor.type] += tensor.bytes
    return bytes_by_type.most_common(1)[0][0]


def _rope(keys: Keys, shape: Geometry) -> RopeFacts:
    return RopeFacts(
        dimensions=keys.integer("{}.rope.dimension_count", shape.key_length),
        base=keys.real("{}.rope.freq_base", 10000.0),
        scaling=keys.text("{}.rope.scaling.type"),
        factor=keys.real("{}.rope.scaling.factor", keys.real("{}.rope.scale_linear", 1.0)),
        original_context=keys.integer("{}.rope.scaling.original_context_length", 0),
    )


def _capabilities(
    architecture: str, pooling: str, template: str, templates: tuple[tuple[str, str], ...],
    special: tuple[SpecialToken, ...],
) -> tuple[Capability, ...]:  # fmt: skip
    if pooling == "rank":
        return ("rerank",)
    if architecture in known.EMBEDDING or pooling in ("mean", "cls", "last"):
        return ("embedding",)
    found: list[Capability] = ["completion"]
    texts = "\n".join((template, *(text for _, text in templates)))
    if _TOOLS.search(texts):
        found.append("tools")
    if _THINKS.search(texts):
        found.append("thinking")
    if {"fim_pre", "fim_suf", "fim_mid"} <= {token.role for token in special}:
        found.append("insert")
    return tuple(found)


def _same(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return one number for layers with the same number."""
    return numbers[:1] if len(set(numbers)) == 1 else numbers


def _plain(metadata: Mapping[str, Value]) -> dict[str, JSONValue]:
    return {key: _shown(value) for key, value in metadata.items()}


def _shown(value: Value) -> JSONValue:
    if not isinstance(value, Array):
        return value if not isinstance(value, float) or math.isfinite(value) else str(value)
    if value.count > MAX_SHOWN:
        return {"array": value.kind, "length": value.count}
    if value.kind == "string":
        return [element.decode(errors="replace") for element in value.strings()]
    return [_shown(number) for number in value.numbers()]
