"""The hub and entries of a manifest over HTTP: what is asked, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.server_fixture import RunningServer, running_server


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def test_the_queries_reach_the_operator(server: RunningServer) -> None:
    found = server.ask("GET", "/api/v1/hub/search?query=%20small%20&limit=3&all=1").json
    assert found == {"format": "mullama.search/1", "results": [{"repository": "org/m"}]}
    server.ask("GET", "/api/v1/hub/search?query=x")
    server.ask("GET", "/api/v1/hub/repository?source=org/m&context_size=4096&profile=fast")
    server.ask("GET", "/api/v1/hub/repository?source=org/m")
    assert server.runtime.seen[-4:] == [
        ("small", 3, True), ("x", 20, False), ("org/m", 4096, "fast"), ("org/m", 8192, "balanced"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("hub/search", "query"),
        ("hub/search?query=%20", "query"),
        ("hub/search?query=x&limit=0", "limit"),
        ("hub/search?query=x&limit=1e9", "limit"),
        ("hub/search?query=x&sort=size", "sort"),
        ("hub/repository", "source"),
        ("hub/repository?source=a/b&profile=best", "profile"),
        ("hub/repository?source=a/b&context_size=-1", "context_size"),
        ("metrics/history?since=soon", "since"),
        ("metrics/history?step=x", "step"),
        ("metrics/history?until=1", "until"),
        ("keys?name=a", "name"),
    ],
)
def test_a_wrong_query_is_refused_by_its_field(server: RunningServer, path: str, field: str) -> None:
    answer = server.ask("GET", f"/api/v1/{path}")
    assert answer.status == 400
    assert field in answer.json["error"]["message"]


def test_an_entry_is_added_to_a_text(server: RunningServer) -> None:
    body = {"text": "# mine\nmodels:\n  a: x\n", "path": ["models", "b"], "value": {"from": "file"}}
    answer = server.ask("POST", "/api/v1/manifest/entry", body)
    assert answer.json == {"text": "# mine\nmodels:\n  a: x\n  b:\n    from: file\n"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"path": []}, 400),
        ({"path": "models"}, 400),
        ({"text": 1}, 400),
        ({"extra": 1}, 400),
        ({"path": ["models", "a"]}, 409),
        ({"text": "models: ["}, 400),
    ],
)
def test_an_entry_that_cannot_be_added_is_refused(server: RunningServer, change: dict[str, Any], status: int) -> None:
    body = {"text": "models: {a: x}\n", "path": ["models", "b"], "value": {"from": "y"}, **change}
    assert server.ask("POST", "/api/v1/manifest/entry", body).status == status
