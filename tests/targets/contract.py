"""The cases that every executor must answer alike: one server, a fleet of two, and a cluster of Ray.

The executor serves the scripted model `a`, which answers `who` with `I am one`, under the key `KEY` of the environment
variable TEAM_KEY, and the route `default` leads to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

KEY = "a-secret-of-the-test"
AUTH = {"keys": {"team": {"secret": {"from_env": "TEAM_KEY"}, "roles": ["infer", "read"]}}}
SCRIPT = {"name": "a", "rules": [{"when": "^who", "say": "I am one"}], "faults": True}

Ask = Callable[..., tuple[int, str]]
"""Takes a path, a body (None for GET) and `key`; returns the status and the text of the answer."""
Case = Callable[[Ask], None]


def chat(model: str = "a", text: str = "who are you", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def openai(ask: Ask) -> None:
    status, text = ask("/v1/chat/completions", chat())
    answer = json.loads(text)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "I am one"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 0


def openai_stream(ask: Ask) -> None:
    status, text = ask("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
    assert status == 200
    assert text.rstrip().endswith("data: [DONE]")
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    parts = [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]
    assert "".join(parts) == "I am one"
    assert events[-1]["usage"]["completion_tokens"] > 0


def ollama(ask: Ask) -> None:
    status, text = ask("/api/chat", chat(stream=False))
    assert (status, json.loads(text)["message"]["content"]) == (200, "I am one")
    status, text = ask("/api/chat", chat())
    lines = [json.loads(line) for line in text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "I am one"
    assert [line["done"] for line in lines][-1]


def anthropic(ask: Ask) -> None:
    status, text = ask("/v1/messages", chat(max_tokens=99))
    assert (status, json.loads(text)["content"][0]["text"]) == (200, "I am one")
    status, text = ask("/v1/messages", chat(max_tokens=99, stream=True))
    assert status == 200
    assert "event: message_stop" in text


def long_answer(ask: Ask) -> None:
    status, text = ask("/v1/chat/completions", chat(text="count to 500"))
    assert status == 200
    assert json.loads(text)["choices"][0]["message"]["content"].split()[-1].strip(".,") == "500"


def limit(ask: Ask) -> None:
    status, text = ask("/v1/chat/completions", chat(text="200 tokens", max_tokens=7))
    assert status == 200
    assert json.loads(text)["choices"][0]["finish_reason"] == "length"


def embeddings(ask: Ask) -> None:
    status, text = ask("/v1/embeddings", {"model": "a", "input": ["x", "y"]})
    assert status == 200
    assert [len(row["embedding"]) for row in json.loads(text)["data"]] == [64, 64]


def names(ask: Ask) -> None:
    assert "a" in {row["id"] for row in json.loads(ask("/v1/models")[1])["data"]}
    assert {row["name"].removesuffix(":latest") for row in json.loads(ask("/api/tags")[1])["models"]} >= {"a"}
    status, text = ask("/v1/chat/completions", chat("default"))
    assert (status, json.loads(text)["choices"][0]["message"]["content"]) == (200, "I am one")


def refusals(ask: Ask) -> None:
    assert ask("/v1/models", key="wrong")[0] == 401
    status, text = ask("/v1/chat/completions", chat("nobody"))
    assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")
    status, text = ask("/v1/messages", chat("nobody", max_tokens=9))
    assert (status, json.loads(text)["error"]["type"]) == (404, "not_found_error")
    assert ask("/api/chat", chat("nobody"))[0] == 404
    status, text = ask("/v1/chat/completions", {"model": "a", "messages": "x"})
    assert (status, json.loads(text)["error"]["type"]) == (400, "invalid_request_error")
    assert ask("/nothing")[0] == 404


def tokens(ask: Ask) -> None:
    status, text = ask("/v1/messages/count_tokens", chat())
    assert status == 200
    assert json.loads(text)["input_tokens"] > 0
    status, text = ask("/tokenize", {"model": "a", "content": "x y"})
    assert status == 200
    assert json.loads(text)["tokens"]


FORWARDED: tuple[Case, ...] = (
    openai, openai_stream, ollama, anthropic, long_answer, limit, embeddings, names, refusals,
)  # fmt: skip
"""The cases that a server also passes with a model of a peer."""
CASES: tuple[Case, ...] = (*FORWARDED, tokens)
