"""Conversations in the exchange format of the web page."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.cli.inference.session_exchange import exported, imported
from mullama.cli.inference.session_log import ChatLog, ChatTurn
from mullama.codec import to_tree
from mullama.errors import Invalid
from mullama.struct import replace

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 60).decode()
TEXT = st.text(st.characters(codec="utf-8"), max_size=9)
TURNS = st.builds(ChatTurn, question=TEXT, answer=TEXT, thinking=TEXT, note=st.sampled_from(["", "stopped"]))
LOGS = st.builds(
    ChatLog,
    id=st.just("notes"),
    model=TEXT,
    changed=st.integers(0, 2**40).map(float),
    system=st.none() | TEXT.filter(bool),
    parameters=st.fixed_dictionaries(
        {}, optional={"temperature": st.floats(0, 2), "seed": st.integers(), "stop": st.lists(st.just("x"), min_size=1)}
    ),
    turns=st.lists(TURNS, max_size=4).map(tuple),
)


@given(LOGS)
def test_an_export_reads_back_as_the_same_conversation(log: ChatLog) -> None:
    assert imported(json.loads(json.dumps(exported(log))), "notes") == log


def test_an_image_travels_with_its_type() -> None:
    log = ChatLog(id="n", model="m", changed=1.0, turns=(ChatTurn(question="?", media=(PNG,), answer="A cat."),))
    tree = exported(log)
    (conversation,) = tree["conversations"]
    assert conversation["messages"]["user-1"]["media"] == [{"type": "image/png", "data": PNG}]
    assert imported(tree, "n").turns[0].media == (PNG,)
    assert imported(tree, "n").turns[0].files == ("image",)
    conversation["messages"]["user-1"]["media"] = [{"data": "no base64: ü"}]
    assert imported(tree, "n").turns[0].files == ("image",)


def test_the_shown_branch_is_read() -> None:
    message = {"role": "user", "parent": None, "content": "a"}
    tree = exchange(
        {
            "1": message,
            "2": {"role": "assistant", "parent": "1", "content": "old"},
            "3": {"role": "assistant", "parent": "1", "content": "new", "error": "it failed"},
            "4": {"role": "user", "parent": "3", "content": "b"},
        },
        leaf="4",
    )
    first, second = imported(tree, "n").turns
    assert (first.answer, first.failed, first.note) == ("new", True, "it failed")
    assert (second.question, second.answer) == ("b", "")


def exchange(messages: dict[str, Any], leaf: str, **more: Any) -> dict[str, Any]:
    one = {"model": "m", "changed": 1000, "messages": messages, "leaf": leaf, **more}
    return {"format": "mullama.conversations/1", "conversations": [one]}


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([], "no conversation"),
        ({"format": "other/1"}, "no conversation"),
        ({"format": "mullama.conversations/1"}, "conversations"),
        ({"format": "mullama.conversations/1", "conversations": []}, "0 conversations"),
        (exchange({}, "9"), "lacks its message '9'"),
        (exchange({"1": {"role": "user", "parent": "1"}}, "1"), "below itself"),
        (exchange({"1": {"role": "tool"}}, "1"), "role 'tool'"),
        (exchange({"1": {"role": "assistant"}}, "1"), "follows no question"),
        (exchange({"1": {"role": "user", "content": 5}}, "1"), "content"),
        (exchange({}, None, options={"seed": "x"}), "not a number"),  # type: ignore[arg-type]
    ],
)
def test_another_file_is_refused(tree: Any, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        imported(tree, "n")


def test_the_file_of_the_store_is_read_too() -> None:
    log = ChatLog(id="old", model="m", changed=1.0, turns=(ChatTurn(question="a", answer="b", note="3 tokens"),))
    assert imported(to_tree(log), "new") == replace(log, id="new")
