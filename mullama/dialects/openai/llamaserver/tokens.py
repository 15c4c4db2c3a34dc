"""llama-server's `/tokenize`, `/detokenize` and `/embedding`."""

from __future__ import annotations

from itertools import islice

from mullama.chat import types
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.inputs import (
    EMBED_SCHEMA,
    MIXED_SCHEMA,
    MOST_TOKENS,
    PROMPT_NAMES,
    check_filled,
    embed_inputs_of,
    finite_vectors,
    prompt_of,
    text_or_mixed,
)
from mullama.dialects.sampling import MOST_TOKEN
from mullama.errors import Unsupported
from mullama.names import JSONValue

_CONTENT = fields.Field("content", text_or_mixed, schema.either(schema.STRING, MIXED_SCHEMA))
_ADD_SPECIAL = fields.flag("add_special")
_PARSE_SPECIAL = fields.flag("parse_special")
_WITH_PIECES = fields.flag("with_pieces")
_TOKENS = fields.many(
    "tokens",
    lambda value, path: fields.to_integer(value, path, 0, MOST_TOKEN),
    schema.COUNT,
    MOST_TOKENS,
)
_NORMALIZE = fields.integer("embd_normalize", -1, 8)
_EUCLIDEAN = 2


def decode_tokenize(request: WireRequest) -> types.TokenizeRequest:
    body = fields.body_of(request.body)
    parse = body.get(_PARSE_SPECIAL)
    return types.TokenizeRequest(
        model=fields.model_named(body),
        text=body.get(_CONTENT) or "",
        add_special=body.get(_ADD_SPECIAL) or False,
        parse_special=True if parse is None else parse,
        with_pieces=body.get(_WITH_PIECES) or False,
    )


def _piece(piece: bytes) -> JSONValue:
    """Return a piece as text, or as bytes if it is part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def encode_tokens(context: ReplyContext[types.TokenizeRequest, types.Tokens]) -> Reply:
    if not context.operation.with_pieces:
        return Reply(body={"tokens": list(context.result.ids)})
    pairs = zip(context.result.ids, context.result.pieces, strict=True)
    return Reply(body={"tokens": [{"id": id, "piece": _piece(piece)} for id, piece in pairs]})


def decode_detokenize(request: WireRequest) -> types.DetokenizeRequest:
    body = fields.body_of(request.body)
    return types.DetokenizeRequest(model=fields.model_named(body), tokens=body.get(_TOKENS) or ())


def encode_text(context: ReplyContext[types.DetokenizeRequest, types.DetokenizedText]) -> Reply:
    return Reply(body={"content": context.result.text})


def decode_embedding(request: WireRequest) -> types.EmbedRequest:
    """Decode the native form; vectors are normalized unless `embd_normalize` is -1."""
    body = fields.body_of(request.body)
    name = "input" if body.has("input") else "content"
    inputs = embed_inputs_of(body.raw(name), name)
    check_filled(inputs, name, body.raw(name))
    norm = body.get(_NORMALIZE)
    if norm not in (None, -1, _EUCLIDEAN):
        raise Unsupported("embd_normalize must be 2 (Euclidean) or -1 (none)", field="embd_normalize")
    prompt, place = prompt_of(body)
    return types.EmbedRequest(
        model=fields.model_named(body),
        inputs=inputs,
        place=name,
        prompt=prompt,
        prompt_place=place,
        truncate=False,
        normalize=norm != -1,
        pooled=False,
    )


def encode_embedding(context: ReplyContext[types.EmbedRequest, types.Vectors]) -> Reply:
    """Return the vectors of each input: one, or without pooling those of its tokens."""
    vectors = iter(finite_vectors(context.result, context.operation))
    rows = context.result.rows or (1,) * len(context.result.vectors)
    return Reply(body=[{"index": i, "embedding": [*islice(vectors, count)]} for i, count in enumerate(rows)])


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/tokenize",
        decode=decode_tokenize,
        encode=encode_tokens,
        summary="Tokenize a text",
        request_schema=fields.request_schema(fields.MODEL, _CONTENT, _ADD_SPECIAL, _PARSE_SPECIAL, _WITH_PIECES),
        response_schema=schema.exact(tokens=schema.listed(schema.either(schema.COUNT, schema.RECORD))),
    ),
    Endpoint(
        method="POST",
        path="/detokenize",
        decode=decode_detokenize,
        encode=encode_text,
        summary="Detokenize token ids",
        request_schema=fields.request_schema(fields.MODEL, _TOKENS),
        response_schema=schema.exact(content=schema.STRING),
    ),
    Endpoint(
        method="POST",
        path="/embedding",
        decode=decode_embedding,
        encode=encode_embedding,
        summary="Create embeddings (llama-server's format)",
        request_schema=fields.request_schema(
            fields.MODEL,
            fields.Field("content", embed_inputs_of, EMBED_SCHEMA),
            fields.Field("input", embed_inputs_of, EMBED_SCHEMA),
            _NORMALIZE,
            *PROMPT_NAMES,
        ),
        response_schema=schema.listed(
            schema.exact(index=schema.COUNT, embedding=schema.listed(schema.listed(schema.NUMBER)))
        ),
    ),
)
