"""llama-server's `/props` and `/slots`: the settings and the activity of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mullama.chat.inventory import ModelCard, ShowModel
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Operation, Reply, ReplyContext, StaticReply, WireRequest, fixed
from mullama.errors import Busy
from mullama.names import JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowSlots(ShowModel):
    """The slots of a model; with `must_be_free`, no free slot is an error."""

    must_be_free: bool = False


def decode_props(request: WireRequest) -> ShowModel:
    return ShowModel(model=request.query.get("model", ""))


def decode_slots(request: WireRequest) -> ShowSlots:
    free = request.query.get("fail_on_no_slot", "0") not in ("", "0", "false")
    return ShowSlots(model=request.query.get("model", ""), must_be_free=free)


def encode_props(context: ReplyContext[ShowModel, ModelCard]) -> Reply:
    card = context.result
    params: dict[str, JSONValue] = dict(card.parameters)
    return Reply(
        body={
            "default_generation_settings": {"params": params, "n_ctx": card.context_size},
            "total_slots": max(1, card.parallel),
            "model_alias": card.name,
            "model_path": card.source,
            "model_ftype": card.quantization,
            "modalities": {
                "vision": "vision" in card.capabilities,
                "audio": False,
                "video": False,
            },
            "chat_template": card.template,
            "chat_template_caps": {
                "supports_tools": "tools" in card.capabilities,
                "supports_thinking": "thinking" in card.capabilities,
            },
            "bos_token": card.bos_text,
            "eos_token": card.eos_text,
            "build_info": f"mullama {context.version}".strip(),
            "is_sleeping": not card.loaded,
            "endpoint_slots": True,
            "endpoint_props": False,
            "endpoint_metrics": True,
        }
    )


def encode_slots(context: ReplyContext[ShowSlots, ModelCard]) -> Reply:
    """Return one entry for each request that can decode at once; the busy ones are first."""
    card = context.result
    slots = max(1, card.parallel)
    if context.operation.must_be_free and card.active >= slots:
        raise Busy("no slot available", retry_after=1.0)
    return Reply(body=[{"id": i, "n_ctx": card.context_size, "is_processing": i < card.active} for i in range(slots)])


def _unsupported(message: str) -> Callable[[WireRequest], Operation]:
    error: JSONValue = {
        "message": message,
        "type": "not_supported_error",
        "param": None,
        "code": "not_supported",
    }
    return fixed(StaticReply(reply=Reply(body={"error": error}, status=501)))


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/props",
        decode=decode_props,
        encode=encode_props,
        summary="Get the properties of a model (`?model=`)",
        response_schema=schema.record(
            "default_generation_settings total_slots model_path chat_template",
            default_generation_settings=schema.exact(params=schema.RECORD, n_ctx=schema.COUNT),
            total_slots=schema.COUNT,
            model_path=schema.STRING,
            chat_template=schema.STRING,
        ),
    ),
    Endpoint(
        method="POST",
        path="/props",
        decode=_unsupported("settings are declared in the manifest: edit it and apply"),
        access="admin",
        summary="Not supported; returns the reason",
    ),
    Endpoint(
        method="GET",
        path="/slots",
        decode=decode_slots,
        encode=encode_slots,
        summary="Get the state of a model's slots (`?model=`)",
        response_schema=schema.listed(schema.exact(id=schema.COUNT, n_ctx=schema.COUNT, is_processing=schema.BOOLEAN)),
    ),
    Endpoint(
        method="POST",
        path="/slots/{slot}",
        decode=_unsupported("slots cannot be saved: common prefixes of prompts are kept without it"),
        summary="Not supported; returns the reason",
    ),
)
