"""The log over HTTP: roles, filters and bad queries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from tests.server.server_fixture import RunningServer, key, read_until, request, running_server


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        book = running.app.log_book
        for number in range(3):
            book.handle(logging.makeLogRecord({"name": "mullama.models", "levelno": 20, "msg": f"line {number}"}))
        book.handle(logging.makeLogRecord({"name": "mullama", "levelno": 40, "msg": "fault", "models": ("a",)}))
        yield running


def texts(server: RunningServer, query: str) -> list[str]:
    return [line["text"] for line in server.ask("GET", f"/api/v1/logs{query}").json["lines"]]


def test_the_last_lines_are_read_with_filters(server: RunningServer) -> None:
    answer = server.ask("GET", "/api/v1/logs").json
    assert (answer["format"], answer["last"]) == ("mullama.logs/1", 4)
    assert texts(server, "?tail=2") == ["line 2", "fault"]
    assert texts(server, "?tail=0") == []
    assert texts(server, "?part=models&text=1") == ["line 1"]
    assert texts(server, "?level=error&model=a&since=1h") == ["fault"]
    assert texts(server, "?level=error&model=a&since=4000000000") == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tail=many", "tail must be a number"),
        ("level=loud", "level cannot be"),
        ("since=soon", "since"),
        ("modell=a", "is not a field of the query"),
    ],
)
def test_a_wrong_query_is_refused_by_its_name(server: RunningServer, query: str, message: str) -> None:
    for path in ("/api/v1/logs", "/api/v1/logs/events"):
        answer = server.ask("GET", f"{path}?{query}")
        assert (answer.status, message in answer.json["error"]["message"]) == (400, True)


def test_the_log_is_for_administrators(server: RunningServer) -> None:
    server.runtime.keys = (key("look", "view", "read"),)
    try:
        for path in ("/api/v1/logs", "/api/v1/logs/events"):
            assert server.ask("GET", path, headers={"authorization": "Bearer view"}).status == 403
    finally:
        server.runtime.keys = ()


def test_the_log_is_followed_after_a_line(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(request("/api/v1/logs/events?after=2", None, "GET"))
        data = read_until(connection, b"fault")
    events = [json.loads(line[5:]) for line in data.decode().splitlines() if line.startswith("data:")]
    assert [event["text"] for event in events] == ["line 2", "fault"]
