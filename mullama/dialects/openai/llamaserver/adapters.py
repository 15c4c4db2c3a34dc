"""llama-server's `/lora-adapters`: the adapters of a model with their default scales."""

from __future__ import annotations

from mullama.chat.inventory import Done, ModelCard, SetAdapterScales, ShowModel
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.openai.native_form import SCALES_SCHEMA, scales_of


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


def decode_set(request: WireRequest) -> SetAdapterScales:
    return SetAdapterScales(model=request.query.get("model", ""), scales=scales_of(request.body, "the body"))


def encode_set(context: ReplyContext[SetAdapterScales, Done]) -> Reply:
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
        summary="Set the default scales of the LoRA adapters of a model beside the manifest (`?model=`)",
        request_schema=SCALES_SCHEMA,
        response_schema=schema.exact(success=schema.BOOLEAN),
    ),
)
