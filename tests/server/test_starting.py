"""Before the first manifest is applied every endpoint refuses with 503, in its own dialect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from mullama.dialects import DIALECTS
from mullama.errors import Unavailable
from mullama.server.app import create_app
from mullama.server.route_table import HttpRoute
from tests.server.server_fixture import RunningServer, StubRuntime, running_server

STUB: Any = StubRuntime()
ROUTES = create_app(STUB, STUB, DIALECTS).routes
REFUSING = [route for route in ROUTES if not route.answers_early]
HEALTH = ("/health", "/healthz", "/v1/health")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(StubRuntime(generation=0, state="starting", not_ready=("(nothing)",))) as running:
        yield running


def _path(route: HttpRoute) -> str:
    return re.sub(r"\{[^}]*\}", "x", route.path)


@pytest.mark.parametrize("route", REFUSING, ids=lambda route: f"{route.method} {route.path}")
def test_an_endpoint_of_a_dialect_refuses_in_its_own_form(server: RunningServer, route: HttpRoute) -> None:
    headers = {"anthropic-version": "2023-06-01"} if route.when and route.dialect == "anthropic" else {}
    answer = server.ask(route.method, _path(route), None if route.method in ("GET", "HEAD") else {}, headers=headers)

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    if route.method == "HEAD":
        return
    form: Any = route.error_format.error(Unavailable("x", retry_after=1.0), "id").body
    assert set(answer.json) == set(form)
    assert "the server is starting" in answer.body.decode()


@pytest.mark.parametrize("path", HEALTH)
@pytest.mark.parametrize(("state", "message"), [("starting", "Loading model"), ("stopping", "the server is stopping")])
def test_health_is_not_ok(server: RunningServer, path: str, state: str, message: str) -> None:
    server.runtime.state = state
    answer = server.ask("GET", path)

    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["status"] == state
    assert answer.json["error"] == {"code": 503, "message": message, "type": "unavailable_error"}
    server.runtime.state = "starting"


def test_the_operator_is_answered(server: RunningServer) -> None:
    assert server.ask("GET", "/readyz").status == 503
    early = [(route.method, route.path) for route in ROUTES if route.answers_early]
    assert {path for method, path in early if method == "GET"} >= {"/livez", "/metrics", "/api/v1/status"}
    for path in ("/livez", "/metrics", "/api/v1/status", "/api/system/status", "/api/v1/history"):
        assert server.ask("GET", path).status == 200
