"""Connections of servers of tools: every address of a name is checked, and each is tried."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from mullama.manifest.host_addresses import IPAddress, is_host
from mullama.tools.guarded_http import Guard, open_client
from tests.tools.mcp_stub import McpStub

pytestmark = pytest.mark.anyio


def failure(reason: str) -> bytes:
    return json.dumps({"reason": reason}).encode()


async def asked(
    url: str, monkeypatch: pytest.MonkeyPatch, *addresses: str, allowed: Callable[[IPAddress], bool] = is_host
) -> tuple[int, str]:
    """Return the status and the text of an answer, where the name has these addresses."""

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with open_client({}, Guard(seconds=5.0, most=1000, allowed=allowed), failure) as client:
        answer = await client.post(url, json={"method": "server/discover", "id": 1})
        return answer.status_code, answer.text


@pytest.mark.parametrize(
    "addresses",
    [
        ("169.254.169.254",),
        ("127.0.0.1", "169.254.169.254"),
        ("::ffff:169.254.169.254",),
        ("64:ff9b::a9fe:a9fe",),
        ("fe80::1%eth0",),
        ("fd00:ec2::254",),
        ("0.0.0.0",),
        ("224.0.0.1",),
    ],
)
async def test_a_name_with_any_address_of_the_link_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    async with McpStub().running() as stub:
        status, body = await asked(f"http://rebound.example:{stub.port}/mcp", monkeypatch, *addresses)
        assert status == 502
        assert "to which no request is sent" in json.loads(body)["reason"]
        assert stub.seen == []


async def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with McpStub().running() as stub:
        status, _ = await asked(f"http://box.example:{stub.port}/mcp", monkeypatch, "127.0.0.2", "127.0.0.1")
        assert status == 200
        assert stub.seen[0][1]["host"] == f"box.example:{stub.port}"
        status, body = await asked(f"http://box.example:{stub.port}/mcp", monkeypatch, "127.0.0.2", "127.0.0.3")
        assert (status, "is not reachable" in body) == (502, True)


async def test_the_rule_for_addresses_is_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    async with McpStub().running() as stub:
        url = f"http://box.example:{stub.port}/mcp"
        status, body = await asked(url, monkeypatch, "127.0.0.1", allowed=lambda address: address.is_global)
        assert (status, "127.0.0.1, to which no request is sent" in body) == (502, True)


async def test_a_stream_of_the_servers_own_messages_is_not_opened() -> None:
    async with McpStub().running() as stub:
        async with open_client({}, Guard(seconds=5.0, most=1000), failure) as client:
            assert (await client.get(stub.url)).status_code == 405
            assert (await client.get(stub.url, headers={"last-event-id": "1"})).status_code == 405  # nothing was sent
        assert stub.seen == []
        async with open_client({}, Guard(seconds=5.0, most=1000), failure, reads=True) as client:
            assert (await client.get(stub.url)).status_code == 200
