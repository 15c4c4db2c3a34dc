"""The chat of the page in Textual's pilot, against a scripted server."""

from __future__ import annotations

import base64
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.cli.inference.session_store import ChatStore
from mullama.cli.page.server_access import PageServer
from mullama.errors import Invalid
from tests.chat.media.test_formats import PNG
from tests.cli.page.scripted import (
    HOSTILE,
    ScriptedServer,
    model,
    page_call,
    press,
    running,
    screen_text,
    status,
    until,
)
from tests.cli.tinyserver import Answer, Asked, TinyServer

pytest.importorskip("textual")
pytestmark = pytest.mark.anyio

CARD = {"name": "chat", "capabilities": ["completion", "vision"]}
END = {"done": True, "done_reason": "stop", "eval_count": 4, "eval_duration": 1e9, "prompt_eval_count": 7}


def said(text: str = "", thinking: str = "", **fields: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, "thinking": thinking}, "done": False, **fields}


class Stream(Answer):
    """An answer that comes piece by piece, when the test sends it."""

    def __init__(self, *lines: dict[str, Any], open: bool = False) -> None:
        super().__init__()
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        self.send(*lines)
        if not open:
            self._queue.put(None)

    def send(self, *lines: dict[str, Any]) -> None:
        for line in lines:
            self._queue.put(json.dumps(line).encode() + b"\n")

    def end(self) -> None:
        self._queue.put(None)

    def parts(self) -> Iterator[bytes]:  # type: ignore[override]
        while (piece := self._queue.get(timeout=60)) is not None:
            yield piece


class ChatServer(ScriptedServer):
    """A scripted server whose answers are given one after another."""

    def __init__(self, tiny: TinyServer) -> None:
        super().__init__(tiny, status(model("chat", is_default=True), model("coder"), routes={"default": "chat"}))
        self.answers: list[Answer] = []
        tiny.answers["GET /api/models/chat"] = Answer(CARD)
        tiny.answers["GET /api/models/coder"] = Answer({"name": "coder", "capabilities": ["completion"]})
        tiny.answers["POST /api/models/chat"] = self._next

    def _next(self, _: Asked) -> Answer:
        return self.answers.pop(0)

    def questions(self) -> list[Any]:
        return [[m["content"] for m in body["messages"]] for body in self.bodies("POST /api/models/chat")]


@pytest.fixture
def server(tiny: TinyServer) -> Iterator[ChatServer]:
    scripted = ChatServer(tiny)
    yield scripted
    scripted.close()


@pytest.fixture
def page(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mullama.cli.page.screens.app import PageApp
    from mullama.cli.page.start import top_panes

    monkeypatch.delenv("NO_COLOR", raising=False)
    call = page_call(server.tiny, tmp_path, env={"MULLAMA_CACHE_DIR": str(tmp_path)})
    return PageApp(PageServer(call), top_panes(), first="chat")


async def shown(app: Any, text: str) -> None:
    await until(lambda: text in screen_text(app), lambda: f"{text!r} is not on the screen:\n{screen_text(app)}")


async def typed(page: Any, pilot: Any, text: str) -> None:
    await shown(page, "chat")
    field = page.query_one("#composer")
    await until(lambda: page.focused is field, lambda: str(page.focused))
    field.text = text
    await press(pilot, "enter")


async def test_an_answer_is_streamed_as_markdown_with_its_thinking_folded(page: Any, server: ChatServer) -> None:
    stream = Stream(said(thinking="Let me think."), said("## Blue\n\nBecause of *scatter"), open=True)
    server.answers.append(stream)
    async with running(page, 80, 30) as pilot:
        await typed(page, pilot, "Why?")
        await shown(page, "Because of")
        assert "answering, escape stops" in screen_text(page)
        stream.send(said("ing*.\n\n- one\n- two\n"), said(**END))
        stream.end()
        await shown(page, "scattering.")
        await shown(page, "7 prompt tokens, 4 tokens in 1.00 s, 4.0 tokens/s (stop)")
        text = screen_text(page)
        assert "##" not in text, "Markdown is rendered"
        assert "• one" in text
        assert "▶ thought (3 words)" in text
        assert "Let me think" not in text
        await press(pilot, "escape", "t")
        await shown(page, "Let me think.")


async def test_escape_stops_an_answer_and_keeps_what_came(page: Any, server: ChatServer, tmp_path: Path) -> None:
    server.answers += [Stream(said("So far"), open=True), Stream(said("More."), said(**END))]
    async with running(page) as pilot:
        await typed(page, pilot, "Tell me")
        await shown(page, "So far")
        await press(pilot, "escape")
        await shown(page, "stopped")
        await typed(page, pilot, "Go on")
        await shown(page, "More.")
    assert server.questions()[1] == ["Tell me", "So far", "Go on"]


async def test_a_failed_answer_can_be_asked_again(page: Any, server: ChatServer) -> None:
    busy = {"error": {"kind": "busy", "message": "the queue of chat is full", "hint": ""}}
    server.answers += [Answer(busy, 429), Stream(said("Now."), said(**END))]
    async with running(page, 100) as pilot:
        await typed(page, pilot, "Hello")
        await shown(page, "the queue of chat is full · ctrl+r asks again")
        await press(pilot, "ctrl+r")
        await shown(page, "Now.")
        assert "the queue of chat" not in screen_text(page)
    assert server.questions() == [["Hello"], ["Hello"]]


async def test_a_note_of_an_error_leaves_the_newest_turn_visible(page: Any, server: ChatServer) -> None:
    server.answers.append(Stream(said("\n\n".join(f"line {n}" for n in range(40))), said(**END)))
    async with running(page, 80, 30) as pilot:
        await typed(page, pilot, "Count.")
        await shown(page, "line 39")
        await shown(page, "7 prompt tokens")
        page.report(Invalid("this went wrong", hint="do it otherwise"))
        await shown(page, "do it otherwise")
        lines = screen_text(page).splitlines()
        assert next(n for n, line in enumerate(lines) if "do it otherwise" in line) < 10
        assert "line 39" in screen_text(page)
        assert "7 prompt tokens" in screen_text(page)


async def test_a_call_of_a_tool_is_shown_below_the_answer_while_it_runs(page: Any, server: ChatServer) -> None:
    run = {"id": "c", "server": "docs", "name": "read"}
    stream = Stream(said(tool_run={**run, "state": "started", "arguments": {"page": 7}}), open=True)
    server.answers.append(stream)
    async with running(page, 80, 30) as pilot:
        await typed(page, pilot, "Read.")
        await shown(page, 'docs/read {"page":7}')
        stream.send(said(tool_run={**run, "state": "ended", "bytes": 2048, "is_error": False}))
        await shown(page, "docs/read: 2 KiB")
        stream.send(said("Done."), said(**END))
        stream.end()
        await shown(page, "7 prompt tokens")
        assert "docs/read" not in screen_text(page)


async def test_a_question_of_several_lines_is_edited_and_sent(page: Any, server: ChatServer) -> None:
    server.answers += [Stream(said("A"), said(**END)), Stream(said("B"), said(**END))]
    async with running(page) as pilot:
        await until(lambda: page.focused is page.query_one("#composer"), lambda: str(page.focused))
        await press(pilot, *"one", "ctrl+j", *"two", "enter")
        await shown(page, "A")
        await shown(page, "tokens/s")  # while an answer arrives, escape stops it and leaves the field focused
        await press(pilot, "escape", "e")
        field = page.query_one("#composer")
        await until(lambda: field.text == "one\ntwo", lambda: repr(field.text))
        await press(pilot, "x", "enter")
        await shown(page, "B")
    assert server.questions() == [["one\ntwo"], ["one\ntwox"]]


async def test_fast_keys_keep_their_order_and_none_is_lost(page: Any, server: ChatServer) -> None:
    from textual.events import Key

    server.answers += [Stream(said("A"), said(**END)), Stream(said("B"), said(**END))]
    async with running(page):
        field = page.query_one("#composer")
        await until(lambda: page.focused is field, lambda: str(page.focused))
        await shown(page, "chat")
        for key in (*"one", "ctrl+j", *"two", "enter", *"three"):  # faster than the page takes them
            page._driver.send_message(Key(key, key if len(key) == 1 else None))
        await until(lambda: field.text == "three", lambda: repr(field.text))
        await shown(page, "A")
        await shown(page, "tokens/s")
        page._driver.send_message(Key("enter", None))
        await shown(page, "B")
    assert [question[-1] for question in server.questions()] == ["one\ntwo", "three"]


async def test_conversations_are_kept_and_opened_again(page: Any, server: ChatServer, tmp_path: Path) -> None:
    server.answers += [Stream(said("Paris."), said(**END)), Stream(said("Rome."), said(**END))]
    async with running(page) as pilot:
        await typed(page, pilot, "France?")
        await shown(page, "Paris.")
        await shown(page, "tokens/s")
        await press(pilot, "ctrl+n")
        await until(lambda: "Paris." not in screen_text(page), lambda: screen_text(page))
        await press(pilot, "ctrl+o")
        await shown(page, "Open a conversation")
        await press(pilot, "enter")
        await shown(page, "Paris.")
        await typed(page, pilot, "Italy?")
        await shown(page, "Rome.")
        await shown(page, "tokens/s")
    assert server.questions()[1] == ["France?", "Paris.", "Italy?"]
    (log,) = ChatStore({"MULLAMA_CACHE_DIR": str(tmp_path)}).all()
    assert [turn.answer for turn in log.turns] == ["Paris.", "Rome."]


async def test_another_model_is_chosen(page: Any, server: ChatServer) -> None:
    server.answers.append(Stream(said("print()"), said(**END)))
    async with running(page) as pilot:
        await shown(page, "live")
        await press(pilot, "ctrl+l")
        await shown(page, "Ask the model")
        await press(pilot, "down", "enter")
        await shown(page, " coder")
        await until(lambda: page.focused is page.query_one("#composer"), lambda: str(page.focused))
        page.query_one("#composer").text = "code"
        await press(pilot, "enter")
        await shown(page, "print()")
    assert [body["model"] for body in server.bodies("POST /api/models/chat")] == ["coder"]


async def test_an_image_is_sent_and_named(page: Any, server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    server.answers.append(Stream(said("A cat."), said(**END)))
    async with running(page) as pilot:
        await until(
            lambda: any(one.path == "/api/models/chat" for one in server.tiny.asked), lambda: str(server.tiny.asked)
        )
        await typed(page, pilot, "What is on ./cat.png")
        await shown(page, "A cat.")
        await shown(page, f"▣ cat.png, {len(PNG)} B")
    (body,) = server.bodies("POST /api/models/chat")
    assert body["messages"][-1]["images"] == [base64.b64encode(PNG).decode()]


async def test_a_picture_is_drawn_by_characters(page: Any, server: ChatServer, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (60, 20), (255, 0, 0)).save(tmp_path / "red.png")
    server.answers.append(Stream(said("Red."), said(**END)))
    async with running(page, 80, 30) as pilot:
        await until(
            lambda: any(one.path == "/api/models/chat" for one in server.tiny.asked), lambda: str(server.tiny.asked)
        )
        await typed(page, pilot, "What is on ./red.png")
        await shown(page, "Red.")
        await shown(page, "▀" * 48)
        assert "▀" * 49 not in screen_text(page)


async def test_without_colours_a_picture_is_its_name(server: ChatServer, tmp_path: Path) -> None:
    from mullama.cli.page.screens.app import PageApp
    from mullama.cli.page.start import top_panes

    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (60, 20), (255, 0, 0)).save(tmp_path / "red.png")
    server.answers.append(Stream(said("Red."), said(**END)))
    call = page_call(server.tiny, tmp_path, env={"MULLAMA_CACHE_DIR": str(tmp_path)})
    page = PageApp(PageServer(call), top_panes(), first="chat", plain=True)
    async with running(page, 80, 30) as pilot:
        await until(
            lambda: any(one.path == "/api/models/chat" for one in server.tiny.asked), lambda: str(server.tiny.asked)
        )
        await typed(page, pilot, "What is on ./red.png")
        await shown(page, "Red.")
        await shown(page, "▣ red.png")
        assert "▀" not in screen_text(page)


async def test_text_of_a_model_is_inert(page: Any, server: ChatServer) -> None:
    lines = f"{HOSTILE}\n\n<script>alert(1)</script>\n\n[link](javascript:alert(1)) `[red]code`"
    server.answers.append(Stream(said(lines, thinking=HOSTILE), said(**END)))
    async with running(page, 100, 30) as pilot:
        await typed(page, pilot, HOSTILE)
        await shown(page, "<script>alert(1)</script>")
        text = screen_text(page)
        assert "\\x1b[31mred" in text
        assert "[bold red]big[/]" in text
        assert "[red]code" in text
        assert not {"\x1b", "\u202e"} & set(text)


async def test_an_answer_of_a_megabyte_is_shown_to_its_bound_and_kept_whole(
    page: Any, server: ChatServer, tmp_path: Path
) -> None:
    line = HOSTILE + "a" * 1_000_000
    server.answers.append(Stream(said(f"```\n{line}\n```\n"), said(**END)))
    async with running(page, 100, 30) as pilot:
        await typed(page, pilot, "Attack")
        await shown(page, "the first 100,000 characters are shown")
        assert not {"\x1b", "\u202e"} & set(screen_text(page))
    (log,) = ChatStore({"MULLAMA_CACHE_DIR": str(tmp_path)}).all()
    assert line in log.turns[0].answer
