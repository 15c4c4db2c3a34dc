"""The ollama package against a real server: chat, generate, embeddings, inventory, residence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from mullama.manifest.modelfile import parse_modelfile
from tests.clients.client_helpers import ADA, FRANCE, OSLO, PERSON, calling, function, user
from tests.e2e.stack import eventually
from tests.official_clients import ollama

TOOLS: Any = [function(), function("get_time", {"type": "object", "properties": {}})]


def get_weather(city: str) -> str:
    """Look up the weather.

    Args:
        city: the name of a city

    Returns:
        str: the weather in words
    """
    return f"rain in {city}"


# Chat and generate.


def test_an_answer_has_counts_and_durations(llama: ollama.Client) -> None:
    answer = llama.chat("tiny", user(FRANCE), options={"num_predict": 60})

    assert "Paris" in (answer.message.content or "")
    assert (answer.model, answer.done, answer.done_reason) == ("tiny", True, "stop")
    assert answer.prompt_eval_count
    assert answer.eval_count
    assert answer.total_duration
    assert answer.created_at
    assert datetime.fromisoformat(answer.created_at).tzinfo


def test_a_streamed_answer_is_the_whole_one(llama: ollama.Client) -> None:
    whole = llama.chat("tiny", user(FRANCE), options={"num_predict": 60})
    parts = list(llama.chat("tiny", user(FRANCE), stream=True, options={"num_predict": 60}))

    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts].count(True) == 1
    assert (parts[-1].done, parts[-1].eval_count) == (True, whole.eval_count)


def test_generate_continues_with_its_context(llama: ollama.Client) -> None:
    first = llama.generate("tiny", FRANCE, options={"num_predict": 20})
    assert first.context
    assert all(isinstance(token, int) for token in first.context)

    second = llama.generate("tiny", "And of Norway?", context=first.context, options={"num_predict": 20})

    assert second.prompt_eval_count is not None
    assert second.prompt_eval_count > len(first.context)


def test_generate_streams_and_takes_a_prompt_as_it_is(llama: ollama.Client) -> None:
    parts = list(llama.generate("script", "count to 5", stream=True))
    assert "".join(part.response or "" for part in parts) == "1 2 3 4 5"
    assert (parts[-1].done, parts[-1].done_reason) == (True, "stop")

    raw = llama.generate("script", "count to 3", raw=True)
    assert raw.response == "1 2 3"
    assert raw.context is None


def test_generate_fills_in_the_middle(llama: ollama.Client) -> None:
    answer = llama.generate("tiny", "def add(a, b):\n", suffix="\n    return c\n", options={"num_predict": 16})

    assert answer.done_reason in ("stop", "length")
    assert "<|fim" not in (answer.response or "")


def test_a_stop_string_and_a_limit_end_the_answer(llama: ollama.Client) -> None:
    stopped = llama.chat("script", user("count to 9"), options={"stop": ["5"]})
    assert (stopped.message.content, stopped.done_reason) == ("1 2 3 4 ", "stop")

    cut = llama.chat("script", user("count to 99"), options={"num_predict": 4})
    assert (cut.eval_count, cut.done_reason) == (4, "length")


def test_a_seed_repeats_an_answer(llama: ollama.Client) -> None:
    def ask(seed: int) -> str | None:
        options = {"seed": seed, "temperature": 1.5, "num_predict": 8}
        return llama.chat("single", user("Tell me a story."), think=False, options=options).message.content

    ask(3)  # the prompt is cached from now on, so all batches have the same shapes
    assert ask(3) == ask(3)
    assert len({ask(seed) for seed in range(3)}) > 1


def test_logprobs_come_with_their_alternatives(llama: ollama.Client) -> None:
    answer = llama.chat("tiny", user(FRANCE), think=False, logprobs=True, top_logprobs=2, options={"num_predict": 5})

    assert answer.logprobs is not None
    assert len(answer.logprobs) == answer.eval_count == 5
    assert "".join(one.token for one in answer.logprobs) == answer.message.content
    assert all(len(one.top_logprobs or ()) == 2 for one in answer.logprobs)


# Tools, thinking, formats.


def test_the_built_in_model_calls_a_python_function(llama: ollama.Client) -> None:
    answer = llama.chat("tiny", user(OSLO), tools=[get_weather], options={"num_predict": 120})
    [call] = answer.message.tool_calls or ()

    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Oslo"})
    assert answer.done_reason == "stop"


def test_a_call_can_be_required_here_too(http: httpx.Client) -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    body = {"model": "tiny", "messages": user(OSLO), "tools": TOOLS, "tool_choice": named, "stream": False}

    message = http.post("/api/chat", json=body).json()["message"]

    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_time"]


def test_streamed_calls_are_whole_and_come_before_the_last_line(llama: ollama.Client) -> None:
    asked = calling(("get_weather", {"city": "Oslo", "days": 2}), ("get_time", {}))
    parts = list(llama.chat("script", user(asked), tools=TOOLS, stream=True))

    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [(c.function.name, dict(c.function.arguments)) for c in calls] == [
        ("get_weather", {"city": "Oslo", "days": 2}), ("get_time", {}),
    ]  # fmt: skip
    assert parts[-1].done
    assert not parts[-1].message.tool_calls


def test_a_tool_result_is_answered(llama: ollama.Client) -> None:
    first = llama.chat("tiny", user(OSLO), tools=[get_weather], options={"num_predict": 120}).message
    turns = [*user(OSLO), first, {"role": "tool", "tool_name": "get_weather", "content": "7 degrees and rain"}]

    second = llama.chat("tiny", turns, tools=[get_weather], options={"num_predict": 60}).message

    assert second.content or second.tool_calls


def test_the_built_in_model_thinks_when_it_is_asked_to(llama: ollama.Client) -> None:
    answer = llama.chat("tiny", user(FRANCE), think=True, options={"num_predict": 200}).message
    assert len(answer.thinking or "") > 10
    assert "Paris" in (answer.content or "")

    generated = llama.generate("tiny", FRANCE, think=True, options={"num_predict": 200})
    assert len(generated.thinking or "") > 10
    assert llama.chat("tiny", user(FRANCE), think=False, options={"num_predict": 60}).message.thinking is None


def test_thinking_is_streamed_before_the_text(llama: ollama.Client) -> None:
    parts = list(llama.chat("script", user("think about it\nsay Yes."), stream=True, think=True))

    assert "".join(part.message.thinking or "" for part in parts) == "about it"
    assert "".join(part.message.content or "" for part in parts) == "Yes."


@pytest.mark.parametrize("think", [True, False])
def test_the_built_in_model_fills_in_a_schema(llama: ollama.Client, think: bool) -> None:
    answer = llama.chat("tiny", user(ADA), format=PERSON, think=think, options={"num_predict": 300}).message

    assert set(json.loads(answer.content or "")) == {"name", "age"}
    assert bool(answer.thinking) == think


def test_generate_thinks_and_keeps_to_its_format(llama: ollama.Client) -> None:
    answer = llama.generate("tiny", ADA, format=PERSON, think=True, options={"num_predict": 300})

    assert answer.thinking
    assert set(json.loads(answer.response or "")) == {"name", "age"}


def test_json_is_written_where_it_is_asked_for(llama: ollama.Client) -> None:
    answer = llama.chat("tiny", user(ADA), format="json", options={"num_predict": 200}).message

    assert isinstance(json.loads(answer.content or ""), dict)


# Embeddings.


@pytest.mark.parametrize(("said", "count"), [("one", 1), (["one", "two", "three"], 3), ([], 0)])
def test_embed_takes_one_text_several_or_none(llama: ollama.Client, said: Any, count: int) -> None:
    answer = llama.embed("tiny", said)

    assert len(answer.embeddings) == count
    for vector in answer.embeddings:
        assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-4)


def test_embed_cuts_dimensions_and_the_old_endpoint_still_answers(llama: ollama.Client) -> None:
    assert len(llama.embed("tiny", "one", dimensions=8).embeddings[0]) == 8
    assert len(llama.embeddings("tiny", "one").embedding) > 8


def test_a_long_text_is_cut_only_where_that_is_allowed(llama: ollama.Client) -> None:
    assert llama.embed("tiny", "word " * 5000, truncate=True).embeddings
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as caught:
        llama.embed("tiny", "word " * 5000, truncate=False)
    assert caught.value.status_code == 400


# Inventory and residence.


def test_models_are_listed_with_their_details(llama: ollama.Client) -> None:
    listed = {model.model: model for model in llama.list().models}

    one = listed["tiny"]
    assert one.modified_at is not None
    assert one.digest is not None
    assert len(one.digest) == 64
    assert one.size
    assert one.details is not None
    assert (one.details.format, bool(one.details.quantization_level)) == ("gguf", True)


def test_show_has_what_other_clients_read(llama: ollama.Client, http: httpx.Client) -> None:
    shown = llama.show("tiny")
    assert shown.modelinfo is not None
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.context_length"] > 0
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities or ())
    assert shown.template
    assert shown.details is not None

    whole = http.post("/api/show", json={"model": "tiny"}).json()
    assert whole["thinking"] == {"values": [True, False], "default": True}
    assert whole["template_source"] == "gguf_chat_template"
    assert "num_ctx" in whole["parameters"]
    assert parse_modelfile(whole["modelfile"]).spec.base == "builtin:tiny"


def test_a_model_is_loaded_kept_and_let_go(llama: ollama.Client) -> None:
    assert llama.generate("script").done_reason == "load"
    running = {model.model: model for model in llama.ps().models}
    assert running["script"].expires_at is not None
    assert running["script"].expires_at > datetime.now(UTC)
    assert running["script"].context_length

    assert llama.generate("script", keep_alive=0).done_reason == "unload"
    eventually(lambda: "script" not in {model.model for model in llama.ps().models})
    answer = llama.chat("script", [], keep_alive="1h")
    assert (answer.done_reason, answer.message.content) == ("load", "")
    expires = {model.model: model.expires_at for model in llama.ps().models}["script"]
    assert expires is not None
    assert 3500 < (expires - datetime.now(UTC)).total_seconds() <= 3600


def test_an_unloaded_model_comes_back_for_a_request(llama: ollama.Client) -> None:
    llama.chat("script", user("say one"), keep_alive=0)

    assert llama.chat("script", user("say two")).message.content == "two"


def test_the_version_is_one_that_clients_understand(http: httpx.Client) -> None:
    version = http.get("/api/version").json()

    assert [int(part) for part in version["version"].split(".")[:2]] >= [0, 30]
    assert http.head("/api/version").status_code == http.head("/api/tags").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/push", {"model": "tiny"}),
        ("POST", "/api/me", {}),
        ("POST", "/api/signout", {}),
        ("POST", "/api/experimental/web_search", {"query": "x"}),
    ],
)
def test_what_needs_an_account_elsewhere_is_refused_in_words(
    http: httpx.Client, method: str, path: str, body: Any
) -> None:
    answer = http.request(method, path, json=body)

    assert answer.status_code in (401, 403, 404, 501)
    assert isinstance(answer.json()["error"], str)
