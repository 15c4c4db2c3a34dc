"""The log: one line per request for any input of a client, and no secret."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Busy
from mullama.server.log import ALL, Lines, configure
from tests.server.server_fixture import CHAT, SAYS_HELLO, RunningServer, StubRuntime, key, manifest, running_server


class Kept(logging.Handler):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.setFormatter(Lines(form))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Kept]:
    kept = Kept("json")
    logger = logging.getLogger("mullama.requests")
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(logging.NOTSET)


def settled(server: RunningServer) -> None:
    """The line is written after the response, so it exists when a second request is answered."""
    server.ask("GET", "/livez")


def test_a_request_is_one_line_with_its_fields(log: Kept) -> None:
    with running_server(StubRuntime(keys=(key("ci", "s3cret", "infer"),))) as server:
        headers = {"authorization": "Bearer s3cret"}
        answer = server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True}, headers)
        settled(server)
    (line,) = map(json.loads, log.lines)
    fields = {name: line[name] for name in ("event", "level", "method", "path", "status", "dialect", "model", "key")}
    assert fields == {
        "event": "request",
        "level": "info",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "dialect": "openai",
        "model": "tiny",
        "key": "ci",
    }
    assert line["id"] == answer.headers["x-request-id"]
    assert (line["prompt_tokens"], line["completion_tokens"], line["generation"]) == (3, 2, 7)
    assert (line["stream"], line["bytes_out"]) == (True, len(answer.body))
    assert 0 <= line["first_byte"] <= line["seconds"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", line["time"])


def test_the_line_of_a_request_begins_with_its_result(log: Kept) -> None:
    log.setFormatter(Lines("text"))
    with running_server(StubRuntime()) as server:
        server.ask("POST", "/v1/chat/completions", CHAT)
        settled(server)
    (line,) = log.lines
    begin = "info request status=200 method=POST path=/v1/chat/completions seconds="
    assert line.partition(" ")[2].startswith(begin)


def test_an_error_is_logged_with_its_reason(log: Kept) -> None:
    with running_server(StubRuntime(script=(Busy("the queue is full"),))) as server:
        server.ask("POST", "/api/chat", {**CHAT, "stream": False})
        settled(server)
    line = json.loads(log.lines[0])
    assert (line["error"], line["reason"], line["status"]) == ("busy", "the queue is full", 503)


def test_an_error_within_a_stream_is_logged_with_status_200(log: Kept) -> None:
    with running_server(StubRuntime(script=(*SAYS_HELLO[:2], Busy("evicted")))) as server:
        server.ask("POST", "/api/chat", CHAT)
        settled(server)
    line = json.loads(log.lines[0])
    assert (line["status"], line["error"], line["reason"]) == (200, "busy", "evicted")


def test_neither_keys_nor_prompts_are_logged(log: Kept) -> None:
    chat = {**CHAT, "messages": [{"role": "user", "content": "canary-prompt"}]}
    with running_server(StubRuntime(keys=(key("ci", "canary-right", "infer"),))) as server:
        for secret in ("canary-right", "canary-wrong"):
            for headers in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
                server.ask("POST", "/v1/chat/completions?key=canary-query", chat, headers)
        settled(server)
    assert len(log.lines) == 4
    assert "canary" not in "".join(log.lines)


def test_prompts_are_logged_if_the_manifest_enables_it(log: Kept) -> None:
    asked = manifest(observability={"logs": {"prompts": True}})
    chat = {**CHAT, "messages": [{"role": "user", "content": "canary-prompt"}]}
    with running_server(StubRuntime(manifest=asked)) as server:
        server.ask("POST", "/api/chat", {**chat, "stream": False})
        settled(server)
    assert "canary-prompt" in json.loads(log.lines[0])["prompt"]


HOSTILE = 'x\r\n{"event": "forged"}\x1b[2J\u202e\u2028\x00'


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_client_can_forge_a_line(log: Kept, form: Any) -> None:
    log.setFormatter(Lines(form))
    with running_server() as server:
        server.ask("POST", "/v1/chat/completions", {**CHAT, "model": HOSTILE})
        server.ask("GET", "/v1/%0d%0aforged%1b[2J%e2%80%ae")
        settled(server)
    assert len(log.lines) == 2
    for line in log.lines:
        assert line.isascii()
        assert line.isprintable()
        if form == "json":
            assert json.loads(line)["event"] == "request"


@given(st.text(), st.dictionaries(st.sampled_from("abc"), st.text() | st.integers() | st.none(), max_size=3))
def test_every_record_is_one_printable_line(message: str, fields: dict[str, Any]) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (message,), None)
    record.fields = fields
    text, line = Lines("text").format(record), Lines("json").format(record)
    assert text.isprintable()
    assert text.isascii()
    parsed = json.loads(line)
    assert parsed["event"] == message
    assert {name: parsed[name] for name in fields} == fields


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ZeroDivisionError("line\nbreak")
    except ZeroDivisionError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), info)
    assert "\n" not in Lines("text").format(record)
    assert "ZeroDivisionError" in json.loads(Lines("json").format(record))["traceback"]


def test_probes_are_logged_at_debug_level(log: Kept) -> None:
    with running_server() as server:
        for path in ("/livez", "/readyz", "/healthz", "/metrics"):
            server.ask("GET", path)
        settled(server)
    assert log.lines == []


def test_files_of_the_page_are_logged_at_debug_level(log: Kept) -> None:
    with running_server() as server:
        assert server.ask("GET", "/ui").status == 308
        assert server.ask("GET", "/ui/nothing.js").status == 404
        settled(server)
    assert len(log.lines) == 1
    assert "/ui/nothing.js" in log.lines[0]


@pytest.fixture
def everything() -> Iterator[Kept]:
    """All lines that reach the root logger, as text; the levels are restored."""
    handler, root = Kept("text"), logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    configure(manifest().observability.logs)
    logging.getLogger("mullama").setLevel(logging.NOTSET)


def levels(**logs: Any) -> Any:
    return manifest(observability={"logs": logs}).observability.logs


def test_each_part_has_a_level_of_its_own_until_the_manifest_drops_it(everything: Kept) -> None:
    def written() -> list[str]:
        everything.lines.clear()
        for part in ("scheduler", "server.http.listen", "models", "other"):
            for level in (logging.DEBUG, logging.INFO, logging.ERROR):
                logging.getLogger(f"mullama.{part}").log(level, part)
        return [line.split(" ", 1)[1] for line in everything.lines]

    configure(levels(level="error", parts={"scheduler": "debug", "http": "info"}))
    assert written() == [
        "debug scheduler", "info scheduler", "error scheduler",
        "info server.http.listen", "error server.http.listen", "error models", "error other",
    ]  # fmt: skip

    configure(levels(level="error", parts={"scheduler": "debug"}), {"scheduler": "error", ALL: "info"})
    assert written() == [
        "error scheduler", "info server.http.listen", "error server.http.listen", "info models", "error models",
        "info other", "error other",
    ]  # fmt: skip

    configure(levels(level="error"))
    assert written() == ["error scheduler", "error server.http.listen", "error models", "error other"]


def test_the_lines_of_requests_are_a_part(everything: Kept) -> None:
    configure(levels(parts={"requests": "warning"}))
    with running_server() as server:
        server.ask("POST", "/api/chat", CHAT)
        settled(server)
    assert everything.lines == []

    configure(levels(level="error", parts={"requests": "debug"}))
    with running_server() as server:
        settled(server)
        settled(server)
    assert "path=/livez" in everything.lines[0]


def test_form_and_level_follow_the_manifest() -> None:
    handler = Kept("text")
    root, ours = logging.getLogger(), logging.getLogger("mullama")
    before = ours.level
    root.addHandler(handler)
    try:
        configure(manifest(observability={"logs": {"format": "json", "level": "error"}}).observability.logs)
        logging.getLogger("mullama.x").info("unheard")
        logging.getLogger("mullama.x").error("heard")
        assert [json.loads(line)["event"] for line in handler.lines] == ["heard"]
        configure(manifest(observability={"logs": {"format": "text", "level": "debug"}}).observability.logs)
        logging.getLogger("mullama.x").debug("again")
        assert handler.lines[1].endswith("debug again")
    finally:
        root.removeHandler(handler)
        ours.setLevel(before)
