"""`mullama logs` of a server by its address: its answers are given."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

LINE = {"id": 7, "when": 1.25, "level": "warning", "part": "workers", "models": ["a"], "text": "worker 3 ended"}
FOUND = {"format": "mullama.logs/1", "last": 7, "lines": [LINE]}


def test_the_kept_lines_of_a_server_by_address_are_printed_as_in_the_file(
    run: Callable[..., Ran], tiny: TinyServer
) -> None:
    tiny.answers["GET /api/v1/logs?tail=5&model=a&level=warning&since=10m"] = Answer(FOUND)
    ran = run("logs", "-n", "5", "--model", "a", "--level", "warning", "--since", "10m", "--host", tiny.url)
    assert ran.code == 0
    assert ran.out.strip().endswith(":01.250 warning worker 3 ended")


def test_new_lines_are_followed_after_the_last_one_with_the_same_filter(
    run: Callable[..., Ran], tiny: TinyServer
) -> None:
    tiny.answers["GET /api/v1/logs?tail=50&text=ended"] = Answer(FOUND)
    event = f"id: 9\ndata: {json.dumps({**LINE, 'id': 9, 'dropped': 2})}\n\n".encode()
    tiny.answers["GET /api/v1/logs/events?after=7&text=ended"] = Answer(pieces=(b": follow\n\n", event))
    ran = run("logs", "--follow", "--text", "ended", "--json", "--host", tiny.url)
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == [7, 9]
    assert "2 lines came too fast" in ran.err


def test_a_negative_number_of_lines_is_a_mistake(run: Callable[..., Ran], tiny: TinyServer) -> None:
    assert run("logs", "-n", "-1", "--host", tiny.url).code != 0
