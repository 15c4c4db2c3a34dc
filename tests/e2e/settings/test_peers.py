"""A server that leads to another one: answers in each dialect, errors, cancel, ejection and return."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.e2e.stack import Stack, eventually, serving, stack_in

RULES = [
    {"when": "long", "say": "word " * 2000},
    {"when": "tool", "call": {"name": "look", "arguments": {"at": "x"}}},
    {"when": ".", "say": "from afar"},
]
SECRET = {"BOX_KEY": "sesame"}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("box")
    (home / "far.script.json").write_text(json.dumps({"name": "far", "constraints": True, "rules": RULES}))
    with stack_in(home) as stack:
        stack.variables = SECRET
        far = {"from": "./far.script.json", "limits": {"parallel": 16}}
        stack.write({"far": far}, auth={"keys": {"gate": {"secret": {"from_env": "BOX_KEY"}}}})
        stack.serve()
        stack.ready()
        yield stack


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, box: Stack) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("gate")
    (home / "near.script.json").write_text(json.dumps({"name": "near", "rules": [{"when": ".", "say": "from here"}]}))
    peers = {
        "box": {"url": f"{box.url}/v1", "key": {"from_env": "BOX_KEY"}},
        "closed": {"url": box.url, "key": {"from_env": "WRONG"}},
        "gone": {"url": "http://127.0.0.1:9"},
        "lost": {"url": "http://127.0.0.1:9"},
    }
    routes = {
        "default": "far@box",
        "safe": {"to": ["far@gone"], "fallback": ["near"]},
        "shared": {"to": ["far@box", "far@lost"], "fallback": ["far@lost", "far@box"]},
        "gone": "far@gone",
        "closed": "far@closed",
        "unknown": "other@box",
    }
    with stack_in(home) as stack:
        stack.variables = {**SECRET, "WRONG": "open"}
        stack.write({"near": "./near.script.json"}, peers=peers, routes=routes)
        stack.serve()
        stack.ready()
        yield stack


def ask(gate: Stack, route: str, text: str = "hi", **more: Any) -> httpx.Response:
    body = {"model": route, "messages": [{"role": "user", "content": text}], **more}
    return httpx.post(f"{gate.url}/v1/chat/completions", json=body, timeout=60)


def test_each_dialect_gets_the_answer_of_the_peer(gate: Stack) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=f"{gate.url}/v1", api_key="-") as client:
        with client.chat.completions.create(model="default", messages=messages, stream=True) as chunks:
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "from afar"
        responded = client.responses.create(model="default", input="hi")
        assert responded.output_text == "from afar"
    with ollama.Client(gate.url) as client:
        assert client.chat("default", messages=messages).message.content == "from afar"
        assert client.generate("default", "hi", system="Be kind.").response == "from afar"
    with anthropic.Anthropic(base_url=gate.url, api_key="-") as claude:
        answer = claude.messages.create(model="default", max_tokens=99, messages=messages)
        assert answer.content[0].type == "text"
        assert answer.content[0].text == "from afar"
        assert answer.usage.output_tokens > 0
    assert ask(gate, "default").headers["mullama-model"] == "far@box"


def test_tools_are_called_and_vectors_made_there(gate: Stack) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    message = ask(gate, "default", "tool", tools=[tool]).json()["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":"x"}'}
    made = httpx.post(f"{gate.url}/v1/embeddings", json={"model": "default", "input": ["a", "b"]}, timeout=60)
    assert len(made.json()["data"]) == 2
    counted = httpx.post(f"{gate.url}/tokenize", json={"model": "default", "content": "a"}, timeout=60)
    assert (counted.status_code, "model of the peer box" in counted.text) == (400, True)
    body = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
    counted = httpx.post(f"{gate.url}/v1/messages/count_tokens", json=body, timeout=60)
    assert (counted.status_code, "far@box is a model of a peer" in counted.text) == (400, True)


def test_a_route_to_a_peer_is_shown_run_and_planned_as_one_to_a_model(gate: Stack) -> None:
    assert gate.run("run", "default", "hi").stdout.strip() == "from afar"
    with ollama.Client(gate.url) as client:
        assert client.show("safe").capabilities == ["completion"]
        assert client.show("default").capabilities == ["completion"]
    assert "nothing to do" in gate.run("diff", "--target", "safe").stdout.casefold()


def test_a_client_that_leaves_ends_the_work_of_the_peer(gate: Stack, box: Stack) -> None:
    body = {"model": "default", "stream": True, "messages": [{"role": "user", "content": "long"}]}
    with httpx.stream("POST", f"{gate.url}/v1/chat/completions", json=body, timeout=60) as response:
        next(response.iter_bytes())

    def ended() -> bool:
        return sum(model["active"] for model in box.status()["models"]) == 0

    eventually(ended, box.log)


def test_a_peer_with_more_than_its_share_answers_for_one_that_is_lost(gate: Stack) -> None:
    body = {"model": "default", "stream": True, "messages": [{"role": "user", "content": "long slow 50ms"}]}
    with ExitStack() as running:
        for _ in range(6):
            url = f"{gate.url}/v1/chat/completions"
            pieces = running.enter_context(httpx.stream("POST", url, json=body, timeout=60)).iter_bytes()
            running.callback(pieces.close)  # an iterator that nothing holds closes its answer
            next(pieces)
        answer = ask(gate, "shared")  # the peer `lost` is not known to be lost
        assert (answer.status_code, answer.headers.get("mullama-model")) == (200, "far@box"), answer.text
    assert 'mullama_route_fallbacks_total{fallback="far@box",model="far@lost"' in httpx.get(f"{gate.url}/metrics").text


def test_the_failures_of_a_peer_are_errors_of_the_dialect(gate: Stack) -> None:
    closed, unknown = ask(gate, "closed"), ask(gate, "unknown")
    assert (closed.status_code, "refuses the key" in closed.json()["error"]["message"]) == (503, True)
    assert (unknown.status_code, "other" in unknown.json()["error"]["message"]) == (503, True)
    wrong = ask(gate, "default", "hi", messages=[])
    assert wrong.status_code == 400
    said = httpx.post(f"{gate.url}/api/chat", json={"model": "gone", "messages": [{"role": "user", "content": "a"}]})
    assert (said.status_code, "peer gone is not reachable" in said.json()["error"]) == (503, True)


def test_a_peer_that_is_gone_is_passed_over_and_shown(gate: Stack) -> None:
    for _ in range(4):
        answer = ask(gate, "safe")
        assert (answer.status_code, answer.headers["mullama-model"]) == (200, "near")
    status = gate.status()
    peers = {peer["name"]: peer["state"] for peer in status["peers"]}
    assert (peers["gone"], peers["box"]) == ("ejected", "ready")
    assert any(c["type"] == "PeersAvailable" and not c["status"] for c in status["conditions"])
    assert "gets no requests for now" in ask(gate, "gone").json()["error"]["message"]
    listed = {card["id"] for card in httpx.get(f"{gate.url}/v1/models", timeout=60).json()["data"]}
    assert {"near", "safe", "gone"} <= listed


def test_a_peer_that_returns_gets_requests_again(tmp_path: Path, box: Stack) -> None:
    for name in ("far", "gate"):
        (tmp_path / name).mkdir()
    (tmp_path / "far" / "far.script.json").write_text(json.dumps({"name": "far", "constraints": True, "rules": RULES}))
    with serving(tmp_path / "far", {"far": "./far.script.json"}) as far:
        port = far.url.rpartition(":")[2]
        far.write({"far": "./far.script.json"}, server={"listen": [f"127.0.0.1:{port}"]})
        far.apply()
        with serving(tmp_path / "gate", {}, peers={"far": {"url": far.url}}, routes={"r": "far@far"}) as gate:
            assert ask(gate, "r").status_code == 200
            far.down()
            for _ in range(3):
                assert ask(gate, "r").status_code == 503
            assert gate.status()["peers"][0]["state"] == "ejected"
            far.serve()
            far.ready()
            eventually(lambda: gate.status()["peers"][0]["state"] == "ready", gate.log)
            assert ask(gate, "r").json()["choices"][0]["message"]["content"] == "from afar"


def test_routes_that_lead_in_a_circle_end_with_an_error(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "near.script.json").write_text(json.dumps({"name": "near", "rules": RULES}))
    near = {"near": "./near.script.json"}
    with serving(tmp_path / "one", near) as one, serving(tmp_path / "two", near) as two:
        for own, other in ((one, two), (two, one)):
            port = own.url.rpartition(":")[2]
            routes = {
                "round": "round@other",
                "spill": {"to": ["spill@other"], "fallback": ["near"]},
                "mine": "near@itself",
                "again": "again@itself",
            }
            own.write(
                near, routes=routes, peers={"other": {"url": other.url}, "itself": {"url": own.url}},
                server={"listen": [f"127.0.0.1:{port}"]},
            )  # fmt: skip
            own.apply()
        for route in ("round", "again"):
            answer = ask(one, route)
            assert (answer.status_code, "leads in a circle" in answer.text) == (503, True)
        for route, model in (("spill", "spill@other"), ("mine", "near@itself")):
            answer = ask(one, route)
            assert answer.json()["choices"][0]["message"]["content"] == "from afar"
            assert answer.headers["mullama-model"] == model
