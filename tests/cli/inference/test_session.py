"""`mullama session`, `--save-session` and `--load-session`, with a server that answers from a table."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran
from tests.cli.inference.test_run import LAST, part, pieces
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def folder(tiny: TinyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MULLAMA_CACHE_DIR", str(tmp_path / "cache"))
    tiny.answers["GET /api/models/m"] = Answer({"name": "m", "capabilities": ["completion"]})
    tiny.answers["GET /api/models/other"] = Answer({"name": "other", "capabilities": ["completion"]})
    tiny.answers["POST /api/models/chat"] = pieces(part("Paris"), LAST)
    return tmp_path / "cache" / "chats"


def saved(run: Run, tiny: TinyServer, name: str = "trip", *more: str) -> Ran:
    return run("run", "m", "Where?", "--save-session", name, "--host", tiny.url, *more)


def test_a_conversation_is_saved_and_continued(run: Run, tiny: TinyServer, folder: Path) -> None:
    assert saved(run, tiny, "trip", "--system", "Short.", "-t", "0").code == 0
    path = folder / "trip.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tree = json.loads(path.read_text())
    assert (tree["format"], tree["model"], tree["turns"][0]["answer"]) == ("mullama.chat/1", "m", "Paris")
    ran = run("run", "--load-session", "trip", "--save-session", "trip", "--host", tiny.url, stdin="And why?")
    assert (ran.code, ran.out) == (0, "Paris\n")
    body = tiny.asked[-1].body
    assert [(one["role"], one["content"]) for one in body["messages"]] == [
        ("system", "Short."), ("user", "Where?"), ("assistant", "Paris"), ("user", "And why?"),
    ]  # fmt: skip
    assert body["options"] == {"temperature": 0.0}
    assert len(json.loads(path.read_text())["turns"]) == 2


def test_a_single_argument_is_the_question_of_a_continued_conversation(run: Run, tiny: TinyServer) -> None:
    saved(run, tiny)
    ran = run("run", "--load-session", "trip", "And why?", "--host", tiny.url)
    assert (ran.code, ran.out) == (0, "Paris\n")
    body = tiny.asked[-1].body
    assert (body["model"], body["messages"][-1]["content"]) == ("m", "And why?")
    run("run", "-m", "other", "--load-session", "trip", "Who?", "--host", tiny.url)
    body = tiny.asked[-1].body
    assert (body["model"], body["messages"][-1]["content"]) == ("other", "Who?")


def test_an_embedding_model_has_no_conversation(run: Run, tiny: TinyServer, folder: Path) -> None:
    tiny.answers["GET /api/models/m"] = Answer({"name": "m", "capabilities": ["embedding"]})
    ran = saved(run, tiny)
    assert (ran.code, "has no conversation" in ran.err, folder.exists()) == (4, True, False)


def test_options_win_over_the_saved_ones(run: Run, tiny: TinyServer) -> None:
    saved(run, tiny, "trip", "--system", "Short.", "-t", "0", "--seed", "7")
    run("run", "other", "b", "--load-session", "trip", "--system", "Long.", "-t", "1", "--host", tiny.url)
    body = tiny.asked[-1].body
    assert (body["model"], body["messages"][0]["content"]) == ("other", "Long.")
    assert body["options"] == {"temperature": 1.0, "seed": 7}


def test_a_saved_conversation_is_not_replaced(run: Run, tiny: TinyServer, folder: Path) -> None:
    saved(run, tiny)
    before = (folder / "trip.json").read_bytes()
    asked = len(tiny.asked)
    ran = saved(run, tiny)
    assert ran.code != 0
    assert "a conversation named 'trip' exists" in ran.err
    assert len(tiny.asked) == asked  # refused before anything is asked
    assert run("session", "save", "trip", "x.json").code != 0
    assert (folder / "trip.json").read_bytes() == before


def test_a_chat_saves_after_each_answer_and_clear_ends_it(run: Run, tiny: TinyServer, folder: Path) -> None:
    lines = "Where?\nWhy?\n/clear\nWho?\n/bye\n"
    ran = run("chat", "m", "--save-session", "trip", "--host", tiny.url, tty=True, stdin=lines)
    assert "trip stays as it was saved" in ran.err
    turns = json.loads((folder / "trip.json").read_text())["turns"]
    assert [turn["question"] for turn in turns] == ["Where?", "Why?"]


def test_commands_of_a_chat_save_and_load(run: Run, tiny: TinyServer, folder: Path) -> None:
    lines = "Where?\n/save-session trip\nWhy?\n/clear\n/load-session trip\nWho?\n/sessions\n/load-session tirp\n/bye\n"
    ran = run("chat", "m", "--host", tiny.url, tty=True, stdin=lines)
    assert "2 turns of trip, with m" in ran.out
    assert "did you mean trip?" in ran.err
    assert [one["content"] for one in tiny.asked[-1].body["messages"][::2]] == ["Where?", "Why?", "Who?"]
    assert len(json.loads((folder / "trip.json").read_text())["turns"]) == 2


def test_a_chat_saves_under_the_name_that_it_loaded(run: Run, tiny: TinyServer, folder: Path) -> None:
    saved(run, tiny)
    save = "/save-session trip\nWhy?\n"
    run("chat", "m", "--host", tiny.url, tty=True, stdin=f"/load-session trip\n{save}/bye\n")
    run("chat", "--load-session", "trip", "--host", tiny.url, tty=True, stdin=f"{save}/bye\n")
    assert len(json.loads((folder / "trip.json").read_text())["turns"]) == 3
    ran = run("chat", "--load-session", "trip", "--host", tiny.url, tty=True, stdin=f"/clear\n{save}/bye\n")
    assert "a conversation named 'trip' exists" in ran.err
    assert len(json.loads((folder / "trip.json").read_text())["turns"]) == 3


def test_a_copied_file_is_a_conversation_of_its_own(run: Run, tiny: TinyServer, folder: Path) -> None:
    saved(run, tiny)
    before = (folder / "trip.json").read_bytes()
    (folder / "copy.json").write_bytes(before)
    run("session", "load", "copy", "--host", tiny.url, tty=True, stdin="More?\n/bye\n")
    assert (folder / "trip.json").read_bytes() == before
    assert len(json.loads((folder / "copy.json").read_text())["turns"]) == 2


def test_load_continues_and_saves(run: Run, tiny: TinyServer, folder: Path) -> None:
    saved(run, tiny)
    ran = run("session", "load", "trip", "--host", tiny.url, tty=True, stdin="More?\n/bye\n")
    assert ran.code == 0
    assert len(json.loads((folder / "trip.json").read_text())["turns"]) == 2


def test_a_list_names_damaged_files_and_loses_none(run: Run, tiny: TinyServer, folder: Path) -> None:
    saved(run, tiny)
    (folder / "bad.json").write_text("{")
    (folder / "new.json").write_text(json.dumps({"format": "mullama.chat/9", "id": "new", "model": "m", "changed": 1}))
    ran = run("session", "list")
    assert ran.out.split()[:7] == ["NAME", "MODEL", "TURNS", "CHANGED", "TITLE", "trip", "m"]
    assert "bad.json cannot be read" in ran.err
    assert "its format is 'mullama.chat/9'" in ran.err
    tree = json.loads(run("session", "list", "--json").out)
    assert [one["name"] for one in tree["sessions"]] == ["trip"]
    assert len(tree["damaged"]) == 2
    for arguments in (("session", "load", "bad"), ("session", "save", "bad", "x.json"), ("session", "show", "new")):
        assert run(*arguments).code != 0
    assert saved(run, tiny, "bad").code != 0
    assert (folder / "bad.json").read_text() == "{"


def test_a_conversation_travels_by_its_file(run: Run, tiny: TinyServer, tmp_path: Path) -> None:
    saved(run, tiny, "trip", "--system", "Short.")
    ran = run("session", "show", "trip", "--json")
    (tmp_path / "out.json").write_text(ran.out)
    assert json.loads(ran.out)["format"] == "mullama.conversations/1"
    assert run("session", "save", "copy", "out.json").out == "saved as copy: Where?\n"
    assert run("session", "save", "piped", "-", stdin=ran.out).code == 0
    assert "system: Short.\n\n>>> Where?\nParis" in run("session", "show", "copy").out
    assert run("session", "delete", "copy").out == "deleted copy\n"
    assert run("session", "delete", "copy").code != 0


def test_the_last_conversation_without_a_name_gets_one(run: Run, tiny: TinyServer, folder: Path) -> None:
    assert "no conversation without a name" in run("session", "save", "x").err
    saved(run, tiny)
    text = (folder / "trip.json").read_text().replace('"trip"', '"1700000000000-abcdef"')
    (folder / "1700000000000-abcdef.json").write_text(text)
    assert run("session", "save", "x").code == 0
    assert run("session", "show", "x").out.startswith("x with m")


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "a" * 81, "a.", "1700000000000-abcdef", "a\x1bb"])
def test_a_name_is_a_file_name_everywhere(run: Run, tiny: TinyServer, name: str) -> None:
    ran = saved(run, tiny, name)
    assert ran.code != 0
    assert "is no name of a conversation" in ran.err
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(
    "arguments", [("list", "x"), ("save",), ("load",), ("delete",), ("show",), ("load", "a", "b"), ("purge",)]
)
def test_wrong_arguments_are_named(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("session", *arguments).code == 4


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_file_of_something_else_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    ran = run("session", "save", "x", "x.json")
    assert (ran.code != 0, "Traceback" in ran.err) == (True, False)
