"""LM Studio's `/api/v0`: its list of models, and OpenAI's endpoints under that path."""

from __future__ import annotations

from mullama.chat.inventory import Inventory, ListModels, ModelCard, ShowModel
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, fixed
from mullama.dialects.openai import models
from mullama.names import JSONValue
from mullama.struct import replace


def model(card: ModelCard) -> dict[str, JSONValue]:
    """Return one model in LM Studio's words."""
    loaded = models.status_of(card.state, card.loaded) == "loaded"
    return {
        "id": card.name,
        "object": "model",
        "type": _type(card),
        "publisher": _publisher(card.source),
        "arch": card.family,
        "compatibility_type": "gguf",
        "quantization": card.quantization,
        "state": "loaded" if loaded else "not-loaded",
        "max_context_length": card.train_context or card.context_size,
        **({"loaded_context_length": card.context_size} if loaded else {}),
        "capabilities": ["tool_use"] if "tools" in card.capabilities else [],
    }


def _type(card: ModelCard) -> str:
    if "embedding" in card.capabilities and "completion" not in card.capabilities:
        return "embeddings"
    return "vlm" if "vision" in card.capabilities else "llm"


def _publisher(source: str) -> str:
    """Return the owner of a repository; the project for other sources."""
    scheme, _, rest = source.partition(":")
    owner, slash, _ = rest.partition("/")
    return owner if scheme == "hf" and slash else "mullama"


def encode_list(context: ReplyContext[ListModels, Inventory]) -> Reply:
    return Reply(body={"object": "list", "data": [model(card) for card in context.result.models]})


def encode_one(context: ReplyContext[ShowModel, ModelCard]) -> Reply:
    """Return the model under the requested name, which may be a route to it."""
    return Reply(body={**model(context.result), "id": context.operation.model})


_MODEL = schema.record(
    "id object type state",
    id=schema.STRING,
    object=schema.constant("model"),
    type=schema.STRING,
    state=schema.STRING,
    max_context_length=schema.COUNT,
)


def endpoints(*same: Endpoint) -> tuple[Endpoint, ...]:
    """Return the endpoints of LM Studio. same: OpenAI's endpoints that it has with equal bodies."""
    return (
        Endpoint(
            method="GET",
            path="/api/v0/models",
            decode=fixed(ListModels()),
            encode=encode_list,
            summary="List the models in LM Studio's form",
            response_schema=schema.exact(object=schema.constant("list"), data=schema.listed(_MODEL)),
        ),
        Endpoint(
            method="GET",
            path="/api/v0/models/{id:path}",
            decode=models.decode_one,
            encode=encode_one,
            summary="Get a model in LM Studio's form",
            response_schema=_MODEL,
        ),
        *(replace(endpoint, path=endpoint.path.replace("/v1/", "/api/v0/", 1)) for endpoint in same),
    )
