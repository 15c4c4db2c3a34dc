"""llama-server's `/props` and `/slots`: the settings and the activity of a model."""

from __future__ import annotations

from collections.abc import Callable

from mullama.chat.inventory import Inventory, ListModels, ModelCard, ShowModel, Slot
from mullama.chat.media_marks import MEDIA_MARKER
from mullama.chat.types import DEFAULT_SAMPLING, CompletionRequest, Effective
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Operation, Reply, ReplyContext, StaticReply, WireRequest, fixed
from mullama.dialects.openai.native_form import generation_settings
from mullama.errors import Unavailable
from mullama.names import JSONValue


class ShowSlots(ShowModel, frozen=True, kw_only=True):
    """The slots of a model; with `must_be_free`, no free slot is an error."""

    must_be_free: bool = False


class ShowDefault(ListModels, frozen=True, kw_only=True):
    """The properties of the default model, or of the server where there is none."""


def decode_props(request: WireRequest) -> ShowModel | ShowDefault:
    name = request.query.get("model")
    return ShowModel(model=name) if name else ShowDefault()


def decode_slots(request: WireRequest) -> ShowSlots:
    free = request.query.get("fail_on_no_slot", "0") not in ("", "0", "false")
    return ShowSlots(model=request.query.get("model", ""), must_be_free=free)


def encode_props(context: ReplyContext[ShowModel | ShowDefault, ModelCard | Inventory]) -> Reply:
    """Return the properties of a model; of the server itself, in llama-server's router mode, for no model."""
    build, result = f"mullama {context.version}".strip(), context.result
    if isinstance(result, Inventory):
        default = next((card for card in result.models if card.is_default), None)
        return Reply(body=_router_props(build) if default is None else _model_props(default, build))
    return Reply(body=_model_props(result, build))


def _router_props(build: str) -> dict[str, JSONValue]:
    return {
        "role": "router",
        "max_instances": 0,  # llama-server's number for no limit; here memory is the limit
        "models_autoload": True,
        "model_alias": "mullama",
        "model_path": "none",
        "default_generation_settings": {"params": {}, "n_ctx": 0},
        "ui_settings": {},
        "build_info": build,
        "cors_proxy_enabled": False,
    }


def _model_props(card: ModelCard, build: str) -> dict[str, JSONValue]:
    request = CompletionRequest(model=card.name, prompts=())
    params = generation_settings(request, _effective(card), brief=True)
    return {
        "default_generation_settings": {"params": params, "n_ctx": card.context_size},
        "total_slots": max(1, card.parallel),
        "model_alias": card.name,
        "model_path": card.source,
        "model_ftype": card.quantization,
        "modalities": {
            "vision": "vision" in card.capabilities,
            "audio": "audio" in card.capabilities,
            "video": False,
        },
        **({"media_marker": MEDIA_MARKER} if {"vision", "audio"} & set(card.capabilities) else {}),
        "chat_template": card.template,
        "chat_template_caps": {
            "supports_tools": "tools" in card.capabilities,
            "supports_thinking": "thinking" in card.capabilities,
        },
        "bos_token": card.bos_text,
        "eos_token": card.eos_text,
        "build_info": build,
        "is_sleeping": not card.loaded,
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": True,
    }


def _effective(card: ModelCard) -> Effective:
    """Return the settings of a request that sets none."""
    return Effective(
        model=card.name,
        context_size=card.context_size,
        sampling=card.sampling or DEFAULT_SAMPLING,
        max_tokens=card.max_tokens,
        stop=card.stop,
        draft=card.draft,
    )


def encode_slots(context: ReplyContext[ShowSlots, ModelCard]) -> Reply:
    """Return one entry for each answer that can decode at once, with the request that has it or had it last."""
    card = context.result
    slots = card.slots or tuple(Slot(id=i, busy=i < card.active) for i in range(max(1, card.parallel)))
    if context.operation.must_be_free and (card.active >= len(slots) or all(slot.busy for slot in slots)):
        raise Unavailable("no slot available", retry_after=1.0)
    return Reply(body=[_slot(card, slot) for slot in slots])


def _slot(card: ModelCard, slot: Slot) -> dict[str, JSONValue]:
    """Return a slot as `server_slot::to_json`, without the texts of prompt and answer."""
    fixed: dict[str, JSONValue] = {
        "id": slot.id,
        "n_ctx": card.context_size,
        "speculative": bool(card.draft),
        "is_processing": slot.busy,
    }
    if slot.request is None or slot.effective is None:
        return fixed
    limit = slot.effective.max_tokens
    left = -1 if limit is None or limit < 0 or not slot.busy else limit - slot.generated
    return {
        **fixed,
        "id_task": slot.task,
        "n_prompt_tokens": slot.prompt_tokens + slot.generated,
        "n_prompt_tokens_processed": slot.prompt_tokens - slot.cached_tokens,
        "n_prompt_tokens_cache": slot.cached_tokens,
        "params": generation_settings(slot.request, slot.effective, brief=True),
        "next_token": [
            {"has_next_token": slot.busy, "has_new_line": False, "n_remain": left, "n_decoded": slot.generated}
        ],
    }


def unsupported(message: str) -> Callable[[WireRequest], Operation]:
    """Return the decoder of an endpoint that answers every request with 501 and the reason."""
    error: JSONValue = {
        "message": message,
        "type": "not_supported_error",
        "param": None,
        "code": "not_supported",
    }
    return fixed(StaticReply(reply=Reply(body={"error": error}, status=501)))


_NO_STATE = (
    "a slot has no state of its own to save, restore or erase: the requests of a model share the prompts in memory. "
    "Send a prompt again to continue it; its common prefix is not computed twice. residency.keep.conversations in the "
    "manifest keeps the states of conversations on disk"
)

ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/props",
        decode=decode_props,
        encode=encode_props,
        summary="Get the properties of a model (`?model=`)",
        response_schema=schema.record(
            "default_generation_settings model_path",
            default_generation_settings=schema.exact(params=schema.RECORD, n_ctx=schema.COUNT),
            total_slots=schema.COUNT,
            model_path=schema.STRING,
            chat_template=schema.STRING,
        ),
    ),
    Endpoint(
        method="POST",
        path="/props",
        decode=unsupported("settings are declared in the manifest: edit it and apply"),
        access="admin",
        summary="Not supported; returns the reason",
    ),
    Endpoint(
        method="GET",
        path="/slots",
        decode=decode_slots,
        encode=encode_slots,
        summary="Get the state of a model's slots (`?model=`)",
        response_schema=schema.listed(
            schema.record(
                "id n_ctx is_processing",
                id=schema.COUNT,
                n_ctx=schema.COUNT,
                is_processing=schema.BOOLEAN,
                params=schema.RECORD,
            )
        ),
    ),
    Endpoint(
        method="POST",
        path="/slots/{slot}",
        decode=unsupported(_NO_STATE),
        summary="Not supported; returns the reason",
    ),
)
