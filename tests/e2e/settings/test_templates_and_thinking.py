"""Reasoning, template arguments and tool calls by the manifest, in the words of every dialect, and changed live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, eventually, serving

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}[{{ tone | default('plain') }}]"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def models(budget: int | None) -> dict[str, Any]:
    thinking = {"budget": budget} if budget is not None else {}
    fixed = {"parameters": {"temperature": 0}}
    return {
        "brief": {"from": "builtin:tiny", "thinking": thinking, **fixed},
        "silent": {"like": "brief", "thinking": {"default": "none"}, "tools": {"parallel": False}},
        "toned": {
            "from": "builtin:tiny",
            "template": {"text": TEMPLATE},
            "template_arguments": {"tone": "dry"},
        },
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with serving(tmp_path_factory.mktemp("thinking"), models(3)) as stack:
        yield stack


def post(server: Stack, path: str, model: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}{path}", json={"model": model, "stream": False, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def openai(server: Stack, model: str, **more: Any) -> tuple[str, str]:
    """The reasoning and the answer of a chat completion."""
    body = post(server, "/v1/chat/completions", model, messages=QUESTION, max_tokens=120, **more)
    message = body["choices"][0]["message"]
    return message.get("reasoning_content", ""), message["content"]


def responses(server: Stack, model: str, **more: Any) -> tuple[str, str]:
    body = post(server, "/v1/responses", model, input=QUESTION[0]["content"], max_output_tokens=120, **more)
    items = {item["type"]: item["content"][0]["text"] for item in body["output"]}
    return items.get("reasoning", ""), items["message"]


def anthropic(server: Stack, model: str, **more: Any) -> tuple[str, str]:
    blocks = post(server, "/v1/messages", model, messages=QUESTION, max_tokens=1500, **more)["content"]
    found = {block["type"]: block.get("thinking") or block.get("text") for block in blocks}
    return found.get("thinking", ""), found["text"]


def ollama(server: Stack, model: str, **more: Any) -> tuple[str, str]:
    message = post(server, "/api/chat", model, messages=QUESTION, **more)["message"]
    return message.get("thinking", ""), message["content"]


ASKED = {
    "openai": (openai, {"reasoning_effort": "high"}, {"reasoning_effort": "none"}),
    "responses": (responses, {"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "none"}}),
    "anthropic": (
        anthropic, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"thinking": {"type": "disabled"}},
    ),
    "ollama": (ollama, {"think": True}, {"think": False}),
}  # fmt: skip


@pytest.mark.parametrize("dialect", ASKED)
def test_the_budget_and_the_default_hold_in_each_dialect(server: Stack, dialect: str) -> None:
    """The budget closes the reasoning in the tokens, and the answer follows; a request may switch it on and off."""
    ask, on, off = ASKED[dialect]
    for settings in ({}, on):
        reasoning, answer = ask(server, "brief", **settings)
        assert 1 <= len(reasoning.split()) <= 3, reasoning
        assert "Paris" in answer
    assert ask(server, "brief", **off)[0] == ""
    reasoning, answer = ask(server, "silent")
    assert (reasoning, "Paris" in answer) == ("", True)
    assert ask(server, "silent", **on)[0] != ""


def test_arguments_of_the_template_are_those_of_the_request_over_the_manifest(server: Stack) -> None:
    def shown(**more: Any) -> str:
        return str(
            post(server, "/apply-template", "toned", messages=[{"role": "user", "content": "hi"}], **more)["prompt"]
        )

    assert shown() == "hi[dry]"
    assert shown(chat_template_kwargs={"tone": "warm"}) == "hi[warm]"
    body = {"model": "toned", "messages": QUESTION, "chat_template_kwargs": {"mood": 1}}
    refused = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert refused.status_code == 400
    assert "'mood' is not an argument of the chat template" in refused.text


def test_one_call_at_a_time_is_what_the_manifest_allows(server: Stack) -> None:
    tools = [{"type": "function", "name": "weather", "parameters": WEATHER}]
    asked = {"input": "Weather in Paris and in Rome?", "tools": tools, "tool_choice": "required"}
    body = post(server, "/v1/responses", "silent", parallel_tool_calls=True, max_output_tokens=200, **asked)
    assert body["parallel_tool_calls"] is False
    assert [item["type"] for item in body["output"] if item["type"] == "function_call"] == ["function_call"]
    assert post(server, "/v1/responses", "brief", max_output_tokens=20, input="hi")["parallel_tool_calls"] is True


def test_a_saved_change_is_live(server: Stack) -> None:
    before = {process.pid for process in server.processes()}
    server.write(models(None))
    eventually(lambda: len(openai(server, "brief")[0].split()) > 3, server.log)
    assert {process.pid for process in server.processes()} == before
    server.write(models(0))
    eventually(lambda: openai(server, "brief")[0] == "", server.log)
