"""The wire format of Anthropic: messages, token counts, models; named events."""

from __future__ import annotations

from mullama.dialects.anthropic import models, reply, request
from mullama.dialects.anthropic.errors import ERROR_SCHEMA, error_reply
from mullama.dialects.base import Dialect, Endpoint, Reply, StaticReply, fixed
from mullama.dialects.rate_limits import anthropic_headers
from mullama.struct import replace

_PROBE = Endpoint(
    method="HEAD",
    path="/",
    decode=fixed(StaticReply(reply=Reply(body="mullama is running"))),
    access="public",
    summary="Check that the server runs",
)
_MESSAGES = Endpoint(
    method="POST",
    path="/v1/messages",
    decode=request.decode,
    encode=reply.encode,
    stream=reply.MessageStream,
    summary="Generate a chat completion",
    request_schema=request.REQUEST_SCHEMA,
    response_schema=reply.RESPONSE_SCHEMA,
)
_COUNT = Endpoint(
    method="POST",
    path="/v1/messages/count_tokens",
    decode=request.decode_count,
    encode=reply.encode_count,
    summary="Count the tokens of a conversation's prompt",
    request_schema=request.COUNT_SCHEMA,
    response_schema=reply.COUNT_SCHEMA,
)
_MODELS = Endpoint(
    method="GET",
    path="/v1/models",
    decode=models.decode_list,
    encode=models.encode_list,
    when=models.is_anthropic,
    summary="List the models",
    response_schema=models.LIST_SCHEMA,
)
_MODEL = Endpoint(
    method="GET",
    path="/v1/models/{id:path}",
    decode=models.decode_one,
    encode=models.encode_one,
    when=models.is_anthropic,
    summary="Get a model",
    response_schema=models.MODEL_SCHEMA,
)

DIALECT = Dialect(
    name="anthropic",
    endpoints=(
        _PROBE,
        _MESSAGES,
        _COUNT,
        _MODELS,
        _MODEL,
        *(replace(e, path=e.path.removeprefix("/v1")) for e in (_MESSAGES, _COUNT)),
    ),
    error=error_reply,
    error_schema=ERROR_SCHEMA,
    id_header="request-id",
    rate_headers=anthropic_headers,
    prefixes=("/v1/messages", "/messages"),
)
