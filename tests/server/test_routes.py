"""The table of routes and the bytes of frames, as pure values."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from mullama.dialects.base import Frame, Reply
from mullama.server.http.exchange import ErrorFormat, Exchange
from mullama.server.http.framing import to_bytes, to_json
from mullama.server.routes import EXCHANGE, SERVE, HttpRoute, Path, router


async def serve(exchange: Exchange, params: Mapping[str, str]) -> None:
    raise AssertionError("not called here")


VOICE = ErrorFormat(error=lambda error, id: Reply(status=400))


def route(method: str, path: str, **more: Any) -> HttpRoute:
    return HttpRoute(method=method, path=path, access="public", serve=serve, voice=VOICE, **more)


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
    """What Starlette's router leads this path to."""
    found: list[tuple[Path, Mapping[str, str]]] = []

    async def take(at: Path, exchange: Any, params: Mapping[str, str]) -> None:
        found.append((at, params))

    async def nowhere(scope: Any, receive: Any, send: Any) -> None:
        pass

    scope = {"type": "http", "method": method, "path": path, "headers": [], EXCHANGE: None, SERVE: take}
    asyncio.run(router(ROUTES, nowhere)(scope, None, None))  # type: ignore[arg-type]
    return found[0] if found else None


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
    assert at.narrowed(["anthropic"]).routes == (B,)
    assert at.narrowed(["anthropic"]).pick("GET", {}) is B
    assert at.narrowed([]).routes == ()
    assert Path("/livez", (G,)).narrowed([]).routes == (G,)


def test_head_and_options_come_with_get() -> None:
    at = Path("/v1/models", (A, B))
    assert at.methods == ("GET", "HEAD", "OPTIONS")


@pytest.mark.parametrize(
    ("frame", "event", "line"),
    [
        (Frame(data={"a": "é"}), 'data: {"a":"é"}\n\n', '{"a":"é"}\n'),
        (Frame(data={"a": [1, None]}, event="x"), 'event: x\ndata: {"a":[1,null]}\n\n', '{"a":[1,null]}\n'),
        (Frame(data="[DONE]"), "data: [DONE]\n\n", '"[DONE]"\n'),
        (Frame(data="one\ntwo"), "data: one\ndata: two\n\n", '"one\\ntwo"\n'),
        (Frame(data="ping", comment=True), ": ping\n\n", ""),
        (Frame(data={"t": "a\nb"}), 'data: {"t":"a\\nb"}\n\n', '{"t":"a\\nb"}\n'),
    ],
)
def test_a_frame_is_an_event_or_a_line(frame: Frame, event: str, line: str) -> None:
    assert to_bytes([frame], "text/event-stream") == event.encode()
    assert to_bytes([frame], "application/x-ndjson") == line.encode()
    assert to_bytes([frame, frame], "text/event-stream") == event.encode() * 2


def test_what_json_cannot_say_is_never_sent() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        assert to_json({"x": [value, 1.5]}) == b'{"x":[null,1.5]}'
