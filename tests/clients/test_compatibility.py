"""Bugs that users of other servers report often; each test shows with real clients that mullama does not have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.client_helpers import FRANCE, block, calling, function, user
from tests.e2e.stack import Stack, stack_in
from tests.official_clients import anthropic, ollama, openai

REFUSES = "{% for m in messages %}{% if m.role == 'user' and 'bad' in m.content %}{{ raise_exception('No bad words!') }}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"  # noqa: E501


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server whose models have a ceiling, and a template that refuses."""
    home: Path = tmp_path_factory.mktemp("other")
    (home / "words.script.json").write_text("{}")
    models = {
        "short": {"from": "./words.script.json", "limits": {"max_tokens": 5}},
        "polite": {"from": "./words.script.json", "template": REFUSES},
    }
    with stack_in(home) as stack:
        stack.write(models)
        stack.serve()
        with httpx.Client(base_url=stack.ready(), timeout=30) as client:
            yield client


def test_every_api_reports_the_same_context_size(http: httpx.Client, llama: ollama.Client) -> None:
    size = next(m.context_length for m in llama.ps().models if m.model == "tiny")

    assert http.get("/v1/models/tiny").json()["context_length"] == size
    assert http.get("/props", params={"model": "tiny"}).json()["default_generation_settings"]["n_ctx"] == size
    assert http.get("/v1/models/tiny", headers={"anthropic-version": "1"}).json()["max_input_tokens"] == size


def test_text_next_to_a_call_is_kept_without_the_call(
    gpt: openai.OpenAI, claude: anthropic.Anthropic, llama: ollama.Client
) -> None:
    asked = calling(("get_weather", {"city": "Oslo"})).replace("say ", "say Let me look. ")

    chat: Any = gpt.chat.completions.create(model="script", messages=user(asked), tools=[function()])
    said = llama.chat("script", user(asked), tools=[function()]).message
    message = claude.messages.create(model="script", max_tokens=200, messages=user(asked), tools=[block()])

    texts = [chat.choices[0].message.content, said.content, message.content[0].text]  # type: ignore[union-attr]
    assert [str(text).strip() for text in texts] == ["Let me look."] * 3
    assert chat.choices[0].message.tool_calls
    assert said.tool_calls
    assert message.content[1].type == "tool_use"


def test_the_template_of_the_file_is_used_and_shown(http: httpx.Client) -> None:
    prompt = http.post("/apply-template", json={"model": "tiny", "messages": user("Hello")}).json()["prompt"]
    shown = http.post("/api/show", json={"model": "tiny"}).json()

    assert shown["template_source"] == "gguf_chat_template"
    assert http.get("/props", params={"model": "tiny"}).json()["chat_template"] == shown["template"]
    assert "Hello" in prompt
    assert prompt != "Hello"


def test_another_num_ctx_does_not_reload_the_model(stack: Stack, llama: ollama.Client, gpt: openai.OpenAI) -> None:
    def loaded() -> list[Any]:
        status = stack.status()
        return [status["workers"], *((m["name"], m["worker"], m["context_size"]) for m in status["models"])]

    before = loaded()
    for size in (512, 2048, 1_000_000):
        answer = llama.chat("tiny", user("Hello"), options={"num_ctx": size, "num_predict": 2})
        assert (answer.load_duration or 0) < 10e9  # nanoseconds; a busy machine may well be held up for one or two
        gpt.chat.completions.create(model="tiny", messages=user("Hello"), max_tokens=2, extra_body={"num_ctx": size})

    assert loaded() == before


def test_every_api_takes_keep_alive(gpt: openai.OpenAI, claude: anthropic.Anthropic, llama: ollama.Client) -> None:
    def expiry() -> Any:
        return next(m.expires_at for m in llama.ps().models if m.model == "script")

    more = {"keep_alive": "2h"}
    gpt.chat.completions.create(model="script", messages=user("say x"), extra_body=more)
    first = expiry()
    assert (first - datetime.now(UTC)).total_seconds() > 7000
    gpt.chat.completions.create(model="script", messages=user("say x"))
    assert abs((expiry() - first).total_seconds()) < 60  # a request that says nothing changes nothing
    claude.messages.create(model="script", max_tokens=9, messages=user("say x"), extra_body={"keep_alive": "4h"})
    assert (expiry() - first).total_seconds() > 7000


def test_ids_of_answers_and_calls_are_unique(gpt: openai.OpenAI) -> None:
    asked = calling(("get_weather", {}), ("get_weather", {}))
    ids: list[str] = []
    for _ in range(30):
        answer: Any = gpt.chat.completions.create(model="script", messages=user(asked), tools=[function()])
        ids += [answer.id, *(call.id for call in answer.choices[0].message.tool_calls)]

    assert len(set(ids)) == len(ids) == 90


def test_the_token_limit_of_the_manifest_holds_for_every_api(other: httpx.Client) -> None:
    asked = {"model": "short", "messages": user("count to 99"), "max_tokens": 50, "stream": False}

    chat = other.post("/v1/chat/completions", json=asked).json()
    assert (chat["usage"]["completion_tokens"], chat["choices"][0]["finish_reason"]) == (5, "length")
    message = other.post("/v1/messages", json=asked).json()
    assert (message["usage"]["output_tokens"], message["stop_reason"]) == (5, "max_tokens")
    line = other.post("/api/chat", json={**asked, "options": {"num_predict": -1}}).json()
    assert (line["eval_count"], line["done_reason"]) == (5, "length")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_by_the_template_is_a_400_with_its_message(other: httpx.Client, path: str, stream: bool) -> None:
    body = {"model": "polite", "messages": user("a bad word"), "max_tokens": 9, "stream": stream}

    answer = other.post(path, json=body)

    assert answer.status_code == 400
    assert "No bad words!" in answer.text


def test_developer_and_late_system_messages_keep_their_position_in_the_prompt(http: httpx.Client) -> None:
    turns = [{"role": role, "content": f"<{role}>"} for role in ("developer", "user", "assistant", "system", "user")]

    prompt = http.post("/apply-template", json={"model": "script", "messages": turns}).json()["prompt"]

    assert [prompt.index(word) for word in ("<developer>", "<assistant>", "<system>")] == sorted(
        prompt.index(word) for word in ("<developer>", "<assistant>", "<system>")
    )


def test_a_nonce_in_the_billing_line_does_not_invalidate_the_cache(claude: anthropic.Anthropic) -> None:
    rules = "You help with weather and always answer in one short sentence. " * 4
    used = []
    for nonce in ("aaaa", "bbbb"):
        system: Any = [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={nonce};"},
            {"type": "text", "text": rules, "cache_control": {"type": "ephemeral"}},
        ]
        used.append(claude.messages.create(model="tiny", max_tokens=2, system=system, messages=user(FRANCE)).usage)

    assert (used[1].cache_read_input_tokens or 0) > 20
    assert used[1].input_tokens < 8


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("/v1/chat/completions", "text/event-stream"),
        ("/v1/messages", "text/event-stream"),
        ("/api/chat", "application/x-ndjson"),
    ],
)
def test_proxies_do_not_buffer_a_stream(http: httpx.Client, path: str, media: str) -> None:
    body = {"model": "script", "messages": user("count to 5"), "max_tokens": 50, "stream": True}
    with http.stream("POST", path, json=body) as answer:
        headers = answer.headers
        text = "".join(answer.iter_text())

    assert headers["content-type"].startswith(media)
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers
    assert "\r" not in text


def test_each_parallel_request_has_the_complete_context(llama: ollama.Client, http: httpx.Client) -> None:
    """Four requests may run at once (limits.parallel), and each may use what is advertised."""
    size = (llama.show("tiny").modelinfo or {})["llama.context_length"]
    assert size == next(m.context_length for m in llama.ps().models if m.model == "tiny")
    word = http.post("/tokenize", json={"model": "tiny", "content": " hello"}).json()["tokens"]
    prompt = word * (size * 3 // 4 // len(word))

    answer = http.post("/v1/completions", json={"model": "tiny", "prompt": prompt, "max_tokens": 2}).json()

    assert answer["usage"]["prompt_tokens"] >= len(prompt)
    assert json.dumps(answer["choices"][0]["finish_reason"]) in ('"length"', '"stop"')
