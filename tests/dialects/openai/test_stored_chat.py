"""Stored chat completions on the wire: what is stored, and how it is listed and changed."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.inventory import Done
from mullama.chat.types import TextDelta
from mullama.dialects.base import WireRequest
from mullama.dialects.stored_objects import (
    DeleteStored,
    FetchStored,
    ListStored,
    StoredObject,
    StoredPage,
    UpdateStored,
)
from mullama.errors import Invalid
from tests.dialects.wire import CALL_EVENTS, CALLED, CONTEXT, HELLO, decode, encode, endpoint, reply, run_of, stream

PATH = "/v1/chat/completions"
ONE = f"{PATH}/{{id}}"
ID = f"chatcmpl-{CONTEXT.id}"
MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}], "name": "ann"},
]
ASK: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "store": True, "metadata": {"topic": "x"}}


def remembered(body: dict[str, Any], events: Any) -> StoredObject | None:
    one = endpoint(PATH)
    assert one.remember is not None
    return one.remember(decode(PATH, body), reply(PATH, body, events))


def test_a_completion_is_stored_where_its_request_says_so() -> None:
    events = run_of(TextDelta(text="Hi."))
    assert remembered(HELLO, events) is None
    assert remembered({**HELLO, "store": False}, events) is None
    stored = remembered(ASK, events)
    assert stored is not None
    assert (stored.kind, stored.id, stored.model, stored.metadata) == ("chat.completion", ID, "tiny", {"topic": "x"})
    assert stored.items == tuple(MESSAGES)
    assert stored.body == {**reply(PATH, ASK, events), "metadata": {"topic": "x"}}


@pytest.mark.parametrize(
    "events", [run_of(TextDelta(text="Hel"), TextDelta(text="lo")), run_of(*CALL_EVENTS, end=CALLED)]
)
def test_a_stream_stores_what_the_whole_answer_stores(events: Any) -> None:
    one = endpoint(PATH)
    encoder = stream(one, decode(PATH, {**ASK, "stream": True}))
    for event in events:
        tuple(encoder.feed(event))
    assert encoder.whole == reply(PATH, ASK, events)
    plain = stream(one, decode(PATH, {**HELLO, "stream": True}))
    for event in events:
        tuple(plain.feed(event))
    assert plain.whole is None


def request(**query: str) -> WireRequest:
    return WireRequest(path={"id": ID}, query=query)


def test_the_operations_are_those_of_one_object() -> None:
    assert endpoint(ONE, "GET").decode(request()) == FetchStored(kind="chat.completion", id=ID)
    assert endpoint(ONE, "DELETE").decode(request()) == DeleteStored(kind="chat.completion", id=ID)
    update = endpoint(ONE)
    changed = update.decode(WireRequest(path={"id": ID}, body={"metadata": {"a": "b"}}))
    assert changed == UpdateStored(kind="chat.completion", id=ID, metadata={"a": "b"})
    with pytest.raises(Invalid, match="metadata is required"):
        update.decode(WireRequest(path={"id": ID}, body={}))
    deleted = encode(endpoint(ONE, "DELETE"), endpoint(ONE, "DELETE").decode(request()), Done()).body
    assert deleted == {"id": ID, "object": "chat.completion.deleted", "deleted": True}


def test_a_list_has_filters_and_pages() -> None:
    one = endpoint(PATH, "GET")
    query = {"limit": "2", "after": "c1", "order": "desc", "model": "tiny", "metadata[topic]": "x", "metadata[a]": "b"}
    assert one.decode(WireRequest(query=query)) == ListStored(
        kind="chat.completion", limit=2, after="c1", newest_first=True, model="tiny", metadata={"topic": "x", "a": "b"}
    )
    assert one.decode(WireRequest()) == ListStored(kind="chat.completion")
    objects = tuple(StoredObject(kind="chat.completion", id=id, body={"id": id}, items=()) for id in ("c1", "c2"))
    assert encode(one, one.decode(WireRequest()), StoredPage(objects=objects, more=True)).body == {
        "object": "list", "data": [{"id": "c1"}, {"id": "c2"}], "first_id": "c1", "last_id": "c2", "has_more": True,
    }  # fmt: skip
    with pytest.raises(Invalid, match="limit must be between 1 and 100"):
        one.decode(WireRequest(query={"limit": "0"}))


def test_messages_are_those_of_the_request() -> None:
    stored = StoredObject(kind="chat.completion", id=ID, body={}, items=tuple(MESSAGES))
    one = endpoint(f"{ONE}/messages", "GET")
    body: Any = encode(one, one.decode(request(limit="1")), stored).body
    assert (body["has_more"], body["data"]) == (
        True, [{"id": f"{ID}-0", "role": "system", "content": "Be brief.", "content_parts": None, "name": None}],
    )  # fmt: skip
    body = encode(one, one.decode(request(after=body["last_id"])), stored).body
    assert body["data"] == [
        {"id": f"{ID}-1", "role": "user", "content": "Hello", "content_parts": MESSAGES[1]["content"], "name": "ann"}
    ]
