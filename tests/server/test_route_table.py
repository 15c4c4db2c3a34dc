"""The table of routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mullama.dialects.base import Reply
from mullama.server.http.exchange import ErrorFormat, Exchange
from mullama.server.route_table import HttpRoute, Path, RouteTable


async def handler(exchange: Exchange, params: Mapping[str, str]) -> None:
    raise AssertionError("not called here")


ERROR_FORMAT = ErrorFormat(error=lambda error, id: Reply(status=400))


def route(method: str, path: str, **more: Any) -> HttpRoute:
    return HttpRoute(method=method, path=path, access="public", handler=handler, error_format=ERROR_FORMAT, **more)


A = route("GET", "/v1/models", dialect="openai")
B = route("GET", "/v1/models", dialect="anthropic", when=lambda headers: "anthropic-version" in headers)
C = route("GET", "/v1/models/{id:path}", dialect="openai")
D = route("POST", "/v1/responses/input_tokens", dialect="openai")
E = route("GET", "/v1/responses/{id}", dialect="openai")
F = route("POST", "/v1/responses/{id}/cancel", dialect="openai")
G = route("GET", "/livez")
ROUTES = (A, B, C, D, E, F, G)
CLAUDE = {"anthropic-version": "2023-06-01"}


def find(path: str, method: str = "GET") -> tuple[Path, Mapping[str, str]] | None:
    return RouteTable(ROUTES).find(method, path)


@pytest.mark.parametrize(
    ("method", "path", "headers", "found", "params"),
    [
        ("GET", "/v1/models", {}, A, {}),
        ("GET", "/v1/models", CLAUDE, B, {}),
        ("HEAD", "/v1/models", CLAUDE, B, {}),
        ("GET", "/v1/models/a/b:c", {}, C, {"id": "a/b:c"}),
        ("POST", "/v1/responses/input_tokens", {}, D, {}),
        ("GET", "/v1/responses/input_tokens", {}, E, {"id": "input_tokens"}),
        ("GET", "/v1/responses/resp_1", {}, E, {"id": "resp_1"}),
        ("POST", "/v1/responses/resp_1/cancel", {}, F, {"id": "resp_1"}),
        ("GET", "/livez", {}, G, {}),
        ("DELETE", "/livez", {}, None, {}),
    ],
)
def test_method_path_and_headers_find_the_route(
    method: str, path: str, headers: Any, found: HttpRoute | None, params: Any
) -> None:
    at = find(path, method)
    assert at is not None
    assert at[1] == params
    assert at[0].pick(method, headers) is found


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v1/models2", "/v1/responses/a/b", "/V1/models", "/livez/", "v1/models"]
)
def test_nothing_is_at_other_paths(path: str) -> None:
    assert find(path) is None


def test_a_path_whose_dialect_is_off_is_empty() -> None:
    at = Path("/v1/models", (A, B))
    assert at.enabled(["anthropic"]).routes == (B,)
    assert at.enabled(["anthropic"]).pick("GET", {}) is B
    assert at.enabled([]).routes == ()
    assert Path("/livez", (G,)).enabled([]).routes == (G,)


def test_head_and_options_come_with_get() -> None:
    at = Path("/v1/models", (A, B))
    assert at.methods == ("GET", "HEAD", "OPTIONS")
