"""The endpoints under `/api/models` that mullama's own commands use: chat, embed, transcribe,
tokenize, blobs.

They have the formats of Ollama, OpenAI and llama-server, exist for any `server.dialects` of the manifest, and reach
every model, including models that are served in some dialects only.
"""

from __future__ import annotations

from mullama.chat.inventory import LoadModel
from mullama.chat.types import EmbedRequest
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, WireRequest
from mullama.dialects.fields import body_of, flag, request_schema
from mullama.dialects.inputs import PROMPT_NAMES, prompt_of
from mullama.dialects.ollama import chat, embed, model_admin
from mullama.dialects.openai.endpoints import TRANSCRIPTIONS, TRANSLATIONS
from mullama.dialects.openai.llamaserver import tokens
from mullama.struct import replace

_NORMALIZE = flag("normalize")


def decode_embed(request: WireRequest) -> EmbedRequest | LoadModel:
    """Decode Ollama's body with `normalize`, which scales vectors to length 1 (default: true), and `prompt_name`."""
    operation = embed.decode(request)
    if not isinstance(operation, EmbedRequest):
        return operation
    body = body_of(request.body)
    normalize, (prompt, place) = body.get(_NORMALIZE), prompt_of(body)
    return replace(operation, normalize=True if normalize is None else normalize, prompt=prompt, prompt_place=place)


def _of(endpoints: tuple[Endpoint, ...], path: str) -> Endpoint:
    return next(endpoint for endpoint in endpoints if endpoint.path == path)


ENDPOINTS = (
    replace(_of(chat.ENDPOINTS, "/api/chat"), path="/api/models/chat", summary="Generate a chat completion"),
    replace(
        _of(embed.ENDPOINTS, "/api/embed"),
        path="/api/models/embed",
        decode=decode_embed,
        request_schema=schema.joined(embed.REQUEST_SCHEMA, request_schema(_NORMALIZE, *PROMPT_NAMES)),
        summary="Create embeddings",
    ),
    replace(TRANSCRIPTIONS, path="/api/models/transcribe"),
    replace(TRANSLATIONS, path="/api/models/translate"),
    replace(_of(tokens.ENDPOINTS, "/tokenize"), path="/api/models/tokenize", summary="Tokenize a text"),
    *(
        replace(endpoint, path="/api/models/blobs/{digest}")
        for endpoint in model_admin.ENDPOINTS
        if endpoint.path == "/api/blobs/{digest}"
    ),
)
