"""What mullama's own terminal asks of models and sends for them, under `/api/models`: chat, embed, tokenize, blobs.

They speak the words of the dialects that have the same, are there whatever dialects are served, and reach every model,
also one that is served in some dialects only.
"""

from __future__ import annotations

from dataclasses import replace

from mullama.chat.inventory import LoadModel
from mullama.chat.types import EmbedRequest
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, WireRequest
from mullama.dialects.fields import body_of, flag, request_schema
from mullama.dialects.ollama import chat, embed, model_admin
from mullama.dialects.openai.llamaserver import tokens

_NORMALIZE = flag("normalize")


def decode_embed(request: WireRequest) -> EmbedRequest | LoadModel:
    """As Ollama's, and `normalize`: whether the vectors have length 1 (default: true)."""
    operation = embed.decode(request)
    said = body_of(request.body).get(_NORMALIZE)
    return replace(operation, normalize=said) if isinstance(operation, EmbedRequest) and said is not None else operation


def _of(endpoints: tuple[Endpoint, ...], path: str) -> Endpoint:
    return next(endpoint for endpoint in endpoints if endpoint.path == path)


ENDPOINTS = (
    replace(_of(chat.ENDPOINTS, "/api/chat"), path="/api/models/chat", summary="Generate a chat completion"),
    replace(
        _of(embed.ENDPOINTS, "/api/embed"),
        path="/api/models/embed",
        decode=decode_embed,
        request_schema=schema.joined(embed.REQUEST_SCHEMA, request_schema(_NORMALIZE)),
        summary="Create embeddings",
    ),
    replace(_of(tokens.ENDPOINTS, "/tokenize"), path="/api/models/tokenize", summary="Tokenize a text"),
    *(
        replace(endpoint, path="/api/models/blobs/{digest}")
        for endpoint in model_admin.ENDPOINTS
        if endpoint.path == "/api/blobs/{digest}"
    ),
)
