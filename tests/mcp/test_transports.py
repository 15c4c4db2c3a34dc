"""The SDK's own client against the server and the command, in both revisions of the protocol."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from mullama.cli.server.mcp import ServerApi
from mullama.server.mcp_route import OwnApi
from tests.processor_time import processor_time
from tests.server.server_fixture import RunningServer, StubRuntime, key, manifest, running_server

MODES = {"2026-07-28": "2026-07-28", "legacy": "2025-11-25"}
"""Modes of the client, and the revisions that they lead to."""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(StubRuntime(manifest=manifest(server={"mcp": "apply"}))) as running:
        yield running


def url(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}/mcp"


def command(server: RunningServer, *options: str) -> Any:
    """The command as a server over its standard streams."""
    address = f"127.0.0.1:{server.port}"
    started = StdioServerParameters(command=sys.executable, args=["-m", "mullama", "mcp", "--host", address, *options])
    # The default of the SDK is the error stream at its import, which a capture of pytest may have closed since.
    return stdio_client(started, errlog=sys.__stderr__)


def used(target: Any, mode: str, work: Callable[[Client], Awaitable[None]]) -> None:
    async def use() -> None:
        async with Client(target, mode=mode) as client:
            assert client.protocol_version == MODES[mode]
            await work(client)

    asyncio.run(use())


async def everything(client: Client) -> None:
    """Use each part of the protocol once."""
    tools = (await client.list_tools()).tools
    names = [tool.name for tool in tools]
    assert names == sorted(names)
    assert {"apply", "plan", "status"} <= set(names)
    hints = {tool.name: tool.annotations.read_only_hint for tool in tools if tool.annotations}
    assert (hints["apply"], hints["plan"]) == (False, True)
    found = await client.call_tool("status", {})
    assert (found.is_error, found.structured_content["state"]) == (False, "ready")
    wrong = await client.call_tool("logs", {"tail": 0})
    assert wrong.is_error
    assert "logs.tail" in wrong.content[0].text
    events = await client.call_tool("events", {})
    assert not events.is_error
    with pytest.raises(MCPError, match="no tool"):
        await client.call_tool("nope", {})
    resources = [resource.uri for resource in (await client.list_resources()).resources]
    assert resources == ["mullama://docs/manifest", "mullama://manifest", "mullama://schema"]
    assert (await client.list_resource_templates()).resource_templates == []
    assert (await client.read_resource("mullama://schema")).contents[0].text.startswith("{")
    with pytest.raises(MCPError, match="no resource"):
        await client.read_resource("file:///etc/passwd")
    assert [one.name for one in (await client.list_prompts()).prompts] == [
        "add-model", "diagnose", "review", "save-memory",
    ]  # fmt: skip
    message = (await client.get_prompt("diagnose", {"model": "tiny"})).messages[0]
    assert "The model tiny" in message.content.text


@pytest.mark.parametrize("mode", MODES)
def test_http_serves_both_revisions(server: RunningServer, mode: str) -> None:
    used(url(server), mode, everything)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", MODES)
def test_stdio_serves_both_revisions(server: RunningServer, mode: str) -> None:
    used(command(server, "--allow", "apply"), mode, everything)


@pytest.mark.timeout(120)
def test_the_command_offers_no_change_by_default(server: RunningServer) -> None:
    async def look(client: Client) -> None:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert not {"apply", "undo"} & names
        refused = await client.call_tool("undo", {})
        assert refused.is_error
        assert "--allow apply" in refused.content[0].text

    used(command(server), "2026-07-28", look)


def test_a_plan_is_applied_over_http(server: RunningServer) -> None:
    async def change(client: Client) -> None:
        server.runtime.seen.clear()
        unknown = await client.call_tool("apply", {"plan": "plan-0"})
        assert unknown.is_error
        undone = await client.call_tool("undo", {})
        assert (undone.structured_content["outcome"], undone.is_error) == ("applied", False)
        lines = server.runtime.lines
        server.runtime.lines = [{"event": "result", "outcome": "refused", "message": "chat is protected"}]
        refused = await client.call_tool("undo", {})
        server.runtime.lines = lines
        assert (refused.structured_content["message"], refused.is_error) == ("chat is protected", True)

    used(url(server), "2026-07-28", change)


DISCOVER = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/list",
}


def listed(answer: Any) -> set[str]:
    assert answer.status == 200, answer.body
    return {tool["name"] for tool in answer.json["result"]["tools"]}


def test_keys_and_their_roles_count_as_everywhere() -> None:
    keys = (key("a", "sa", "infer"), key("r", "sr", "read"), key("x", "sx", "admin"))
    with running_server(StubRuntime(keys=keys)) as server:
        assert server.ask("POST", "/mcp", DISCOVER, HEADERS).status == 401

        def of(secret: str) -> set[str]:
            return listed(server.ask("POST", "/mcp", DISCOVER, {**HEADERS, "authorization": f"Bearer {secret}"}))

        assert of("sa") == {"bench", "embed", "generate", "models"}
        assert of("sr") == {"diff", "events", "plan", "status"}
        assert "logs" in of("sx")
        assert "apply" not in of("sx")  # server.mcp is read
        call = {
            **DISCOVER, "method": "tools/call",
            "params": {**DISCOVER["params"], "name": "logs", "arguments": {}},  # type: ignore[dict-item]
        }  # fmt: skip
        headers = {**HEADERS, "mcp-method": "tools/call", "mcp-name": "logs", "authorization": "Bearer sr"}
        result = server.ask("POST", "/mcp", call, headers).json["result"]
        assert result["isError"]
        assert result["structuredContent"]["error"]["kind"] == "denied"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"host": "evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
    ],
)
def test_foreign_pages_and_names_are_refused(server: RunningServer, headers: dict[str, str], status: int) -> None:
    assert server.ask("POST", "/mcp", DISCOVER, {**HEADERS, **headers}).status == status


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        ([], {}, 400),
        ({**DISCOVER, "method": "no/such"}, {"mcp-method": "no/such"}, 404),
        (DISCOVER, {"mcp-protocol-version": "1999-01-01"}, 400),
        (DISCOVER, {"accept": "text/plain"}, 406),
        (b" " * (9 * 1024**2), {}, 413),
    ],
)
def test_malformed_messages_are_refused(server: RunningServer, body: Any, headers: Any, status: int) -> None:
    assert server.ask("POST", "/mcp", body, {**HEADERS, **headers}).status == status


@pytest.mark.parametrize("pause", [0, 60])
def test_events_without_a_pause_end_at_a_bound(monkeypatch: pytest.MonkeyPatch, pause: int) -> None:
    """Without a pause the bound ends them; with one, the pause does."""
    monkeypatch.setattr("mullama.server.mcp_route.EVENTS_MOST_SECONDS", 60 if pause else 0.5)

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b'data: {"id": 1}\n\n', "more_body": True})
            await asyncio.sleep(pause or 0.01)

    caller = SimpleNamespace(scope={"headers": []}, trace=None)
    events = asyncio.run(OwnApi(endless, caller).events("/api/v1/events"))  # type: ignore[arg-type]
    assert events[0] == {"id": 1}
    assert (len(events) == 1) == bool(pause)


def test_the_command_returns_events_without_a_pause_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def endless(path: str, idle: float) -> Iterator[dict[str, Any]]:
        try:
            while True:
                yield {"id": 1}
        finally:
            closed.append(path)

    found = SimpleNamespace(client=SimpleNamespace(events=endless))
    monkeypatch.setattr("mullama.cli.server.mcp.require", lambda call: found)
    monkeypatch.setattr("mullama.cli.server.mcp.EVENTS_MOST_SECONDS", -1.0)
    assert asyncio.run(ServerApi(None).events("/e")) == [{"id": 1}]  # type: ignore[arg-type]
    assert closed == ["/e"]


def test_other_methods_are_not_served(server: RunningServer) -> None:
    assert server.ask("GET", "/mcp").status == 405
    assert server.ask("DELETE", "/mcp").status == 405


def test_the_manifest_switches_it_off() -> None:
    with running_server(StubRuntime(manifest=manifest(server={"mcp": "none"}))) as server:
        answer = server.ask("POST", "/mcp", DISCOVER, HEADERS)
        assert (answer.status, "server.mcp" in str(answer.json)) == (404, True)


def test_neither_a_server_nor_the_command_imports_the_sdk_or_the_tools_at_its_start() -> None:
    import subprocess

    code = (
        "import sys, mullama.server.app, mullama.cli.server.mcp; "
        "sys.exit(bool({'mcp', 'mcp_types', 'anyio', 'mullama.mcp.tools'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_extra_the_way_to_it_is_named(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as fresh:
        monkeypatch.delitem(sys.modules, "mcp")
        monkeypatch.setattr("mullama.mcp.base.find_spec", lambda name: None)
        answer = fresh.ask("POST", "/mcp", DISCOVER, HEADERS)
        assert answer.status in (400, 501)
        assert "mullama[mcp]" in str(answer.json)


@pytest.mark.bench
def test_a_call_costs_less_than_two_milliseconds(server: RunningServer) -> None:
    """The processor time of a call over that of the request behind it, with the client of both in this process."""
    call = {
        **DISCOVER, "method": "tools/call",
        "params": {**DISCOVER["params"], "name": "status", "arguments": {}},  # type: ignore[dict-item]
    }  # fmt: skip
    headers = {**HEADERS, "mcp-method": "tools/call", "mcp-name": "status"}
    count = 50

    def cost(method: str, path: str, body: Any) -> float:
        with processor_time() as spent:
            for _ in range(count):
                assert server.ask(method, path, body, headers).status == 200
        return spent.seconds / count

    cost("POST", "/mcp", call)
    pairs = [(cost("POST", "/mcp", call), cost("GET", "/api/v1/status", None)) for _ in range(5)]
    assert min(one - other for one, other in pairs) < 0.002
