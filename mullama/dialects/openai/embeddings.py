"""OpenAI's `/v1/embeddings`: texts or token ids in, vectors out, as numbers or as base64 of 32-bit floats."""

from __future__ import annotations

import base64
from array import array
from sys import byteorder

from mullama.chat.types import EmbedRequest, Vectors
from mullama.dialects import fields, schema
from mullama.dialects.base import Reply, ReplyContext, WireRequest
from mullama.dialects.inputs import (
    EMBED_SCHEMA,
    PROMPT_NAMES,
    check_filled,
    embed_inputs_of,
    finite_vectors,
    prompt_of,
)
from mullama.dialects.sampling import KEEP_ALIVE
from mullama.names import JSONValue


class EmbedCall(EmbedRequest, frozen=True, kw_only=True):
    """Inputs to embed; `base64` selects the encoding of the vectors."""

    base64: bool = False


_FORMAT = fields.choice("encoding_format", ("float", "base64"))
_DIMENSIONS = fields.integer("dimensions", 1, 2**20)
_TRUNCATE = fields.flag("truncate")


def decode(request: WireRequest) -> EmbedCall:
    """Decode inputs to embed. A long input is an error unless `truncate` allows to cut it."""
    body = fields.body_of(request.body)
    inputs = embed_inputs_of(body.raw("input"), "input")
    check_filled(inputs, "input", body.raw("input"))
    prompt, place = prompt_of(body)
    return EmbedCall(
        model=fields.model_named(body),
        inputs=inputs,
        dimensions=body.get(_DIMENSIONS),
        prompt=prompt,
        prompt_place=place,
        truncate=body.get(_TRUNCATE) or False,
        keep_alive=body.get(KEEP_ALIVE),
        base64=body.get(_FORMAT) == "base64",
    )


def _packed(vector: list[float]) -> str:
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode("ascii")


def encode(context: ReplyContext[EmbedCall, Vectors]) -> Reply:
    """Return one entry for each input, in order."""
    data: list[JSONValue] = [
        {
            "object": "embedding",
            "index": i,
            "embedding": _packed(vector) if context.operation.base64 else vector,
        }
        for i, vector in enumerate(finite_vectors(context.result, context.operation))
    ]
    tokens = context.result.usage.prompt_tokens
    usage: JSONValue = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply(body={"object": "list", "data": data, "model": context.operation.model, "usage": usage})


_FIELDS: tuple[fields.Field[object], ...] = (
    fields.MODEL,
    fields.Field("input", embed_inputs_of, EMBED_SCHEMA),
    _FORMAT, _DIMENSIONS, *PROMPT_NAMES, _TRUNCATE, KEEP_ALIVE, fields.text("user"),
)  # fmt: skip
REQUEST_SCHEMA = fields.request_schema(*_FIELDS, required="input")
RESPONSE_SCHEMA = schema.exact(
    object=schema.constant("list"),
    data=schema.listed(
        schema.exact(
            object=schema.constant("embedding"),
            index=schema.COUNT,
            embedding=schema.either(schema.listed(schema.NUMBER), schema.STRING),
        )
    ),
    model=schema.STRING,
    usage=schema.exact(prompt_tokens=schema.COUNT, total_tokens=schema.COUNT),
)
