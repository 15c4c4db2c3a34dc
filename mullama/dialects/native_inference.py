"""The endpoints under `/api/models` that mullama's own commands use: chat, embed, transcribe,
tokenize, blobs.

They have the formats of Ollama, OpenAI and llama-server, exist for any `server.dialects` of the manifest, and reach
every model, including models that are served in some dialects only.
"""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat import types
from mullama.chat.inventory import LoadModel
from mullama.chat.types import EmbedRequest
from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Frame, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.fields import body_of, flag, request_schema
from mullama.dialects.inputs import PROMPT_NAMES, prompt_of
from mullama.dialects.ollama import chat, embed, model_admin
from mullama.dialects.openai.endpoints import TRANSCRIPTIONS, TRANSLATIONS
from mullama.dialects.openai.llamaserver import tokens
from mullama.names import JSONValue
from mullama.struct import replace

_NORMALIZE = flag("normalize")
_RUN_SCHEMA = schema.record(
    "state id server name",
    state=schema.one_of("started", "ended"),
    id=schema.STRING,
    server=schema.STRING,
    name=schema.STRING,
    arguments=schema.RECORD,
    is_error=schema.BOOLEAN,
    bytes=schema.COUNT,
)


class ChatLines(chat.OllamaChatStream):
    """Ollama's lines, and one with `tool_run` for the begin and for the end of each call of a tool by the server."""

    def __init__(self, context: ReplyContext[types.ChatRequest, None]) -> None:
        super().__init__(context)
        self._started: dict[str, types.ToolStarted] = {}

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        frames = super().feed(event)
        match event:
            case types.ToolStarted():
                self._started[event.id] = event
                return (*frames, self._run(event, "started", arguments=event.arguments))
            case types.ToolEnded() if (started := self._started.pop(event.id, None)) is not None:
                length = len(event.text.encode("utf-8", "replace"))
                return (*frames, self._run(started, "ended", is_error=event.is_error, bytes=length))
            case _:
                return frames

    def _run(self, started: types.ToolStarted, state: str, **more: JSONValue) -> Frame:
        run = {"state": state, "id": started.id, "server": started.server, "name": started.name, **more}
        return self._line({}, tool_run=run)


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
    replace(
        _of(chat.ENDPOINTS, "/api/chat"),
        path="/api/models/chat",
        stream=ChatLines,
        summary="Generate a chat completion",
        response_schema=schema.joined(chat.RESPONSE_SCHEMA, schema.record("", tool_run=_RUN_SCHEMA)),
    ),
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
