"""A route to several models in the official clients: each conversation stays, the header names the model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import Stack, serving
from tests.official_clients import anthropic, ollama, openai

ROUTES = {
    "shared": {"to": ["one", "two"]},
    "safe": {"to": "broken", "fallback": ["one"]},
    "brief": {"to": "one", "force": {"num_predict": 1}},
}
HEADER = "mullama-model"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp("routes")
    for name in ("one", "two"):
        (home / f"{name}.script.json").write_text(json.dumps({"default": f"I am {name}"}))
    (home / "broken.script.json").write_text(json.dumps({"faults": True, "on_open": "crash exit"}))
    models = {name: f"./{name}.script.json" for name in ("one", "two")}
    broken = {"from": "./broken.script.json", "residency": {"load": "on_demand"}}
    with serving(home, {**models, "broken": broken}, routes=ROUTES) as found:
        yield found


def test_the_openai_client(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        chats = client.chat.completions.with_raw_response
        seen = set()
        for number in range(10):
            asked = [{"role": "user", "content": f"question {number}"}]
            one = chats.create(model="shared", messages=asked)
            other = chats.create(model="shared", messages=asked, stream=True)
            assert one.headers[HEADER] == other.headers[HEADER]
            assert one.parse().choices[0].message.content == f"I am {one.headers[HEADER]}"
            assert one.parse().model == "shared"
            text = "".join(chunk.choices[0].delta.content or "" for chunk in other.parse())
            assert text == f"I am {one.headers[HEADER]}"
            seen.add(one.headers[HEADER])
        assert seen == {"one", "two"}
        same = {
            client.responses.with_raw_response.create(
                model="shared", input=f"question {number}", prompt_cache_key="c"
            ).headers[HEADER]
            for number in range(10)
        }
        assert len(same) == 1
        assert chats.create(model="safe", messages=asked).headers[HEADER] == "one"
        brief = client.chat.completions.create(model="brief", messages=asked, max_tokens=50)
        assert brief.choices[0].finish_reason == "length"
        vectors = client.embeddings.with_raw_response.create(model="shared", input="x")
        assert vectors.headers[HEADER] in ("one", "two")
        assert {"shared", "safe", "brief"} <= {model.id for model in client.models.list()}


def test_the_anthropic_client(stack: Stack) -> None:
    with anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0, timeout=60) as client:
        messages = client.messages.with_raw_response
        for number in range(6):
            asked = [{"role": "user", "content": f"question {number}"}]
            found = messages.create(model="shared", max_tokens=50, messages=asked)
            assert found.parse().content[0].text == f"I am {found.headers[HEADER]}"
        fallen = messages.create(model="safe", max_tokens=50, messages=asked)
        assert (fallen.headers[HEADER], fallen.parse().model) == ("one", "safe")


def test_the_ollama_client(stack: Stack) -> None:
    client = ollama.Client(host=stack.url, timeout=60)
    asked = [{"role": "user", "content": "hello"}]
    with contextlib.closing(client._client):
        assert client.chat(model="safe", messages=asked)["message"]["content"] == "I am one"
        assert client.generate(model="shared", prompt="x")["response"] in ("I am one", "I am two")
        assert client.show("shared")["details"] is not None
    with httpx.Client(base_url=stack.url, timeout=60) as http:
        reply = http.post("/api/chat", json={"model": "shared", "messages": asked, "stream": False})
        assert reply.json()["message"]["content"] == f"I am {reply.headers[HEADER]}"
        native = http.post("/completion", json={"model": "shared", "prompt": "x"})
        assert native.headers[HEADER] in ("one", "two")
