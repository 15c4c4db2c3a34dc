"""No body that the server's strict JSON accepts makes a decoder raise anything but an error of mullama.

What a decoder accepts can be answered.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.chat.types import TextRequest
from mullama.dialects import DIALECTS
from mullama.dialects.base import Endpoint, ResponseRequest, WireRequest
from mullama.dialects.stored_objects import StoredObject
from mullama.errors import MullamaError
from mullama.struct import replace
from tests.dialects import golden
from tests.dialects.wire import DONE as COMPLETED
from tests.dialects.wire import route, run_of, stream, strict_json

ENDPOINTS = [
    pytest.param(dialect.name, one, id=f"{dialect.name} {one.method} {one.path}")
    for dialect in DIALECTS.values()
    for one in dialect.endpoints
    if one.method == "POST" and "{" not in one.path
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["user", "assistant", "tool", "text", "function", "json", "\0", "5m", "data:,"])
)
WORDS = """model messages role content type text input prompt tools function name parameters tool_choice arguments
tool_calls id options format response_format json_schema schema stop system thinking source data url logprobs
n max_tokens stream keep_alive images output call_id"""
KEYS = st.sampled_from(WORDS.split())
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)


def names_of(one: Endpoint) -> list[str]:
    schema: Any = one.request_schema
    return sorted(schema.get("properties", ("model",))) if schema else ["model"]


def try_all(one: Endpoint, body: Any) -> None:
    """Decode; what is accepted is answered, whole or streamed, and everything said is JSON."""
    dialect = DIALECTS["openai"]
    try:
        operation = one.decode(WireRequest(body=body))
        if isinstance(operation, ResponseRequest) and operation.needs and one.resume is not None:
            empty = {i: StoredObject(id=i, body={"output": []}, items=()) for i in operation.needs}
            operation = one.resume(operation, empty)
        if one.stream is None or not isinstance(operation, TextRequest):
            return
        encoder = stream(one, replace(operation, stream=True))
        for event in run_of():
            for frame in encoder.feed(event):
                strict_json(frame.data)
    except MullamaError as error:
        strict_json(dialect.error(error, "r").body)


@pytest.mark.parametrize(("name", "one"), ENDPOINTS)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_random_bodies_are_refused_or_understood(name: str, one: Endpoint, data: st.DataObject) -> None:
    fields = st.dictionaries(st.sampled_from(names_of(one)), JSON, max_size=8)
    body = data.draw(JSON | fields | fields.map(lambda said: {"model": "m", **said}))

    try_all(one, body)


RECORDED = [json.loads(path.read_text(encoding="utf-8"))["request"] for path in golden.FILES]
REQUESTS = [request for request in RECORDED if "body" in request]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a body."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = put(copy[key], tuple(rest), new)
    return copy


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_good_request_with_one_part_gone_odd_is_refused_or_understood(data: st.DataObject) -> None:
    request = data.draw(st.sampled_from(REQUESTS))
    place = data.draw(st.sampled_from(places(request["body"])))
    found = route(request.get("method", "POST"), request["path"], request.get("headers", {}))
    assert found is not None

    try_all(found[1], put(request["body"], place, data.draw(JSON)))


def test_the_script_of_these_tests_is_a_whole_answer() -> None:
    assert run_of()[-1] is COMPLETED
