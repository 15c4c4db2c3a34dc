"""The endpoints with which clients of llama-server, LM Studio and Ollama manage models, on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, eventually, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    models = {
        "demo": {"from": "builtin:tiny", "parameters": {"temperature": 0}},
        "spare": {"from": "builtin:tiny", "context": {"size": 256}, "residency": {"load": "on_demand"}},
    }
    with serving(tmp_path_factory.mktemp("endpoints"), models, routes={"fast": "demo"}) as stack:
        yield stack


def get(server: Stack, path: str) -> Any:
    answer = httpx.get(f"{server.url}{path}", timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(server: Stack, path: str, code: int = 200, **body: Any) -> Any:
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    assert answer.status_code == code, answer.text
    return answer.json()


def test_a_router_client_loads_unloads_and_follows_a_model(server: Stack) -> None:
    def states() -> dict[str, str]:
        return {model["id"]: model["status"]["value"] for model in get(server, "/models")["data"]}

    assert states() == {"demo": "loaded", "spare": "unloaded"}
    assert get(server, "/models")["data"][0]["aliases"] == ["fast"]
    with httpx.stream("GET", f"{server.url}/models/sse", timeout=60) as events:
        lines = (json.loads(line.removeprefix("data: ")) for line in events.iter_lines() if line)
        assert {next(lines)["model"], next(lines)["model"]} == {"demo", "spare"}
        assert post(server, "/models/load", model="spare") == {"success": True}
        seen = [next(lines) for _ in range(2)]
        assert [(event["model"], event["data"]["status"]) for event in seen] == [
            ("spare", "loading"),
            ("spare", "loaded"),
        ]
        assert states()["spare"] == "loaded"
        assert post(server, "/models/unload", model="spare") == {"success": True}
        while (event := next(lines))["data"]["status"] != "unloaded":
            assert event["model"] == "spare"
    eventually(lambda: states()["spare"] == "unloaded", server.log)
    assert "'nope'" in post(server, "/models/load", code=404, model="nope")["error"]["message"]


def test_slots_and_adapters_are_shown_and_their_states_refused_with_the_reason(server: Stack) -> None:
    slots = get(server, "/slots?model=demo")
    assert [slot["id"] for slot in slots] == [*range(len(slots))]
    assert slots[0]["n_ctx"] > 0
    refused = httpx.post(f"{server.url}/slots/0?action=save&model=demo", json={"filename": "x"}, timeout=60)
    assert refused.status_code in (400, 501)
    assert "residency.keep.conversations" in refused.text
    assert get(server, "/lora-adapters?model=demo") == []
    assert get(server, "/props?model=demo")["default_generation_settings"]["n_ctx"] > 0


def test_clients_of_lm_studio_and_ollama_find_the_models(server: Stack) -> None:
    listed = {model["id"]: model for model in get(server, "/api/v0/models")["data"]}
    assert (listed["demo"]["state"], listed["spare"]["state"]) == ("loaded", "not-loaded")
    assert (listed["demo"]["type"], listed["demo"]["quantization"]) == ("llm", "Q8_0")
    assert get(server, "/api/v0/models/demo") == listed["demo"]
    chat = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert post(server, "/api/v0/chat/completions", **chat)["usage"]["completion_tokens"] <= 4

    (running,) = get(server, "/api/ps")["models"]
    assert (running["name"], running["context_length"]) == ("demo", listed["demo"]["loaded_context_length"])
    tags = {model["name"]: model for model in get(server, "/api/tags")["models"]}
    assert {"completion", "tools", "thinking"} <= set(tags["demo"]["capabilities"])
    answer = post(
        server, "/api/chat", model="demo", stream=False, think=False, messages=chat["messages"], logprobs=True
    )
    assert answer["done"] is True
    assert "".join(token["token"] for token in answer["logprobs"]) == answer["message"]["content"]


def test_a_stream_that_lost_its_connection_is_read_on(server: Stack) -> None:
    body = {
        "model": "demo",
        "stream": True,
        "max_tokens": 60,
        "messages": [{"role": "user", "content": "Count to nine."}],
    }
    headers = {"x-conversation-id": "talk-1"}
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as stream:
        first = next(stream.iter_raw())

    def found() -> dict[str, Any]:
        (one,) = post(server, "/v1/streams/lookup", conversation_ids=["talk-1"])
        return dict(one)

    eventually(lambda: bool(found()["is_done"]), server.log)
    rest = httpx.get(f"{server.url}/v1/stream?conv_id=talk-1&from={len(first)}", timeout=60).content
    assert len(first) + len(rest) == found()["total_bytes"]
    assert (first + rest).endswith(b"data: [DONE]\n\n")
    events = [
        json.loads(part.removeprefix(b"data: ")) for part in (first + rest).split(b"\n\n") if part[:7] == b"data: {"
    ]
    assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert httpx.delete(f"{server.url}/v1/stream?conv_id=talk-1", timeout=60).status_code == 204
    assert httpx.get(f"{server.url}/v1/stream?conv_id=talk-1", timeout=60).status_code == 404
