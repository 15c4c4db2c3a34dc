"""The official Python clients of the three APIs against the server: answers, streams, and what they raise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mullama.errors import Busy, ContextOverflow, EngineFailed, Internal
from tests.official_clients import anthropic, ollama, openai
from tests.server.server_fixture import CHAT, SAYS_HELLO, RunningServer, StubRuntime, key, manifest, running_server

MESSAGES: Any = CHAT["messages"]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def gpt(server: RunningServer, secret: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=secret, max_retries=0)


def claude(server: RunningServer, secret: str = "any") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key=secret, max_retries=0)


def llama(server: RunningServer) -> ollama.Client:
    return ollama.Client(host=f"http://127.0.0.1:{server.port}")


def test_openai_reads_answers_and_streams(server: RunningServer) -> None:
    with gpt(server) as client:
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert answer.choices[0].message.content == "Hello"
        assert answer._request_id
        with client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True) as stream:
            assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "Hello"
        with client.responses.stream(model="tiny", input="Hello") as events:
            assert events.get_final_response().output_text == "Hello"


def test_anthropic_reads_answers_and_streams(server: RunningServer) -> None:
    with claude(server) as client:
        answer = client.messages.create(model="tiny", max_tokens=9, messages=MESSAGES)
        assert answer.content[0].text == "Hello"  # type: ignore[union-attr]
        assert answer._request_id
        with client.messages.stream(model="tiny", max_tokens=9, messages=MESSAGES) as stream:
            assert stream.get_final_text() == "Hello"


def test_ollama_reads_answers_and_streams(server: RunningServer) -> None:
    client = llama(server)
    assert client.chat(model="tiny", messages=MESSAGES).message.content == "Hello"
    parts = list(client.chat(model="tiny", messages=MESSAGES, stream=True))
    assert "".join(p.message.content or "" for p in parts) == "Hello"
    assert parts[-1].done
    assert [p.status for p in client.pull("tiny", stream=True)][-1] == "success"
    client._client.close()


@pytest.mark.parametrize(
    ("error", "gpt_raises", "claude_raises"),
    [
        (Busy("full"), "RateLimitError", "APIStatusError"),
        (ContextOverflow(9000, 4096), "BadRequestError", "BadRequestError"),
        (EngineFailed("died"), "InternalServerError", "APIStatusError"),
        (Internal("bug"), "InternalServerError", "InternalServerError"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_the_first_byte_is_the_clients_own_exception(
    error: Exception, gpt_raises: str, claude_raises: str, stream: bool
) -> None:
    with running_server(StubRuntime(script=(error,))) as server, gpt(server) as one, claude(server) as other:
        with pytest.raises(getattr(openai, gpt_raises)):
            one.chat.completions.create(model="tiny", messages=MESSAGES, stream=stream)
        with pytest.raises(getattr(anthropic, claude_raises)):
            other.messages.create(model="tiny", max_tokens=9, messages=MESSAGES, stream=stream)
        client = llama(server)
        with pytest.raises(ollama.ResponseError):
            list(client.chat(model="tiny", messages=MESSAGES, stream=True))
        client._client.close()


def test_an_error_within_a_stream_is_raised_by_every_client() -> None:
    with running_server(StubRuntime(script=(*SAYS_HELLO[:2], EngineFailed("died")))) as server:
        with gpt(server) as one, pytest.raises(openai.APIError, match="died"):
            list(one.chat.completions.create(model="tiny", messages=MESSAGES, stream=True))
        with claude(server) as other, pytest.raises(anthropic.APIStatusError, match="died"):
            list(other.messages.create(model="tiny", max_tokens=9, messages=MESSAGES, stream=True))
        client = llama(server)
        with pytest.raises(ollama.ResponseError, match="died"):
            list(client.chat(model="tiny", messages=MESSAGES, stream=True))
        client._client.close()


def test_a_wrong_key_is_an_authentication_error() -> None:
    with running_server(StubRuntime(keys=(key("k", "right", "infer"),))) as server:
        with gpt(server, "wrong") as one, pytest.raises(openai.AuthenticationError):
            one.models.list()
        with claude(server, "wrong") as other, pytest.raises(anthropic.AuthenticationError):
            other.models.list()
        with gpt(server, "right") as one, claude(server, "right") as other:
            assert one.models.list().data[0].id == other.models.list().data[0].id == "tiny"


def test_a_client_retries_errors_marked_for_it() -> None:
    runtime = StubRuntime(script=(Busy("full", retry_after=0.01),))
    with running_server(runtime) as server, gpt(server) as client:
        with pytest.raises(openai.RateLimitError):
            client.with_options(max_retries=1).chat.completions.create(model="tiny", messages=MESSAGES)
        assert len(runtime.seen) == 2
        runtime.script = (Internal("bug"),)
        with pytest.raises(openai.InternalServerError):
            client.with_options(max_retries=1).chat.completions.create(model="tiny", messages=MESSAGES)
        assert len(runtime.seen) == 3


def test_a_body_too_large_is_an_error_and_not_a_broken_connection() -> None:
    runtime = StubRuntime(manifest=manifest(server={"limits": {"body": 100_000}}))
    huge: Any = [{"role": "user", "content": "x" * 3_000_000}]
    with running_server(runtime) as server, gpt(server) as one, claude(server) as other:
        with pytest.raises(openai.APIStatusError) as gpt_error:
            one.chat.completions.create(model="tiny", messages=huge)
        with pytest.raises(anthropic.APIStatusError) as claude_error:
            other.messages.create(model="tiny", max_tokens=9, messages=huge)
        assert gpt_error.value.status_code == claude_error.value.status_code == 413
