"""Endpoints of other servers that mullama does not have, each with the reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_NO_IMAGES = "images are not generated: llama.cpp runs language models only"
_AUDIO = "speech is transcribed at /v1/audio/transcriptions and translated at /v1/audio/translations"
_NO_SPEECH = (
    "speech is not generated: llama.cpp's own generation of it is experimental, and mullama does not use it; "
    "let another program speak the text of an answer"
)
_ONE_REALTIME = "sessions are opened at /v1/realtime itself, by WebSocket and with an API key"
_NO_FILES = "the server stores no files of clients; send the text in the request"
_NO_BATCHES = "batches are not supported; send the requests at the same time, the server decodes them together"
_NO_TRAINING = "models are not trained"
_NO_AGENTS = "agents belong to the client; use /v1/responses"
_NO_DECISIONS = "models that decide are not served; ask with a JSON schema that lists the answers, and with logprobs"
_PAGE = "the web page is at /ui/; server.ui in the manifest switches it"
_OLD_MCP = "the Model Context Protocol is served at /mcp, as streamable HTTP"

ENDPOINTS: Mapping[str, str] = {
    "/v1/images": _NO_IMAGES,
    "/v1/videos": _NO_IMAGES,
    "/sdapi": _NO_IMAGES,
    "/v1/audio": _AUDIO,
    "/v1/audio/speech": _NO_SPEECH,
    "/v1/realtime/client_secrets": _ONE_REALTIME,
    "/v1/realtime/sessions": _ONE_REALTIME,
    "/v1/realtime/transcription_sessions": _ONE_REALTIME,
    "/v1/realtime/translations": _ONE_REALTIME,
    "/v1/realtime/calls": "calls by WebRTC and SIP are not taken; /v1/realtime is a WebSocket",
    "/tts": _NO_SPEECH,
    "/vad": "speech is found in the sounds of /v1/audio/transcriptions and /v1/realtime",
    "/v1/moderations": "there is no model for moderation",
    "/v1/systemone": _NO_DECISIONS,
    "/v1/files": _NO_FILES,
    "/v1/uploads": _NO_FILES,
    "/v1/vector_stores": _NO_FILES,
    "/stores": _NO_FILES,
    "/v1/batches": _NO_BATCHES,
    "/v1/messages/batches": _NO_BATCHES,
    "/v1/fine_tuning": _NO_TRAINING,
    "/v1/evals": _NO_TRAINING,
    "/v1/assistants": _NO_AGENTS,
    "/v1/threads": _NO_AGENTS,
    "/v1/conversations": _NO_AGENTS,
    "/v1/containers": _NO_AGENTS,
    "/v1/complete": "Anthropic's older API is not supported; use /v1/messages",
    "/v1/organization": "mullama has no accounts; auth.keys in the manifest declares keys",
    "/re_isq": "weights are not quantized after a load; name another file in the manifest",
    "/backend": "the engine is built in",
    "/backends": "the engine is built in",
    "/sse": _OLD_MCP,
    "/chat": _PAGE,
    "/docs": "/openapi.json describes the API",
    "/ws": "answers are streamed over HTTP",
}
"""Reasons by path; a path covers those below it. An endpoint that mullama has takes precedence."""


def reason(path: str) -> str | None:
    """Return the reason for a path that other servers have, None for any other path."""
    parts = path.rstrip("/").split("/")
    for length in range(len(parts), 1, -1):
        if found := ENDPOINTS.get("/".join(parts[:length])):
            return found
    return None
