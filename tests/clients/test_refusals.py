"""What the official clients raise: unknown names, bad values, overflow, keys, full queues, deadlines, lost clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.client_helpers import function, user
from tests.e2e.stack import Stack, eventually, stack_in
from tests.official_clients import anthropic, ollama, openai

LONG: Any = user("word " * 20_000)
CHATS = {
    "/api/chat": {"model": "script", "messages": user("say yes")},
    "/v1/chat/completions": {"model": "script", "messages": user("say yes")},
    "/v1/responses": {"model": "script", "input": "say yes"},
    "/v1/messages": {"model": "script", "messages": user("say yes"), "max_tokens": 9},
}
SLOW = "slow 20ms 5000 tokens"


# Of a request.


@pytest.mark.parametrize("stream", [True, False])
def test_an_unknown_model_is_not_found_in_every_api(
    gpt: openai.OpenAI, claude: anthropic.Anthropic, llama: ollama.Client, stream: bool
) -> None:
    with pytest.raises(openai.NotFoundError, match=r"tinny.*did you mean tiny") as raised:
        gpt.chat.completions.create(model="tinny", messages=user("x"), stream=stream)
    assert (raised.value.code, raised.value.type) == ("model_not_found", "not_found_error")
    with pytest.raises(anthropic.NotFoundError, match="tinny") as raised:
        claude.messages.create(model="tinny", max_tokens=9, messages=user("x"), stream=stream)
    body: Any = raised.value.body
    assert (body["type"], body["error"]["type"], body["request_id"]) == (
        "error",
        "not_found_error",
        raised.value.request_id,
    )
    with pytest.raises(ollama.ResponseError, match="model 'tinny' not found") as said:
        list(llama.chat("tinny", user("x"), stream=True)) if stream else llama.chat("tinny", user("x"))
    assert said.value.status_code == 404


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_that_is_too_long_is_refused_in_the_words_that_clients_look_for(
    gpt: openai.OpenAI, claude: anthropic.Anthropic, llama: ollama.Client, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        gpt.chat.completions.create(model="tiny", messages=LONG, stream=stream)
    assert raised.value.code == "context_length_exceeded"
    for words in ("context_length_exceeded", "maximum context length is", "exceeds the available context size"):
        assert words in str(raised.value)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        gpt.responses.create(model="tiny", input=LONG[0]["content"], stream=stream)
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
        claude.messages.create(model="tiny", max_tokens=9, messages=LONG, stream=stream)
    with pytest.raises(ollama.ResponseError, match="longer than the context length") as raised:
        list(llama.generate("tiny", LONG[0]["content"], raw=True, stream=True)) if stream else llama.generate(
            "tiny", LONG[0]["content"], raw=True
        )
    assert raised.value.status_code == 400


def test_a_long_conversation_loses_its_oldest_turns_only_for_clients_that_expect_it(llama: ollama.Client) -> None:
    turns = [*user("word " * 4000), {"role": "assistant", "content": "Yes."}, *user("What is the capital of France?")]

    answer = llama.chat("tiny", turns, options={"num_predict": 30})

    assert "Paris" in (answer.message.content or "")


IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
SECRET = [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"temperature": "warm"},
        {"n": 0},
        {"max_tokens": -7},
        {"top_logprobs": 99, "logprobs": True},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "nobody"}}, "tools": [function()]},
        {"response_format": {"type": "yaml"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
        {"reasoning_effort": "hard"},
        {"messages": [{"role": "user", "content": SECRET}]},
        {"messages": [{"role": "user", "content": IMAGE}]},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_honoured_is_a_bad_request(gpt: openai.OpenAI, wrong: dict[str, Any]) -> None:
    body: Any = {"model": "tiny", "messages": user("x"), **wrong}

    with pytest.raises(openai.BadRequestError) as raised:
        gpt.chat.completions.create(**body)

    assert raised.value.type == "invalid_request_error"
    assert raised.value.message


def test_a_schema_that_cannot_be_enforced_is_named(gpt: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    with pytest.raises(openai.BadRequestError, match="not"):
        gpt.chat.completions.create(
            model="tiny", messages=user("x"),
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        )  # fmt: skip


def test_a_tool_whose_schema_cannot_be_enforced_is_served_with_a_warning(http: httpx.Client) -> None:
    tool = function(parameters={"type": "object", "properties": {"city": {"type": "string", "not": {"const": "x"}}}})
    body = {"model": "tiny", "messages": user("What is the weather in Oslo?"), "tools": [tool], "max_tokens": 100}
    for stream in (True, False):
        answer = http.post("/v1/chat/completions", json={**body, "tool_choice": "required", "stream": stream})
        assert answer.status_code == 200, answer.text
        assert "not" in answer.headers["mullama-warning"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/nothing", lambda body: body["error"]["type"]),
        ("/v1/files", lambda body: body["error"]["message"]),
        ("/api/nothing", lambda body: body["error"].lower()),
    ],
)
def test_an_unknown_path_is_answered_in_its_api(http: httpx.Client, path: str, shape: Callable[[Any], Any]) -> None:
    answer = http.post(path, json={})

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert shape(answer.json())


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000,
        b'{"model": "script", "messages": 5, "input": {"a": 1}}',
        b'{"model": "script", "messages": [{"role": "user", "content": "\\ud800"}], "input": "\\ud800"}',
        b'{"model": "script", "messages": [], "input": "x", "max_tokens": NaN, "max_output_tokens": NaN}',
    ],
    ids=range(9),
)  # fmt: skip
def test_a_body_that_is_no_request_is_a_bad_request(http: httpx.Client, path: str, content: bytes) -> None:
    answer = http.post(path, content=content)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", CHATS)
def test_a_body_over_the_limit_is_too_large(http: httpx.Client, path: str) -> None:
    answer = http.post(path, content=json.dumps(CHATS[path] | {"user": "x" * (32 * 2**20)}))

    assert answer.status_code == 413
    assert answer.json()["error"]


@pytest.mark.parametrize("path", CHATS)
def test_a_body_is_json_whatever_its_type_says(http: httpx.Client, path: str) -> None:
    body = json.dumps({**CHATS[path], "stream": False})

    answer = http.post(path, content=body, headers={"content-type": "application/x-www-form-urlencoded"})

    assert answer.status_code == 200
    assert "yes" in answer.text


# Of a server with keys, small queues and short deadlines.

PLACE = {"from": "./words.script.json", "limits": {"parallel": 1, "queue": 0}}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp("strict")
    (home / "words.script.json").write_text("{}")
    for name in ("one", "admin"):
        (home / f"{name}.key").write_text(f"sk-{name}")
        (home / f"{name}.key").chmod(0o600)
    keys = {
        "one": {"secret": {"from_file": "./one.key"}, "models": ["narrow", "team/*"]},
        "admin": {"secret": {"from_file": "./admin.key"}, "roles": ["infer", "admin"]},
    }
    hurried = {"from": "./words.script.json", "limits": {"timeout": "300ms"}}
    models = {"narrow": PLACE, "team/hurried": hurried, "secret": {"like": "narrow"}}
    with stack_in(home) as stack:
        stack.write(models, auth={"keys": keys})
        stack.serve()
        stack.ready()
        yield stack


@contextmanager
def clients(url: str, key: str) -> Iterator[tuple[openai.OpenAI, anthropic.Anthropic, ollama.Client]]:
    llama = ollama.Client(host=url, headers={"authorization": f"Bearer {key}"})
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as gpt,
        anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as claude,
    ):
        yield gpt, claude, llama
    llama._client.close()


def test_a_wrong_key_is_told_in_every_api(strict: Stack) -> None:
    with clients(strict.url, "sk-none") as (gpt, claude, llama):
        with pytest.raises(openai.AuthenticationError) as raised:
            gpt.chat.completions.create(model="narrow", messages=user("x"))
        assert raised.value.code == "invalid_api_key"
        with pytest.raises(anthropic.AuthenticationError):
            claude.messages.create(model="narrow", max_tokens=9, messages=user("x"))
        with pytest.raises(ollama.ResponseError) as raised:
            llama.chat("narrow", user("x"))
        assert raised.value.status_code == 401


def test_a_key_opens_the_models_of_its_globs_and_sees_no_others(strict: Stack) -> None:
    with clients(strict.url, "sk-one") as (gpt, claude, llama):
        assert gpt.chat.completions.create(model="narrow", messages=user("say yes")).choices[0].message.content == "yes"
        with pytest.raises(openai.PermissionDeniedError, match="secret"):
            gpt.chat.completions.create(model="secret", messages=user("x"))
        with pytest.raises(anthropic.PermissionDeniedError):
            claude.messages.create(model="secret", max_tokens=9, messages=user("x"))
        with pytest.raises(ollama.ResponseError) as raised:
            llama.show("secret")
        assert raised.value.status_code == 403
        assert {model.id for model in gpt.models.list()} == {"narrow", "team/hurried"}
        assert {model.id for model in claude.models.list()} == {"narrow", "team/hurried"}
        assert {model.model for model in llama.list().models} == {"narrow", "team/hurried"}
        with pytest.raises(ollama.ResponseError) as raised:
            llama.delete("narrow")
        assert raised.value.status_code == 403


def test_a_stored_response_belongs_to_its_key(strict: Stack) -> None:
    with clients(strict.url, "sk-one") as (one, _, _), clients(strict.url, "sk-admin") as (other, _, _):
        mine = one.responses.create(model="narrow", input="say yes")
        assert one.responses.retrieve(mine.id).id == mine.id
        with pytest.raises(openai.NotFoundError):
            other.responses.retrieve(mine.id)


def test_a_full_queue_is_told_before_the_first_byte_with_a_time_to_come_back(strict: Stack) -> None:
    with (
        clients(strict.url, "sk-one") as (gpt, claude, llama),
        gpt.chat.completions.create(model="narrow", messages=user(SLOW), stream=True) as running,
    ):
        assert next(running).object == "chat.completion.chunk"
        for stream in (True, False):
            with pytest.raises(openai.RateLimitError) as raised:
                gpt.chat.completions.create(model="narrow", messages=user("x"), stream=stream)
            assert int(raised.value.response.headers["retry-after"]) >= 1
            with pytest.raises(anthropic.APIStatusError) as raised:
                claude.messages.create(model="narrow", max_tokens=9, messages=user("x"), stream=stream)
            assert raised.value.status_code in (429, 503, 529)
            assert int(raised.value.response.headers["retry-after"]) >= 1
        with pytest.raises(ollama.ResponseError, match="server busy") as said:
            llama.chat("narrow", user("x"))
        assert said.value.status_code == 503


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_makes_room_for_the_next(strict: Stack, path: str, stream: bool) -> None:
    """The place of the only request is taken by an answer of minutes, until its client goes."""
    body = json.loads(json.dumps(CHATS[path]).replace("say yes", SLOW).replace('"script"', '"narrow"'))
    body |= {"stream": stream, "max_tokens": 5000}
    headers = {"authorization": "Bearer sk-one"}
    with httpx.Client(base_url=strict.url, headers=headers, timeout=60) as client:
        eventually(lambda: asked(client).status_code == 200)
        if stream:
            with client.stream("POST", path, json=body) as answer:
                assert answer.status_code == 200
                lines = answer.iter_lines()  # which must outlive the question: its end is the answer's
                assert next(lines) is not None
                assert asked(client).status_code == 429
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(path, json=body, timeout=httpx.Timeout(10, read=0.5))
        eventually(lambda: asked(client).status_code == 200)


def asked(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"model": "narrow", "messages": user("say yes")})


def test_a_deadline_is_a_status_before_the_first_byte_and_an_event_after_it(strict: Stack) -> None:
    with clients(strict.url, "sk-one") as (gpt, claude, llama):
        with pytest.raises(openai.APIStatusError, match="longer than") as raised:
            gpt.chat.completions.create(model="team/hurried", messages=user(SLOW))
        assert raised.value.status_code in (408, 504)
        with pytest.raises(openai.APIError, match="longer than"):
            list(gpt.chat.completions.create(model="team/hurried", messages=user(SLOW), stream=True))
        with pytest.raises(openai.APIError, match="longer than"):
            list(gpt.completions.create(model="team/hurried", prompt=SLOW, stream=True))
        with pytest.raises(openai.APIError, match="longer than"):
            list(gpt.responses.create(model="team/hurried", input=SLOW, stream=True))
        with (
            pytest.raises(anthropic.APIStatusError, match="longer than"),
            claude.messages.stream(model="team/hurried", max_tokens=9999, messages=user(SLOW)) as stream,
        ):
            stream.get_final_message()
        with pytest.raises(ollama.ResponseError, match="longer than"):
            list(llama.chat("team/hurried", user(SLOW), stream=True))
