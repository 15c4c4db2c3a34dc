"""Requests through a complete server: each dialect, streamed and not, with errors before and within."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from mullama.chat import types
from mullama.dialects.base import model_of
from mullama.errors import Busy, EngineFailed, Internal
from mullama.struct import replace
from tests.server.server_fixture import (
    CHAT,
    PATIENT,
    SAYS_HELLO,
    RunningServer,
    StubRuntime,
    manifest,
    read_until,
    request,
    running_server,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


CHATS: dict[str, dict[str, Any]] = {
    "/api/chat": CHAT,
    "/v1/chat/completions": CHAT,
    "/v1/messages": {**CHAT, "max_tokens": 9},
    "/v1/responses": {"model": "tiny", "input": "Hello"},
}
MEDIA = {"/api/chat": "application/x-ndjson"}
LAST = {
    "/api/chat": b'"done":true',
    "/v1/chat/completions": b"data: [DONE]",
    "/v1/messages": b"message_stop",
    "/v1/responses": b"response.completed",
}


def test_each_dialect_answers_without_streaming(server: RunningServer) -> None:
    ollama = server.ask("POST", "/api/chat", {**CHAT, "stream": False})
    assert (ollama.status, ollama.json["message"]["content"]) == (200, "Hello")
    openai = server.ask("POST", "/v1/chat/completions", CHAT)
    assert openai.json["choices"][0]["message"]["content"] == "Hello"
    anthropic = server.ask("POST", "/v1/messages", CHATS["/v1/messages"])
    assert anthropic.json["content"][0]["text"] == "Hello"


@pytest.mark.parametrize("named", [{}, {"model": None}, {"model": ""}], ids=str)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": "Hello"}),
        ("/v1/embeddings", {"input": "Hello"}),
        ("/v1/responses", {"input": "Hello"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/v1/messages", {**CHAT, "max_tokens": 9}),
        ("/completion", {"prompt": "Hello"}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
        ("/api/chat", {**CHAT, "stream": False}),
        ("/api/chat", {}),
        ("/api/generate", {"prompt": "Hello", "stream": False}),
        ("/api/generate", {}),
        ("/api/embed", {"input": "Hello"}),
        ("/api/models/chat", {**CHAT, "stream": False}),
        ("/api/models/embed", {"input": "Hello"}),
    ],
)
def test_a_request_without_a_model_is_answered_by_the_default(
    server: RunningServer, path: str, body: dict[str, Any], named: dict[str, Any]
) -> None:
    body = {name: value for name, value in body.items() if name != "model"} | named
    answer = server.ask("POST", path, body)
    assert (answer.status, answer.json["model"]) == (200, "usual")
    if "stream" in body or path in CHATS:
        streamed = server.ask("POST", path, {**body, "stream": True}).body
        assert b'"model":"usual"' in streamed


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses/input_tokens", {"input": "Hello"}),
        ("/v1/chat/completions/input_tokens", CHAT),
        ("/v1/messages/count_tokens", CHAT),
        ("/apply-template", CHAT),
        ("/tokenize", {"content": "a"}),
        ("/detokenize", {"tokens": [1]}),
        ("/embedding", {"content": "a"}),
        ("/api/show", {}),
        ("/api/models/tokenize", {"content": "a"}),
        ("/api/models/load", {}),
    ],
)
def test_an_answer_that_names_no_model_is_the_default_models_too(
    server: RunningServer, path: str, body: dict[str, Any]
) -> None:
    answer = server.ask("POST", path, {name: value for name, value in body.items() if name != "model"})
    assert answer.status == 200, answer.body
    assert model_of(server.runtime.seen[-1]) == "usual"


@pytest.mark.parametrize("path", CHATS)
def test_each_dialect_streams(server: RunningServer, path: str) -> None:
    answer = server.ask("POST", path, {**CHATS[path], "stream": True})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(MEDIA.get(path, "text/event-stream"))
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in answer.headers
    assert answer.body.count(LAST[path]) >= 1
    assert b"Hel" in answer.body


@pytest.mark.parametrize("path", CHATS)
def test_one_event_is_one_write(server: RunningServer, path: str) -> None:
    """Every chunk of the response ends with a complete event, for parsers that do not join reads."""
    with server.connect() as connection:
        connection.sendall(request(path, {**CHATS[path], "stream": True}, "POST", "Connection: close"))
        response = read_until(connection, b"\r\n0\r\n\r\n")
    body = response.partition(b"\r\n\r\n")[2]
    end = b"\n" if path == "/api/chat" else b"\n\n"
    chunks = 0
    while body:
        size, _, rest = body.partition(b"\r\n")
        if int(size, 16):
            assert rest[: int(size, 16)].endswith(end)
            chunks += 1
        body = rest[int(size, 16) + 2 :]
    assert chunks >= 3


@pytest.mark.parametrize("path", CHATS)
def test_an_error_before_the_first_event_is_a_status(path: str) -> None:
    with running_server(StubRuntime(script=(Busy("the queue is full", retry_after=2.4),))) as server:
        answer = server.ask("POST", path, {**CHATS[path], "stream": True})
    assert answer.status in (429, 503, 529)
    assert "the queue is full" in answer.body.decode() or "busy" in answer.body.decode()
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("path", CHATS)
def test_an_error_after_the_first_event_is_the_dialects_own_event(path: str) -> None:
    broken = (*SAYS_HELLO[:2], EngineFailed("the worker died"))
    with running_server(StubRuntime(script=broken)) as server:
        answer = server.ask("POST", path, {**CHATS[path], "stream": True})
    assert answer.status == 200
    assert b"the worker died" in answer.body
    assert LAST[path] not in answer.body or path == "/v1/chat/completions"


def test_a_stream_without_an_end_is_an_error() -> None:
    with running_server(StubRuntime(script=SAYS_HELLO[:2])) as server:
        answer = server.ask("POST", "/api/chat", {**CHAT, "stream": True})
    assert "without its last event" in answer.lines[-1]["error"]


@pytest.mark.parametrize("stream", [True, False])
def test_an_internal_error_is_sent_without_its_details(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    with running_server(StubRuntime(script=(ZeroDivisionError("secret path"),))) as server:
        answer = server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": stream})
    assert answer.status == 500
    assert answer.headers["x-should-retry"] == "false"
    assert b"secret" not in answer.body
    assert answer.headers["x-request-id"] in caplog.text


def test_an_internal_error_within_a_stream_ends_it_with_an_error() -> None:
    with running_server(StubRuntime(script=(*SAYS_HELLO[:2], ZeroDivisionError("secret")))) as server:
        answer = server.ask("POST", "/v1/messages", {**CHATS["/v1/messages"], "stream": True})
    assert b"event: error" in answer.body
    assert b"secret" not in answer.body


@pytest.mark.parametrize("path", CHATS)
def test_every_answer_carries_its_request_id(server: RunningServer, path: str) -> None:
    answers = [server.ask("POST", path, body) for body in (CHATS[path], {**CHATS[path], "stream": True}, {})]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 3
    assert all(i.startswith("req_") and len(i) >= 28 for i in ids)
    if path == "/v1/messages":
        assert answers[2].json["request_id"] == answers[2].headers["request-id"]


def test_openai_responses_carry_the_processing_time(server: RunningServer) -> None:
    assert int(server.ask("POST", "/v1/chat/completions", CHAT).headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/messages/nothing", "anthropic"),
        ("/v1/nothing", "openai"),
        ("/nothing", "openai"),
        ("/api/nothing", "ollama"),
        ("/api/v1/nothing", "operator"),
    ],
)
def test_an_unknown_path_is_404_in_the_shape_of_its_api(server: RunningServer, path: str, shape: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("application/json")
    _has_shape(answer.json, shape)


@pytest.mark.parametrize(
    ("method", "path", "shape", "allow"),
    [
        ("GET", "/v1/messages", "anthropic", "OPTIONS, POST"),
        ("GET", "/v1/completions", "openai", "OPTIONS, POST"),
        ("DELETE", "/api/chat", "ollama", "OPTIONS, POST"),
        ("POST", "/livez", "operator", "GET, HEAD, OPTIONS"),
        ("BREW", "/livez", "operator", None),
        ("PATCH", "/api/v1/stack", "operator", "GET, HEAD, OPTIONS, PUT"),
    ],
)
def test_a_wrong_method_is_405_in_the_shape_of_its_api(
    server: RunningServer, method: str, path: str, shape: str, allow: str | None
) -> None:
    answer = server.ask(method, path)
    if allow is None:  # the parser knows no such method
        assert answer.status == 400
        return
    assert answer.status == 405
    assert answer.headers["allow"] == allow
    _has_shape(answer.json, shape)


def _has_shape(body: Any, shape: str) -> None:
    match shape:
        case "ollama":
            assert isinstance(body["error"], str)
        case "openai":
            assert {"message", "type", "param", "code"} <= set(body["error"])
        case "anthropic":
            assert body["type"] == "error"
            assert set(body["error"]) == {"type", "message"}
        case _:
            assert {"kind", "message", "hint"} <= set(body["error"])


def test_head_has_the_headers_of_get_and_no_body(server: RunningServer) -> None:
    for path in ("/", "/api/version", "/api/tags", "/v1/models", "/livez"):
        head, get = server.ask("HEAD", path), server.ask("GET", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(get.body))


def test_options_lists_the_methods(server: RunningServer) -> None:
    answer = server.ask("OPTIONS", "/v1/completions")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "OPTIONS, POST", b"")
    assert server.ask("OPTIONS", "/v1/nothing").status == 404


def test_models_are_listed_in_the_shape_that_the_headers_ask_for(server: RunningServer) -> None:
    assert server.ask("GET", "/v1/models").json["object"] == "list"
    claude = server.ask("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert "has_more" in claude.json


def test_a_model_name_may_have_slashes(server: RunningServer) -> None:
    for path in ("/v1/models/org/name:tag", "/v1/models/org%2Fname:tag"):
        server.ask("GET", path)
        assert server.runtime.seen[-1].model == "org/name:tag"


def test_a_dialect_that_is_switched_off_is_not_there() -> None:
    runtime = StubRuntime(manifest=manifest(server={"dialects": ["openai"]}))
    with running_server(runtime) as server:
        assert server.ask("POST", "/api/chat", CHAT).status == 404
        assert server.ask("POST", "/v1/messages", CHATS["/v1/messages"]).status == 404
        assert server.ask("GET", "/").body == b"mullama is running"
        runtime.manifest = manifest(server={"dialects": ["ollama"]})
        assert server.ask("GET", "/").body == b"Ollama is running"
        assert server.ask("POST", "/v1/chat/completions", CHAT).status == 404


def test_a_warning_of_the_decoder_becomes_a_header(server: RunningServer) -> None:
    options = {"no_such_option": 1}
    answer = server.ask("POST", "/api/chat", {**CHAT, "stream": False, "options": options})
    assert answer.status == 200
    assert "no_such_option" in answer.headers["mullama-warning"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_warning_of_the_model_becomes_a_header(stream: bool) -> None:
    script = (types.Started(prompt_tokens=3, warnings=("the tool cannot be enforced",)), *SAYS_HELLO[1:])
    with running_server(StubRuntime(script=script)) as server:
        answer = server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": stream})
    assert answer.status == 200
    assert answer.headers["mullama-warning"] == "the tool cannot be enforced"


def test_a_warning_cannot_forge_a_header(server: RunningServer) -> None:
    options = {"x\r\nset-cookie: a=b": 1, "日本": 2}
    answer = server.ask("POST", "/api/chat", {**CHAT, "stream": False, "options": options})
    assert answer.status == 200
    assert "set-cookie" not in answer.headers


def test_silence_in_a_stream_is_filled_with_pings() -> None:
    script = (*SAYS_HELLO[:1], "gate", *SAYS_HELLO[1:])
    with running_server(StubRuntime(script=script), replace(PATIENT, ping=0.02)) as server:
        with server.connect() as connection:
            connection.sendall(request("/v1/messages", {**CHATS["/v1/messages"], "stream": True}))
            seen = read_until(connection, b"event: ping")
            while seen.count(b"event: ping") < 3:
                seen += connection.recv(4096)
            server.open_gate("gate")
            read_until(connection, b"message_stop")
        with server.connect() as connection:
            connection.sendall(request("/v1/chat/completions", {**CHAT, "stream": True}))
            read_until(connection, b"[DONE]")


def test_a_pull_streams_its_progress_or_returns_the_last_status(server: RunningServer) -> None:
    streamed = server.ask("POST", "/api/pull", {"model": "tiny"})
    assert [line["status"] for line in streamed.lines] == ["pulling manifest", "success"]
    assert server.ask("POST", "/api/pull", {"model": "tiny", "stream": False}).json == {"status": "success"}


def test_a_blob_is_passed_on_as_it_arrives(server: RunningServer) -> None:
    digest = "sha256:" + "0" * 64
    assert server.ask("POST", f"/api/blobs/{digest}", b"GGUF and more").status == 201
    assert server.runtime.seen[-1] == (digest, b"GGUF and more")
    assert server.ask("POST", "/api/blobs/sha256:short", b"x").status == 400


def test_a_response_is_kept_and_continued(server: RunningServer) -> None:
    for stream in (False, True):
        body = {"model": "tiny", "input": "My name is Ada.", "stream": stream}
        answer = server.ask("POST", "/v1/responses", body)
        id = next(reversed(server.runtime.kept))
        assert id.encode() in answer.body
        after = {"model": "tiny", "input": "Who am I?", "previous_response_id": id, "store": False}
        assert server.ask("POST", "/v1/responses", after).status == 200
        asked = server.runtime.seen[-1]
        assert [m.text for m in asked.messages] == ["My name is Ada.", "Hello", "Who am I?"]
    gone = server.ask("POST", "/v1/responses", {"model": "tiny", "input": "x", "previous_response_id": "resp_0"})
    assert gone.status in (400, 404)


def test_a_connection_serves_one_request_after_another(server: RunningServer) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    for _ in range(3):
        connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}))
        assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")
        connection.request("POST", "/v1/nothing", json.dumps(CHAT))
        assert connection.getresponse().read()
    connection.close()


def test_json_is_read_with_any_content_type_of_a_program(server: RunningServer) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert server.ask("POST", "/api/chat", {**CHAT, "stream": False}, headers).status == 200


def test_internal_errors_of_a_service_keep_their_message() -> None:
    with running_server(StubRuntime(script=(Internal("the pool lost its model"),))) as server:
        answer = server.ask("POST", "/v1/chat/completions", CHAT)
    assert (answer.status, answer.headers["x-should-retry"]) == (500, "false")
    assert types.StopReason.STOP not in answer.body.decode()
