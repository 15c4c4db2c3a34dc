"""llama-server's `/lora-adapters`: the adapters of a model, whose default scales the manifest declares."""

from __future__ import annotations

from mullama.chat.inventory import ModelCard, ShowModel
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.openai.native_form import SCALES_SCHEMA, scales_of
from mullama.errors import Invalid, Unsupported


class SetAdapters(ShowModel, frozen=True, kw_only=True):
    """Scales for the adapters of a model; an adapter that is not listed has the scale 0."""

    scales: tuple[tuple[int | str, float], ...]


def decode_list(request: WireRequest) -> ShowModel:
    return ShowModel(model=request.query.get("model", ""))


def encode_list(context: ReplyContext[ShowModel, ModelCard]) -> Reply:
    return Reply(
        body=[
            {
                "id": id,
                "name": adapter.name,
                "path": adapter.source,
                "scale": adapter.scale,
                "task_name": "",
                "prompt_prefix": "",
            }
            for id, adapter in enumerate(context.result.adapters)
        ]
    )


def decode_set(request: WireRequest) -> SetAdapters:
    return SetAdapters(model=request.query.get("model", ""), scales=scales_of(request.body, "the body"))


def encode_set(context: ReplyContext[SetAdapters, ModelCard]) -> Reply:
    """Accept the declared scales; refuse others, which only a change of the manifest can set."""
    asked = dict(context.operation.scales)
    adapters = context.result.adapters
    known = {*range(len(adapters)), *(adapter.name for adapter in adapters if adapter.name)}
    if unknown := [id for id in asked if id not in known]:
        listed = ", ".join(f"{id} ({a.name})" if a.name else str(id) for id, a in enumerate(adapters))
        raise Invalid(
            f'the model "{context.result.name}" has no adapter {unknown[0]!r}',
            hint=f"its adapters are {listed}" if adapters else "it has no adapters",
            field="id",
        )
    declared = [adapter.scale for adapter in adapters]
    if [asked.get(id, asked.get(adapter.name, 0.0)) for id, adapter in enumerate(adapters)] != declared:
        raise Unsupported(
            f'the manifest declares the scales {declared} for the adapters of "{context.result.name}"',
            hint="state `lora` in the request, or change adapters.*.scale and apply: the model stays loaded",
        )
    return Reply(body={"success": True})


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/lora-adapters",
        decode=decode_list,
        encode=encode_list,
        summary="List the LoRA adapters of a model (`?model=`)",
        response_schema=schema.listed(
            schema.record(
                "id name path scale", id=schema.COUNT, name=schema.STRING, path=schema.STRING, scale=schema.NUMBER
            )
        ),
    ),
    Endpoint(
        method="POST",
        path="/lora-adapters",
        decode=decode_set,
        encode=encode_set,
        access="admin",
        summary="Confirm the declared scales of the LoRA adapters; other scales are refused",
        request_schema=SCALES_SCHEMA,
        response_schema=schema.exact(success=schema.BOOLEAN),
    ),
)
