"""The table of OpenAI's endpoints, most of them also without `/v1`."""

from __future__ import annotations

from mullama.chat.inventory import ListModels
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, fixed
from mullama.dialects.openai import (
    audio,
    chat,
    chat_reply,
    completions,
    embeddings,
    llamaserver,
    lmstudio,
    models,
    stored_chat,
)
from mullama.dialects.openai.realtime import opening
from mullama.dialects.openai.responses import stored
from mullama.struct import replace

CHAT = Endpoint(
    method="POST",
    path="/v1/chat/completions",
    decode=chat.decode,
    encode=chat_reply.encode,
    stream=chat_reply.ChatChunkStream,
    remember=stored_chat.remember,
    summary="Generate a chat completion",
    request_schema=chat.REQUEST_SCHEMA,
    response_schema=chat_reply.RESPONSE_SCHEMA,
)
CHAT_COUNT = Endpoint(
    method="POST",
    path="/v1/chat/completions/input_tokens",
    decode=chat.decode_count,
    encode=chat.encode_count,
    summary="Count the tokens of a conversation's prompt",
    request_schema=chat.REQUEST_SCHEMA,
    response_schema=schema.exact(object=schema.STRING, input_tokens=schema.COUNT),
)
COMPLETIONS = Endpoint(
    method="POST",
    path="/v1/completions",
    decode=completions.decode,
    encode=completions.encode,
    stream=completions.CompletionStream,
    summary="Generate a completion",
    request_schema=completions.REQUEST_SCHEMA,
    response_schema=completions.RESPONSE_SCHEMA,
)
EMBEDDINGS = Endpoint(
    method="POST",
    path="/v1/embeddings",
    decode=embeddings.decode,
    encode=embeddings.encode,
    summary="Create embeddings",
    request_schema=embeddings.REQUEST_SCHEMA,
    response_schema=embeddings.RESPONSE_SCHEMA,
)
REALTIME = Endpoint(
    method="GET",
    path="/v1/realtime",
    decode=opening.decode,
    session=opening.session,
    subprotocols=opening.SUBPROTOCOLS,
    summary="Hold a conversation by text and voice over a WebSocket",
)
TRANSCRIPTIONS = Endpoint(
    method="POST",
    path="/v1/audio/transcriptions",
    decode=audio.decode,
    encode=audio.encode,
    stream=audio.TranscriptStream,
    form=True,
    summary="Transcribe speech",
    request_schema=audio.REQUEST_SCHEMA,
    response_schema=audio.RESPONSE_SCHEMA,
)
TRANSLATIONS = Endpoint(
    method="POST",
    path="/v1/audio/translations",
    decode=audio.decode_translation,
    encode=audio.encode,
    stream=audio.TranscriptStream,
    form=True,
    summary="Translate speech into English",
    request_schema=audio.TRANSLATION_SCHEMA,
    response_schema=audio.RESPONSE_SCHEMA,
)
MODELS = Endpoint(
    method="GET",
    path="/v1/models",
    decode=fixed(ListModels()),
    encode=models.encode_list,
    summary="List the models",
    response_schema=models.LIST_SCHEMA,
)
MODEL = Endpoint(
    method="GET",
    path="/v1/models/{id:path}",
    decode=models.decode_one,
    encode=models.encode_one,
    summary="Get a model",
    response_schema=models.MODEL_SCHEMA,
)


def bare(*endpoints: Endpoint) -> tuple[Endpoint, ...]:
    """Return the endpoints without `/v1`, for clients whose base address lacks it."""
    return tuple(replace(e, path=e.path.removeprefix("/v1")) for e in endpoints)


STORED = (*stored.ENDPOINTS, *stored_chat.ENDPOINTS)

# Without `/completions`: llama-server's clients expect its native form there.
ENDPOINTS = (
    CHAT,
    CHAT_COUNT,
    COMPLETIONS,
    EMBEDDINGS,
    REALTIME,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    MODELS,
    *STORED,
    *bare(CHAT, CHAT_COUNT, EMBEDDINGS, TRANSCRIPTIONS, TRANSLATIONS, *STORED),
    *llamaserver.ENDPOINTS,
    *lmstudio.endpoints(CHAT, COMPLETIONS, EMBEDDINGS),
    # Last, because their id may match the paths of other endpoints.
    MODEL,
    *bare(MODEL),
)
