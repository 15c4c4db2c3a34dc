"""Tokens of OAuth by client credentials, over a server of tools and an authorization server on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest

from mullama.errors import ToolsUnavailable
from mullama.tools.mcp_client import HttpAddress, McpClient
from mullama.tools.oauth import ClientCredentials
from tests.tools.mcp_stub import McpStub, response

pytestmark = pytest.mark.anyio

FAR = 20.0


class TokenServer:
    """Answers each request for a token with `answer`, in which COUNT is the number of requests so far."""

    def __init__(self) -> None:
        self.answer = response(b'{"access_token": "token-COUNT", "token_type": "bearer", "expires_in": 3600}')
        self.seen: list[tuple[dict[str, str], dict[str, list[str]]]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TokenServer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
        form = (await reader.readexactly(int(headers["content-length"]))).decode()
        self.seen.append((headers, parse_qs(form)))
        writer.write(self.answer.replace(b"COUNT", str(len(self.seen)).encode().rjust(5, b"0")))
        await writer.drain()
        writer.close()


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with TokenServer().running() as running:
        yield running


@pytest.fixture
async def stub() -> AsyncIterator[McpStub]:
    async with McpStub().running() as running:
        yield running


@pytest.fixture
async def docs(stub: McpStub, tokens: TokenServer) -> AsyncIterator[McpClient]:
    oauth = ClientCredentials(
        token_url=tokens.url, client_id="mull:ama", client_secret="canary", scope="read", resource=stub.url
    )
    made = McpClient("docs", HttpAddress(url=stub.url, oauth=oauth), allowed=("*",), seconds=FAR, most=4096)
    yield made
    await made.aclose()


def sent(stub: McpStub) -> list[str]:
    return [headers.get("authorization", "") for _, headers in stub.seen]


async def test_one_token_serves_many_requests(docs: McpClient, stub: McpStub, tokens: TokenServer) -> None:
    assert [one.name for one in await docs.tools()] == ["read", "search"]
    await docs.call("read", {"q": "x"}, seconds=FAR)
    assert set(sent(stub)) == {"Bearer token-00001"}
    [(headers, form)] = tokens.seen
    assert form == {"grant_type": ["client_credentials"], "resource": [stub.url], "scope": ["read"]}
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"mull%3Aama:canary"


async def test_a_token_that_ends_and_one_that_is_refused_are_replaced(
    docs: McpClient, stub: McpStub, tokens: TokenServer
) -> None:
    await docs.tools()
    stub.other = lambda method: None if sent(stub)[-1] == "Bearer token-00002" else response(status="401 U")
    await docs.call("read", {"q": "x"}, seconds=FAR)
    assert sent(stub)[-2:] == ["Bearer token-00001", "Bearer token-00002"]
    stub.other = lambda method: None
    tokens.answer = response(b'{"access_token": "token-COUNT", "expires_in": 20}')
    stub.other = lambda method: None if sent(stub)[-1] != "Bearer token-00002" else response(status="401 U")
    await docs.call("read", {"q": "x"}, seconds=FAR)
    await docs.call("read", {"q": "x"}, seconds=FAR)
    assert sent(stub)[-2:] == ["Bearer token-00003", "Bearer token-00004"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response(b'{"error": "invalid_client"}', status="401 U"), "status 401; check client_id, client_secret"),
        (response(status="302 F", headers=["Location: http://example.org/"]), "redirects to http://example.org"),
        (response(status="503 S"), "oauth.token_url answered with status 503"),
        (response(b"<html>"), "the answer of oauth.token_url has a wrong form"),
        (response(b"[]"), "answered in a wrong form"),
        (response(b"{}"), "has no access_token"),
        (response(json.dumps({"access_token": "a\r\nX: b"}).encode()), "has no access_token"),
        (response(b'{"access_token": "a", "token_type": "mac"}'), "is not Bearer"),
        (response(b"x" * 100_000), "wrong form"),
    ],
)
async def test_a_token_that_is_not_given_has_its_reason(
    docs: McpClient, stub: McpStub, tokens: TokenServer, answer: bytes, expected: str
) -> None:
    tokens.answer = answer
    with pytest.raises(ToolsUnavailable) as caught:
        await docs.tools()
    assert expected in str(caught.value)
    assert "canary" not in str(caught.value)
    assert stub.seen == []


async def test_a_server_that_refuses_every_token_gets_two(docs: McpClient, stub: McpStub, tokens: TokenServer) -> None:
    stub.other = lambda method: response(status="401 U")
    with pytest.raises(ToolsUnavailable, match="refuses the request with status 401"):
        await docs.tools()
    assert len(stub.seen) % 2 == 0
    assert sent(stub)[:2] == ["Bearer token-00001", "Bearer token-00002"]


def test_the_secret_is_no_part_of_the_text() -> None:
    made: Any = ClientCredentials(token_url="u", client_id="i", client_secret="canary")
    assert "canary" not in repr(made)
