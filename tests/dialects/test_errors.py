"""Every error has a status, a shape and the words that clients of each dialect look for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mullama import errors
from mullama.dialects import DIALECTS, dialect_for
from mullama.dialects.base import Reply
from mullama.errors import (
    Busy,
    ContextOverflow,
    Invalid,
    Kind,
    MullamaError,
    NotFound,
)
from tests.dialects.error_examples import EXAMPLES
from tests.dialects.wire import decode, strict_json

STATUSES = {
    "ollama": [400, 400, 400, 404, 401, 403, 409, 403, 503, 503, 429, 413, 502, 504, 503, 503, 503, 503, 503, 500],
    "openai": [400, 400, 400, 404, 401, 403, 409, 403, 429, 503, 429, 413, 502, 504, 503, 503, 503, 503, 503, 500],
    "anthropic": [400, 400, 400, 404, 401, 403, 409, 403, 529, 503, 429, 413, 502, 504, 503, 503, 503, 503, 503, 500],
}


def reply(dialect: str, error: MullamaError) -> Reply:
    return DIALECTS[dialect].error(error, "req_1")


def body(dialect: str, error: MullamaError) -> Any:
    return reply(dialect, error).body


def test_there_is_an_example_of_every_kind() -> None:
    assert {error.kind for error in EXAMPLES} == set(Kind)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_error_has_its_status(dialect: str) -> None:
    assert [reply(dialect, error).status for error in EXAMPLES] == STATUSES[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_every_reply_has_the_shape_of_its_dialect_and_the_request_id(dialect: str, error: MullamaError) -> None:
    said = reply(dialect, error)
    inner: Any = said.body

    schema = json.loads(strict_json(DIALECTS[dialect].error_schema))
    Draft202012Validator(schema).validate(inner)
    assert said.headers[DIALECTS[dialect].id_header] == "req_1"
    strict_json(inner)
    match dialect:
        case "ollama":
            assert isinstance(inner["error"], str)
        case "openai":
            assert set(inner["error"]) >= {"message", "type", "param", "code"}
        case _:
            assert (inner["type"], set(inner["error"]), inner["request_id"]) == ("error", {"type", "message"}, "req_1")


def test_an_overflow_says_the_words_that_clients_match() -> None:
    error = ContextOverflow(5000, 4096)

    openai = body("openai", error)["error"]
    assert "This model's maximum context length is 4096 tokens" in openai["message"]
    assert "exceeds the available context size" in openai["message"]
    assert openai["code"] == "context_length_exceeded"
    assert openai["type"] == "exceed_context_size_error"
    assert (openai["n_prompt_tokens"], openai["n_ctx"]) == (5000, 4096)
    assert body("anthropic", error)["error"]["message"].startswith("prompt is too long: 5000 tokens > 4096 maximum")
    assert body("ollama", error)["error"].startswith("the prompt is longer than the context length currently available")
    assert "the input length exceeds the context length" in body("ollama", error)["error"]


def test_an_unknown_model_says_the_words_that_clients_match() -> None:
    error = NotFound("no model", name="qwen", near=("qwen3:8b",))

    assert re.match(r"model 'qwen' not found", body("ollama", error)["error"])
    openai = body("openai", error)["error"]
    assert (openai["code"], openai["type"]) == ("model_not_found", "not_found_error")
    assert "'qwen' does not exist" in openai["message"]
    assert body("anthropic", error)["error"]["type"] == "not_found_error"
    for dialect in DIALECTS:
        assert "did you mean qwen3:8b?" in strict_json(body(dialect, error))


@pytest.mark.parametrize("name", ["/v1/nothing", "resp_0123"])
def test_what_is_not_a_model_is_not_called_one(name: str) -> None:
    inner = body("openai", NotFound(f"there is no {name}", name=name))["error"]

    assert (inner["code"], inner["message"]) == (None, f"there is no {name}")


def test_a_full_queue_says_the_words_that_clients_of_ollama_match() -> None:
    assert body("ollama", Busy("256 wait"))["error"].startswith(
        "server busy, please try again.  maximum pending requests exceeded"
    )


def test_the_field_that_is_wrong_is_named_in_every_dialect() -> None:
    with pytest.raises(Invalid) as caught:
        decode("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": [{"type": "odd"}]}]})

    assert body("openai", caught.value)["error"]["param"] == "messages[0].content[0].type"
    for dialect in DIALECTS:
        assert "messages[0].content[0].type" in strict_json(body(dialect, caught.value))


def test_every_error_class_can_be_said() -> None:
    made = {type(error) for error in EXAMPLES}
    known = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MullamaError)}

    # The root is abstract; the other two are raised before a server runs and have the kind of Invalid.
    assert known - made == {MullamaError, errors.ManifestError, errors.BadWeights}


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/api/nothing", {}, "ollama"),
        ("/v1/nothing", {}, "openai"),
        ("/v1/messages/nothing", {}, "anthropic"),
        ("/v1/nothing", {"anthropic-version": "2023-06-01"}, "anthropic"),
        ("/apifoo", {}, "ollama"),
    ],
)
def test_an_unknown_path_is_refused_in_the_words_of_who_asks(path: str, headers: dict[str, str], name: str) -> None:
    assert dialect_for(path, headers, list(DIALECTS.values())).name == name
    assert dialect_for(path, headers, [DIALECTS["openai"]]).name == "openai"
