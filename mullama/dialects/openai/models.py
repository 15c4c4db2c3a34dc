"""OpenAI's `/v1/models`: the available models, with the context size under every name that clients read."""

from __future__ import annotations

from mullama.chat.inventory import Inventory, ListModels, ModelCard, ShowModel
from mullama.chat.media import ABILITIES
from mullama.dialects import schema
from mullama.dialects.base import Reply, ReplyContext, WireRequest
from mullama.names import JSONValue

# llama-server's words for the state of a model. A request loads an "unloaded" one.
_STATUS = {"ready": "loaded", "opening": "loading"}


def status_of(state: str, loaded: bool = False) -> str:
    """Return llama-server's word for a state of a model."""
    return _STATUS.get(state, "loaded" if loaded else "unloaded")


def model(card: ModelCard) -> dict[str, JSONValue]:
    """Return one model, with its context size under every name."""
    media = [name for name, ability in ABILITIES.items() if ability in card.capabilities]
    return {
        "id": card.name,
        "object": "model",
        "created": int(card.modified),
        "owned_by": "mullama",
        **({"parent": card.parent} if card.parent else {}),
        "context_length": card.context_size,
        "context_window": card.context_size,
        "max_model_len": card.context_size,
        "max_context_length": card.context_size,
        "capabilities": list(card.capabilities),
        "aliases": [] if card.route_of else list(card.aliases),
        "tags": [],
        "status": {"value": status_of(card.state, card.loaded)},
        "architecture": {
            "input_modalities": ["text", *media],
            "output_modalities": ["text"],
        },
        "meta": {
            "n_ctx": card.context_size,
            "n_ctx_train": card.train_context,
            "n_vocab": card.vocabulary,
            "n_embd": card.embedding_length,
            "n_params": card.parameter_count,
            "size": card.size,
            "ftype": card.quantization,
        },
    }


def decode_one(request: WireRequest) -> ShowModel:
    """Decode the id, which may contain slashes and colons."""
    return ShowModel(model=request.path.get("id", ""))


def encode_list(context: ReplyContext[ListModels, Inventory]) -> Reply:
    return Reply(body={"object": "list", "data": [model(card) for card in context.result.models]})


def encode_models(context: ReplyContext[ListModels, Inventory]) -> Reply:
    """Return one entry for each model, with its routes as `aliases`: llama-server's list."""
    own = [model(card) for card in context.result.models if not card.route_of]
    return Reply(body={"object": "list", "data": own})


def encode_one(context: ReplyContext[ShowModel, ModelCard]) -> Reply:
    """Return the model under the requested name, which may be a route to it."""
    return Reply(body={**model(context.result), "id": context.operation.model})


MODEL_SCHEMA = schema.record(
    "id object created owned_by",
    id=schema.STRING,
    object=schema.constant("model"),
    created=schema.COUNT,
    owned_by=schema.STRING,
    context_length=schema.COUNT,
    meta=schema.RECORD,
)
LIST_SCHEMA = schema.exact(object=schema.constant("list"), data=schema.listed(MODEL_SCHEMA))
