"""mullama's own endpoints, by values: what they decode to, and how they say progress and errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mullama.chat import types
from mullama.chat.inventory import CreateModel, LoadModel, PullModel, SetDefault, TaskStatus
from mullama.chat.types import EmbedRequest
from mullama.dialects.base import Endpoint, WireRequest
from mullama.dialects.native import (
    MANAGEMENT,
    SUGGESTED,
    NativeTaskStream,
    decode_create,
    decode_default,
    decode_load,
    decode_pull,
    decode_unload,
    decode_use,
)
from mullama.dialects.native_inference import ENDPOINTS
from mullama.errors import Invalid, NotFound, TransferFailed, Unsupported
from mullama.sources.aliases import aliases
from mullama.struct import replace
from tests.dialects.wire import CONTEXT, HELLO, data, run_of, stream


@pytest.mark.parametrize("one", MANAGEMENT.endpoints, ids=lambda e: f"{e.method} {e.path}")
def test_every_endpoint_has_a_summary_and_schemas_that_are_schemas(one: Endpoint) -> None:
    assert one.summary
    for schema in (one.request_schema, one.response_schema):
        if schema is not None:
            Draft202012Validator.check_schema(json.loads(json.dumps(schema)))


def test_bodies_become_operations() -> None:
    assert decode_pull(WireRequest(body={"name": "hf:a/b"})) == PullModel(source="hf:a/b", stream=False)
    named = decode_pull(WireRequest(body={"name": "n", "from": "hf:a/b", "stream": True}))
    assert named == PullModel(source="hf:a/b", name="n", stream=True)
    made = decode_create(WireRequest(path={"name": "n"}, body={"model": {"from": "m", "system": "S"}}))
    assert made == CreateModel(name="n", base="m", declared={"from": "m", "system": "S"}, stream=False)
    assert decode_load(WireRequest(body={"alias": "m", "keep_alive": 5})) == LoadModel(model="m", keep_alive=5.0)
    assert decode_unload(WireRequest(path={"name": "a/b"})) == LoadModel(model="a/b", keep_alive=0.0)
    assert decode_default(WireRequest(body={"model": "m"})) == SetDefault(model="m")


@pytest.mark.parametrize(
    ("decode", "body", "error"),
    [
        (decode_pull, {}, Invalid),
        (decode_create, {"model": {}}, Invalid),
        (decode_load, {"name": "m", "context_size": 1}, Unsupported),
        (decode_use, {}, NotFound),
    ],
)
def test_what_does_not_fit_is_refused(decode, body, error) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error):
        decode(WireRequest(path={"name": "n"}, body=body))


def test_a_stream_ends_with_success_or_an_error_that_has_its_kind() -> None:
    stream = NativeTaskStream(replace(CONTEXT, operation=PullModel(source="s")))
    assert [f.data for f in stream.feed(TaskStatus(status="pulling x", file="x", total=2, completed=1))] == [
        {"status": "pulling x", "file": "x", "total": 2, "completed": 1}
    ]
    assert [f.data for f in stream.fail(TransferFailed("broken", hint="again"))] == [
        {"error": {"kind": "transfer", "message": "broken", "hint": "again", "request_id": f"req_{CONTEXT.id}"}}
    ]
    assert not list(stream.feed(TaskStatus(status="success")))


def test_every_suggested_model_is_a_short_name() -> None:
    assert {name for name, _, _ in SUGGESTED} <= set(aliases({"HOME": "/nowhere"}))


def test_every_endpoint_is_on_the_page_of_the_api() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/http.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[A-Z]+ |)/api/(?:models|defaults)[^`]*)`", page)
    paths = {name.partition(" ")[2] or name for name in named}
    for one in MANAGEMENT.endpoints:
        assert one.path.replace(":path", "") in paths


def test_the_terminal_has_endpoints_of_its_own_for_what_it_asks() -> None:
    found = {(e.method, e.path): e for e in MANAGEMENT.endpoints}
    assert ("POST", "/api/models/chat") in found
    assert ("HEAD", "/api/models/blobs/{digest}") in found
    decode = found["POST", "/api/models/embed"].decode
    asked = decode(WireRequest(body={"model": "m", "input": "x", "normalize": False}))
    assert isinstance(asked, EmbedRequest)
    assert not asked.normalize
    assert decode(WireRequest(body={"model": "m", "input": "x"})).normalize  # type: ignore[union-attr]


def test_what_is_forced_is_said_in_the_body() -> None:
    assert decode_unload(WireRequest(path={"name": "m"}, body={"force": True})) == LoadModel(
        model="m", keep_alive=0.0, forced=True
    )
    assert decode_unload(WireRequest(path={"name": "m"})) == LoadModel(model="m", keep_alive=0.0)
    assert decode_pull(WireRequest(body={"name": "m", "force": True})).again


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (decode_pull, {"name": "m", "insecure": True}),
        (decode_load, {"name": "m", "set_default": True}),
        (decode_unload, {"forced": True}),
        (decode_default, {"name": "m", "scope": "all"}),
        (decode_create, {"from": "m", "system": "said beside the model"}),
    ],
)
def test_a_field_that_nothing_honours_is_refused(decode, body) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Invalid, match="unknown field") as raised:
        decode(WireRequest(path={"name": "m"}, body=body))
    assert "known: " in raised.value.hint


def test_a_chat_has_a_line_for_the_begin_and_the_end_of_each_call_of_a_tool() -> None:
    begun = types.ToolStarted(id="c", server="docs", name="read", arguments={"page": 1})
    ended = types.ToolEnded(id="c", text="é", is_error=True)
    events = run_of(types.TextDelta(text="Hi."), begun, ended)
    one = next(one for one in ENDPOINTS if one.path == "/api/models/chat")
    encoder: Any = stream(one, one.decode(WireRequest(body=HELLO)))
    lines = [json.loads(json.dumps(frame.data)) for event in events for frame in encoder.feed(event)]
    runs = [line["tool_run"] for line in lines if "tool_run" in line]
    assert runs == [
        {"state": "started", "id": "c", "server": "docs", "name": "read", "arguments": {"page": 1}},
        {"state": "ended", "id": "c", "server": "docs", "name": "read", "is_error": True, "bytes": 2},
    ]
    known = Draft202012Validator(json.loads(json.dumps(one.response_schema)))
    for line in lines:
        known.validate(line)
    assert "tool_run" not in json.dumps(data("/api/chat", HELLO, events))
