"""Ollama's `/api/embed`, and the older `/api/embeddings`."""

from __future__ import annotations

from mullama.chat.inventory import Loaded, LoadModel
from mullama.chat.types import EmbedRequest, Vectors
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.inputs import INPUT_SCHEMA, check_filled, finite_vectors, inputs_of
from mullama.dialects.ollama.generate import PROMPT
from mullama.dialects.ollama.options import OPTIONS, read_options
from mullama.dialects.reply_values import nanoseconds
from mullama.dialects.sampling import KEEP_ALIVE
from mullama.errors import Invalid

_TRUNCATE = fields.flag("truncate")
DIMENSIONS = fields.integer("dimensions", 0, 2**20)


def decode(request: WireRequest) -> EmbedRequest | LoadModel:
    """Decode inputs to embed; without inputs, a load of the model."""
    body = fields.body_of(request.body)
    model = fields.model_named(body)
    read_options(body)
    try:
        inputs = inputs_of(body.raw("input"), "input")
    except Invalid as error:
        raise Invalid(f"invalid input type: {error.message}", field=error.field) from error
    if inputs in ((), ("",)) and not body.raw("input"):
        return LoadModel(model=model, keep_alive=body.get(KEEP_ALIVE))
    check_filled(inputs, "input", body.raw("input"))
    truncate = body.get(_TRUNCATE)
    return EmbedRequest(
        model=model,
        inputs=inputs,
        dimensions=body.get(DIMENSIONS) or None,
        truncate=True if truncate is None else truncate,
        keep_alive=body.get(KEEP_ALIVE),
    )


def encode(context: ReplyContext[EmbedRequest | LoadModel, Vectors | Loaded]) -> Reply:
    if isinstance(context.operation, LoadModel) or isinstance(context.result, Loaded):
        return Reply(body={"model": context.operation.model, "embeddings": []})
    return Reply(
        body={
            "model": context.operation.model,
            "embeddings": finite_vectors(context.result, context.operation),
            "total_duration": nanoseconds(context.result.timings.total),
            "load_duration": nanoseconds(context.result.timings.load),
            "prompt_eval_count": context.result.usage.prompt_tokens,
        }
    )


def decode_old(request: WireRequest) -> EmbedRequest | LoadModel:
    """Decode one prompt, whose vector is not normalized; without it, a load of the model."""
    body = fields.body_of(request.body)
    model = fields.model_named(body)
    read_options(body)
    prompt = body.get(PROMPT)
    if not prompt:
        return LoadModel(model=model, keep_alive=body.get(KEEP_ALIVE))
    return EmbedRequest(model=model, inputs=(prompt,), place="prompt", normalize=False, keep_alive=body.get(KEEP_ALIVE))


def encode_old(context: ReplyContext[EmbedRequest | LoadModel, Vectors | Loaded]) -> Reply:
    if isinstance(context.operation, LoadModel) or isinstance(context.result, Loaded):
        return Reply(body={"embedding": []})
    (vector,) = finite_vectors(context.result, context.operation)
    return Reply(body={"embedding": vector})


_VECTOR = schema.listed(schema.NUMBER)
REQUEST_SCHEMA = schema.joined(
    fields.request_schema(fields.MODEL, _TRUNCATE, DIMENSIONS, KEEP_ALIVE, OPTIONS),
    schema.record(input=schema.nullable(INPUT_SCHEMA)),
)

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/embed",
        decode=decode,
        encode=encode,
        summary="Create normalized embeddings",
        request_schema=REQUEST_SCHEMA,
        response_schema=schema.record(
            "model embeddings",
            model=schema.STRING,
            embeddings=schema.listed(_VECTOR),
            total_duration=schema.COUNT,
            load_duration=schema.COUNT,
            prompt_eval_count=schema.COUNT,
        ),
    ),
    Endpoint(
        method="POST",
        path="/api/embeddings",
        decode=decode_old,
        encode=encode_old,
        summary="Create an embedding of one prompt (older format)",
        request_schema=fields.request_schema(fields.MODEL, PROMPT, KEEP_ALIVE, OPTIONS),
        response_schema=schema.exact(embedding=_VECTOR),
    ),
)
