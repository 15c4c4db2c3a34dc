"""Ollama's inventory: `/api/tags`, `/api/ps`, `/api/show`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mullama.chat import inventory
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest, fixed
from mullama.dialects.reply_values import rfc3339
from mullama.dialects.tools import compact
from mullama.names import JSONValue
from mullama.struct import field, replace

_NAME = fields.MODEL.named("name")
_VERBOSE = fields.flag("verbose")
_SYSTEM = fields.text("system")
_OPTIONS = fields.record("options")
_LONGEST_ARRAY = 5
_HIDDEN = ("general.name", "tokenizer.chat_template")


def _details(card: inventory.ModelCard) -> dict[str, JSONValue]:
    return {
        "parent_model": card.parent,
        "format": "gguf",
        "family": card.family,
        "families": list(card.families) or ([card.family] if card.family else []),
        "parameter_size": card.parameter_size,
        "quantization_level": card.quantization,
        "context_length": card.train_context or card.context_size,
        "embedding_length": card.embedding_length,
    }


def _tag(card: inventory.ModelCard) -> dict[str, JSONValue]:
    return {
        "name": card.name,
        "model": card.name,
        "modified_at": rfc3339(card.modified),
        "size": card.size,
        "digest": card.digest.removeprefix("sha256:"),
        "details": _details(card),
        "capabilities": list(card.capabilities),
    }


def _running(card: inventory.ModelCard) -> dict[str, JSONValue]:
    return {
        "name": card.name,
        "model": card.name,
        "size": card.memory or card.size,
        "digest": card.digest.removeprefix("sha256:"),
        "details": _details(card),
        "expires_at": rfc3339(math.inf if card.expires is None else card.expires),
        "size_vram": card.memory_gpu,
        "context_length": card.context_size,
    }


def _plain(value: JSONValue, complete: bool) -> JSONValue:
    """Return a metadata value without numbers that are not finite and, unless `complete`, without long arrays."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_plain(v, complete) for v in value] if complete or len(value) <= _LONGEST_ARRAY else []
    return value


def _metadata(card: inventory.ModelCard, verbose: bool) -> dict[str, JSONValue]:
    """Return the metadata of the file, with the keys that every client reads even if the file lacks them."""
    defaults: dict[str, JSONValue] = {
        "general.architecture": card.family,
        "general.parameter_count": card.parameter_count,
        f"{card.family or 'general'}.context_length": card.train_context or card.context_size,
        f"{card.family or 'general'}.embedding_length": card.embedding_length,
    }
    return {**defaults, **_keys(card.metadata, verbose)}


def _keys(metadata: Mapping[str, JSONValue], verbose: bool) -> dict[str, JSONValue]:
    return {k: _plain(v, verbose) for k, v in metadata.items() if k not in _HIDDEN}


def _parameter_lines(parameters: tuple[tuple[str, JSONValue], ...]) -> str:
    """Return one line for each value, with the keys padded to one column."""
    lines: list[str] = []
    for key, value in parameters:
        values = value if isinstance(value, list | tuple) else (value,)
        lines += [f"{key:<30} {compact(v)}" for v in values]
    return "\n".join(lines)


def _thinking(card: inventory.ModelCard) -> dict[str, JSONValue]:
    levels = list(card.thinking_levels)
    return {"thinking": {"values": levels, "default": levels[0]}} if levels else {}


def _show(card: inventory.ModelCard, verbose: bool) -> dict[str, JSONValue]:
    tensors: list[JSONValue] = [
        {"name": name, "type": kind, "shape": list(shape)} for name, kind, shape in card.tensors
    ]
    messages: list[JSONValue] = [{"role": m.role, "content": m.text} for m in card.messages]
    return {
        "license": card.license,
        "modelfile": card.modelfile,
        "parameters": _parameter_lines(card.parameters),
        "template": card.template,
        "template_source": card.template_source,
        "system": card.system,
        "details": _details(card),
        **({"messages": messages} if messages else {}),
        "model_info": _metadata(card, verbose),
        **({"projector_info": _keys(card.projector_metadata, verbose)} if card.projector_metadata else {}),
        **({"tensors": tensors} if verbose else {}),
        "capabilities": list(card.capabilities),
        **_thinking(card),
        "modified_at": rfc3339(card.modified),
    }


class ShowCall(inventory.ShowModel, frozen=True, kw_only=True):
    """Shows a model with another system prompt and other parameters."""

    system: str | None = None
    options: Mapping[str, JSONValue] = field(default_factory=dict)


def decode_show(request: WireRequest) -> ShowCall:
    body = fields.body_of(request.body)
    return ShowCall(
        model=body.first(fields.MODEL, _NAME) or "",
        verbose=body.get(_VERBOSE) or False,
        headers=True,
        system=body.get(_SYSTEM),
        options=body.get(_OPTIONS) or {},
    )


def encode_show(context: ReplyContext[ShowCall, inventory.ModelCard]) -> Reply:
    parameters = tuple({**dict(context.result.parameters), **context.operation.options}.items())
    system = context.result.system if context.operation.system is None else context.operation.system
    return Reply(body=_show(replace(context.result, system=system, parameters=parameters), context.operation.verbose))


def encode_tags(context: ReplyContext[inventory.ListModels, inventory.Inventory]) -> Reply:
    return Reply(body={"models": [_tag(card) for card in context.result.models]})


def encode_running(context: ReplyContext[inventory.ListRunning, inventory.Inventory]) -> Reply:
    """Return the running models, the one that expires last first."""
    stay = sorted(context.result.models, key=lambda c: math.inf if c.expires is None else c.expires, reverse=True)
    return Reply(body={"models": [_running(card) for card in stay]})


_DETAILS_SCHEMA = schema.exact(
    parent_model=schema.STRING,
    format=schema.STRING,
    family=schema.STRING,
    families=schema.listed(schema.STRING),
    parameter_size=schema.STRING,
    quantization_level=schema.STRING,
    context_length=schema.COUNT,
    embedding_length=schema.COUNT,
)
_ENTRY: Mapping[str, schema.Schema] = {
    "name": schema.STRING,
    "model": schema.STRING,
    "size": schema.COUNT,
    "digest": schema.STRING,
    "details": _DETAILS_SCHEMA,
}
_TAGS_SCHEMA = schema.exact(
    models=schema.listed(schema.exact(**_ENTRY, modified_at=schema.TIME, capabilities=schema.listed(schema.STRING)))
)
_PS_SCHEMA = schema.exact(
    models=schema.listed(
        schema.exact(
            **_ENTRY,
            expires_at=schema.TIME,
            size_vram=schema.COUNT,
            context_length=schema.COUNT,
        )
    )
)
_SHOW_SCHEMA = schema.record(
    "details model_info capabilities modified_at template parameters system license modelfile",
    license=schema.STRING,
    modelfile=schema.STRING,
    parameters=schema.STRING,
    template=schema.STRING,
    template_source=schema.STRING,
    system=schema.STRING,
    details=_DETAILS_SCHEMA,
    model_info=schema.RECORD,
    projector_info=schema.RECORD,
    capabilities=schema.listed(schema.STRING),
    modified_at=schema.TIME,
)

ENDPOINTS = (
    *(
        Endpoint(
            method=method,
            path="/api/tags",
            decode=fixed(inventory.ListModels()),
            encode=encode_tags,
            summary="List the models",
            response_schema=_TAGS_SCHEMA,
        )
        for method in ("GET", "HEAD")
    ),
    Endpoint(
        method="GET",
        path="/api/ps",
        decode=fixed(inventory.ListRunning()),
        encode=encode_running,
        summary="List the loaded models",
        response_schema=_PS_SCHEMA,
    ),
    Endpoint(
        method="POST",
        path="/api/show",
        decode=decode_show,
        encode=encode_show,
        summary="Show a model",
        request_schema=fields.request_schema(fields.MODEL, _NAME, _VERBOSE, _SYSTEM, _OPTIONS),
        response_schema=_SHOW_SCHEMA,
    ),
)
