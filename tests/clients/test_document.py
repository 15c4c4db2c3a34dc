"""What a live server answers, with real models, is what its own API document says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.clients.client_helpers import ADA, FRANCE, PERSON, WEATHER, block, calling, flat, function, user

CALL = calling(("get_weather", {"city": "Oslo"}))
SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": user(FRANCE), "logprobs": True, "top_logprobs": 2, "n": 2}),
    ("/v1/chat/completions", {"messages": user(CALL), "tools": [function()], "model": "script"}),
    ("/v1/chat/completions", {"messages": user(ADA), "response_format": SCHEMA, "reasoning_effort": "high"}),
    ("/v1/completions", {"prompt": ["one", "two"], "echo": True, "logprobs": 1}),
    ("/v1/embeddings", {"input": [[1, 2], [3]]}),
    ("/v1/embeddings", {"input": "one", "encoding_format": "base64"}),
    ("/v1/responses", {"input": "think hard\nsay yes", "model": "script"}),
    ("/v1/responses", {"input": CALL, "tools": [flat()], "model": "script"}),
    ("/v1/messages", {"messages": user("think hard\nsay yes"), "model": "script"}),
    ("/v1/messages", {"messages": user(CALL), "tools": [block()], "model": "script"}),
    ("/v1/messages/count_tokens", {"messages": user(FRANCE)}),
    ("/api/chat", {"messages": user(FRANCE), "think": True, "logprobs": True}),
    ("/api/chat", {"messages": user(CALL), "tools": [function("get_weather", WEATHER)], "model": "script"}),
    ("/api/chat", {"messages": []}),
    ("/api/generate", {"prompt": FRANCE}),
    ("/api/generate", {"prompt": ""}),
    ("/api/embed", {"input": ["one", "two"]}),
    ("/api/embeddings", {"prompt": "one"}),
    ("/api/show", {"verbose": True}),
    ("/completion", {"prompt": "one", "n_probs": 2}),
    ("/infill", {"input_prefix": "one ", "input_suffix": " three"}),
    ("/tokenize", {"content": "one two", "with_pieces": True}),
    ("/detokenize", {"tokens": [300, 301]}),
    ("/apply-template", {"messages": user("one")}),
]
LISTED = ("/v1/models", "/v1/models/tiny", "/api/tags", "/api/ps", "/api/version", "/props", "/slots", "/api/v1/status")


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> Any:
    return http.get("/openapi.json").json()


def schema_of(document: Any, path: str, method: str) -> Any:
    served = document["paths"].get(path) or document["paths"][path.replace("/tiny", "/{id}")]
    return served[method]["responses"]["2XX"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize(("path", "asked"), ASKED)
def test_an_answer_of_a_model_is_what_the_document_says(
    http: httpx.Client, document: Any, path: str, asked: dict[str, Any]
) -> None:
    body = {"model": "tiny", "max_tokens": 40, "max_output_tokens": 40, "n_predict": 8, "stream": False, **asked}

    answer = http.post(path, json=body)

    assert answer.status_code == 200, answer.text
    Draft202012Validator(schema_of(document, path, "post")).validate(answer.json())


@pytest.mark.parametrize("path", LISTED)
def test_what_is_listed_is_what_the_document_says(http: httpx.Client, document: Any, path: str) -> None:
    answer = http.get(path, params={"model": "tiny"})

    assert answer.status_code == 200
    Draft202012Validator(schema_of(document, path, "get")).validate(answer.json())


def test_tokens_that_are_asked_for_come_along(http: httpx.Client) -> None:
    answer = http.post("/completion", json={"model": "tiny", "prompt": "one", "n_predict": 4, "return_tokens": True})

    assert len(answer.json()["tokens"]) == answer.json()["tokens_predicted"]
