"""Conversations as values, and on disk."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from mullama.cli.inference.session_log import ChatLog, ChatTurn, asked, messages, with_last, without_last
from mullama.cli.inference.session_store import ChatStore
from mullama.cli.page.chat_log import chat_rows, inert, model_choices, thinking_title
from mullama.errors import Invalid, NotFound
from tests.cli.page.scripted import HOSTILE, model, status

LOG = ChatLog(id="1", model="chat", changed=10.0)
FIRST = ChatTurn(question="Why is\nthe sky blue?")


def test_a_conversation_grows_by_turns_that_are_answered() -> None:
    log = with_last(asked(LOG, FIRST, 11.0), 12.0, answer="Rayleigh.", note="3 tokens")
    assert (log.title, log.changed) == ("Why is the sky blue?", 12.0)
    assert messages(log.turns) == [
        {"role": "user", "content": "Why is\nthe sky blue?"},
        {"role": "assistant", "content": "Rayleigh."},
    ]
    assert without_last(log).turns == ()


def test_a_question_without_an_answer_is_not_sent_again() -> None:
    log = asked(with_last(asked(LOG, FIRST, 1.0), 1.0, answer="", failed=True), ChatTurn(question="x"), 2.0)
    assert messages(log.turns) == []


def test_pictures_go_with_their_question() -> None:
    turn = ChatTurn(question="", files=("cat.png, 1 KiB",), media=("QUJD",), answer="A cat.")
    log = asked(LOG, turn, 1.0)
    assert messages(log.turns)[0] == {"role": "user", "content": "", "images": ["QUJD"]}
    assert log.title == "cat.png, 1 KiB"


@pytest.mark.parametrize(("question", "title"), [("a" * 60, "a" * 47 + "…"), (" \n ", "new conversation")])
def test_a_title_is_short(question: str, title: str) -> None:
    assert asked(LOG, ChatTurn(question=question), 1.0).title == title


def test_conversations_are_listed_newest_first() -> None:
    id = "1700000000000-abcdef"
    logs = [LOG, asked(ChatLog(id=id, model="m\x1b", changed=0.0), FIRST, 100.0)]
    rows = chat_rows(logs, 3700.0)
    assert [id for id, _ in rows] == [id, "1"]
    assert rows[1][1][0].text == "1: new conversation"
    assert [one.text for one in rows[0][1]] == ["Why is the sky blue?", "m\\x1b", "1", "1 hour ago"]


def test_models_and_routes_can_be_asked() -> None:
    tree = status(model("a"), model("b", state="idle"), routes={"default": "a", "a": "a", "both": {"to": []}})
    assert model_choices(tree) == [("a", "ready"), ("b", "idle"), ("default", "route to a"), ("both", "route")]


def test_text_of_a_model_keeps_its_lines_and_loses_its_escapes() -> None:
    assert inert(f"one\n\ttwo {HOSTILE}") == "one\n\ttwo \\x1b[31mred\\x1b[0m [bold red]big[/] \\u202egnp.exe"


def test_the_thinking_is_one_line() -> None:
    assert thinking_title("a b c", running=True) == "thinking … (3 words)"
    assert thinking_title("a", running=False) == "thought (1 word)"


@pytest.fixture
def store(tmp_path: Path) -> ChatStore:
    return ChatStore({"MULLAMA_CACHE_DIR": str(tmp_path)})


def test_a_conversation_survives_on_disk_for_its_user_alone(store: ChatStore) -> None:
    log = asked(LOG, FIRST, 11.0)
    store.save(log)
    assert store.all() == [log]
    assert store.find("1") == log
    (path,) = store.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    store.delete("1")
    assert store.all() == []


def test_a_damaged_or_later_file_is_left_alone(store: ChatStore) -> None:
    store.save(LOG)
    (store.folder / "2.json").write_text("{")
    (store.folder / "3.json").write_text(json.dumps({"format": "mullama.chat/9", "id": 3}))
    assert [log.id for log in store.all()] == ["1"]
    with pytest.raises(Invalid, match=r"2\.json cannot be read"):
        store.find("2")
    with pytest.raises(NotFound, match="no conversation is named '4'"):
        store.find("4")
    assert [file.path.name for file in store.scan()[1]] == ["2.json", "3.json"]
    assert (store.folder / "2.json").read_text() == "{"


def test_the_oldest_conversations_make_room(store: ChatStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mullama.cli.inference.session_store._KEPT", 3)
    ids = [store.new_id(float(second)) for second in range(5)]
    assert ids == sorted(ids)
    for id in ids:
        store.save(ChatLog(id=id, model="m", changed=1.0))
    store.save(ChatLog(id="0-named", model="m", changed=0.0))
    assert [log.id for log in store.all()] == ["0-named", *ids[2:]]
