"""SmolLM2 behind a real server: conversations in every dialect, by the official clients."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from benches.real_models import SMOLLM2
from tests.clients.client_helpers import OSLO, PERSON, WEATHER, function
from tests.e2e.stack import Stack, serving
from tests.engines.near_tie import QUANTISED
from tests.official_clients import anthropic, ollama, openai
from tests.real.conftest import real_file
from tests.real.scored_answers import ScoredAnswer, scored

pytestmark = pytest.mark.real

QUESTION = "Which ocean is the largest?"
MOST = 24
# More than 256 tokens, so that a declared prefix has cells that its conversations share.
SYSTEM = "You are the clerk of a small harbour. " + "You know every ship, its cargo and its master. " * 30
GREEDY: dict[str, Any] = {"parameters": {"temperature": 0}, "context": {"size": 2048}}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    source = str(real_file(SMOLLM2.name))
    models = {"smol": {"from": source, **GREEDY}, "clerk": {"from": source, "system": SYSTEM, **GREEDY}}
    with serving(tmp_path_factory.mktemp("smollm2"), models, routes={"default": "smol"}) as found:
        yield found


@pytest.fixture(scope="module")
def gpt(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=180) as client:
        yield client


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=180) as client:
        yield client


@pytest.fixture(scope="module")
def answer(gpt: openai.OpenAI) -> ScoredAnswer:
    return scored(gpt, "smol", QUESTION, MOST)


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_an_apply_again_changes_nothing(stack: Stack) -> None:
    stack.run("diff", "-f", stack.name, code=0)
    assert {model["state"] for model in stack.status()["models"]} == {"ready"}


def test_the_model_knows_the_answer(answer: ScoredAnswer) -> None:
    assert "Pacific" in answer.text


def test_every_dialect_gives_the_same_answer(
    answer: ScoredAnswer, stack: Stack, gpt: openai.OpenAI, http: httpx.Client
) -> None:
    claude = anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0, timeout=180)
    llama = ollama.Client(host=stack.url, timeout=180)
    options = {"temperature": 0, "num_predict": MOST}
    message = claude.messages.create(model="smol", messages=user(QUESTION), max_tokens=MOST)
    response = gpt.responses.create(model="smol", input=QUESTION, max_output_tokens=MOST, temperature=0)
    prompt = http.post("/apply-template", json={"model": "smol", "messages": user(QUESTION)}).json()["prompt"]
    asked = {"model": "smol", "prompt": prompt, "n_predict": MOST, "temperature": 0}
    texts = {
        "chat": gpt.chat.completions.create(model="smol", messages=user(QUESTION), max_tokens=MOST)
        .choices[0]
        .message.content,
        "responses": response.output_text,
        "messages": "".join(block.text for block in message.content if block.type == "text"),
        "ollama chat": llama.chat(model="smol", messages=user(QUESTION), options=options).message.content,
        "ollama generate": llama.generate(model="smol", prompt=QUESTION, options=options).response,
        "completion": http.post("/completion", json=asked).json()["content"],
    }
    claude.close()
    llama._client.close()
    for name, text in texts.items():
        assert text, name
        answer.assert_same(text)


def test_streams_are_the_whole_answer(answer: ScoredAnswer, stack: Stack, gpt: openai.OpenAI) -> None:
    with gpt.chat.completions.create(model="smol", messages=user(QUESTION), max_tokens=MOST, stream=True) as stream:
        chat = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    claude = anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0, timeout=180)
    with claude.messages.stream(model="smol", messages=user(QUESTION), max_tokens=MOST) as messages:
        message = "".join(messages.text_stream)
    claude.close()
    llama = ollama.Client(host=stack.url, timeout=180)
    parts = llama.generate(model="smol", prompt=QUESTION, options={"num_predict": MOST}, stream=True)
    generated = "".join(part.response for part in parts)
    llama._client.close()
    for text in (chat, message, generated):
        answer.assert_same(text)


def test_a_stop_word_ends_the_answer_before_it(answer: ScoredAnswer, gpt: openai.OpenAI) -> None:
    stop = answer.text[12:16]
    found = gpt.chat.completions.create(model="smol", messages=user(QUESTION), max_tokens=MOST, stop=[stop])
    assert found.choices[0].finish_reason == "stop"
    assert stop not in (found.choices[0].message.content or "")
    answer.assert_same((found.choices[0].message.content or "") + answer.text[answer.text.index(stop) :])


def test_an_answer_under_a_schema_is_valid(gpt: openai.OpenAI) -> None:
    found = gpt.chat.completions.create(
        model="smol",
        messages=user("Make up a person: name and age, as JSON."),
        max_tokens=120,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}},
    )
    assert found.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(found.choices[0].message.content or ""), PERSON)


def test_a_required_tool_is_called_with_valid_arguments(gpt: openai.OpenAI) -> None:
    tools: Any = [function()]
    found = gpt.chat.completions.create(
        model="smol",
        messages=user(OSLO),
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=120,
    )
    (call,) = found.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER)


def test_the_prompt_describes_the_tools(http: httpx.Client) -> None:
    asked = {"model": "smol", "messages": user(OSLO)}
    plain = http.post("/apply-template", json=asked).json()["prompt"]
    described = http.post("/apply-template", json={**asked, "tools": [function()]}).json()["prompt"]
    assert "get_weather" not in plain
    assert "get_weather" in described
    assert '"city"' in described


def test_logprobs_are_of_the_distribution(gpt: openai.OpenAI) -> None:
    found = gpt.chat.completions.create(
        model="smol", messages=user(QUESTION), max_tokens=MOST, logprobs=True, top_logprobs=20
    )
    assert found.choices[0].logprobs is not None
    for entry in found.choices[0].logprobs.content or []:
        likely = [top.logprob for top in entry.top_logprobs]
        assert likely == sorted(likely, reverse=True)
        assert entry.logprob == likely[0]
        assert 0 < sum(map(math.exp, likely)) < 1 + 1e-4


def test_the_logprobs_of_an_answer_are_those_of_its_text(
    answer: ScoredAnswer, gpt: openai.OpenAI, http: httpx.Client
) -> None:
    """One request chooses the tokens, another one reads them as its prompt."""
    said = gpt.chat.completions.create(
        model="smol", messages=user(QUESTION), max_tokens=MOST, logprobs=True, extra_body={"cache_prompt": False}
    )
    chosen = [entry.logprob for entry in (said.choices[0].logprobs and said.choices[0].logprobs.content) or []]
    prompt = http.post("/apply-template", json={"model": "smol", "messages": user(QUESTION)}).json()["prompt"]
    text = prompt + (said.choices[0].message.content or "")
    read = gpt.completions.create(model="smol", prompt=text, max_tokens=0, echo=True, logprobs=0)
    assert read.choices[0].logprobs is not None
    tokens = read.choices[0].logprobs.tokens or []
    begin = next(i for i in range(len(tokens)) if len("".join(tokens[:i])) >= len(prompt))
    scores = (read.choices[0].logprobs.token_logprobs or [])[begin:]
    count = min(len(scores), len(chosen))  # the end token has no text
    assert count >= 6
    assert all(abs(a - b) <= QUANTISED for a, b in zip(chosen[:count], scores[:count], strict=True))


def test_counts_are_those_of_the_tokenizer(answer: ScoredAnswer, gpt: openai.OpenAI, http: httpx.Client) -> None:
    prompt = http.post("/apply-template", json={"model": "smol", "messages": user(QUESTION)}).json()["prompt"]
    tokens = http.post("/tokenize", json={"model": "smol", "content": prompt, "parse_special": True}).json()["tokens"]
    assert http.post("/detokenize", json={"model": "smol", "tokens": tokens}).json()["content"] == prompt
    found = gpt.chat.completions.create(model="smol", messages=user(QUESTION), max_tokens=MOST, logprobs=True)
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(tokens)
    entries = (found.choices[0].logprobs and found.choices[0].logprobs.content) or []
    assert found.usage.completion_tokens in (len(entries), len(entries) + 1)  # an end token is counted, and has no text


@pytest.mark.parametrize("text", ["naïve café", "東京都 한국어", "🎉\t\n  x", "1234567890", "<|im_start|>", " a  b "])
def test_tokens_give_back_their_text(text: str, http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"model": "smol", "content": text}).json()["tokens"]
    assert http.post("/detokenize", json={"model": "smol", "tokens": tokens}).json()["content"] == text


def test_a_declared_system_prompt_answers_as_the_same_one_in_a_request(gpt: openai.OpenAI) -> None:
    ship = "Which ships do you know?"
    declared = scored(gpt, "clerk", ship, MOST)
    found = gpt.chat.completions.create(
        model="smol", messages=[{"role": "system", "content": SYSTEM}, *user(ship)], max_tokens=MOST
    )
    declared.assert_same(found.choices[0].message.content or "")
    again = gpt.chat.completions.create(model="clerk", messages=user(ship), max_tokens=MOST)
    declared.assert_same(again.choices[0].message.content or "")
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) > 256
