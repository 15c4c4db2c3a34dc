"""Requests through a whole server: each dialect, streamed and not, with the errors before and within."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mullama.chat import types
from mullama.errors import Busy, EngineFailed
from tests.server.stage import CHAT, SAYS_HELLO, Runtime, Stage, staged


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as running:
        yield running


STREAMS = [
    ("/api/chat", {**CHAT, "stream": True}),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/messages", {**CHAT, "stream": True, "max_tokens": 9}),
]


def test_each_dialect_answers_whole(stage: Stage) -> None:
    ollama = stage.ask("POST", "/api/chat", {**CHAT, "stream": False})
    assert (ollama.status, ollama.json["message"]["content"]) == (200, "Hello")
    openai = stage.ask("POST", "/v1/chat/completions", CHAT)
    assert openai.json["choices"][0]["message"]["content"] == "Hello"
    anthropic = stage.ask("POST", "/v1/messages", {**CHAT, "max_tokens": 9})
    assert anthropic.json["content"][0]["text"] == "Hello"
