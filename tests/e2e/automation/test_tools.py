"""Servers of tools with the real commands: declared, called over every API, changed, accepted, locked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.cli.pty_session import pty_session
from tests.e2e.stack import Stack, eventually
from tests.tools.mcp_stub import McpStub, stub_in_thread, text, tool

PROGRAM = """
import json, sys
for line in sys.stdin:
    r = json.loads(line); m = r["method"]
    if m == "initialize":
        a = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    elif m == "tools/list":
        a = {"tools": [{"name": "open", "inputSchema": {"type": "object"}}]}
    elif m == "tools/call":
        a = {"content": [{"type": "text", "text": "the file is empty"}]}
    elif "id" in r:
        print(json.dumps({"jsonrpc": "2.0", "id": r["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": r["id"], "result": a}), flush=True)
"""


@pytest.fixture
def stub() -> Iterator[McpStub]:
    with stub_in_thread() as running:
        running.called = lambda name, arguments: text(f"page {arguments.get('q')}")
        yield running


@pytest.fixture
def tools(stack: Stack, stub: McpStub) -> Stack:
    """A stack with one server by address and one that is a command of the machine."""
    (stack.home / "demo.script.json").write_text(json.dumps({"name": "demo", "constraints": True}))
    (stack.home / "server.py").write_text(PROGRAM)
    host = stack.home / "mcp.json"
    host.write_text(
        json.dumps({"mcpServers": {"files": {"command": sys.executable, "args": [str(stack.home / "server.py")]}}})
    )
    host.chmod(0o600)
    stack.home.chmod(0o755)
    stack.variables |= {"MULLAMA_MCP_HOST_FILE": str(host), "DOCS_TOKEN": "Bearer canary"}
    stack.write(
        {"demo": {"from": "./demo.script.json", "mcp": ["docs", "files"]}},
        mcp={
            "docs": {"url": stub.url, "headers": {"Authorization": {"from_env": "DOCS_TOKEN"}}, "timeout": "10s"},
            "files": {"from_host": "files", "timeout": "20s"},
        },
        observability={"captures": {"bodies": "all"}},
    )
    return stack


def condition(stack: Stack) -> dict[str, Any]:
    found: list[dict[str, Any]] = stack.status()["conditions"]
    return next(one for one in found if one["type"] == "ToolsReady")


def ask(url: str, prompt: str) -> str:
    body = {"model": "demo", "messages": [{"role": "user", "content": prompt}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    message: str = answer.json()["choices"][0]["message"]["content"]
    return message


def test_a_model_uses_the_tools_that_its_manifest_gives_it(tools: Stack, stub: McpStub) -> None:
    tools.serve()
    url = tools.ready()
    eventually(lambda: condition(tools)["status"], tools.log)
    assert condition(tools)["message"] == "docs: 2 tools, files: 1 tool"
    assert ask(url, 'call docs__read {"q": "seven"} then it says: RESULT') == "it says: page seven"
    assert ask(url, "call files__open {} then it says: RESULT") == "it says: the file is empty"
    assert {headers["authorization"] for _, headers in stub.seen} == {"Bearer canary"}
    rows = json.loads(tools.run("requests", "-f", tools.name, "--json").stdout)["requests"]
    assert [(row["turn"], [call["name"] for call in row["calls"]]) for row in rows] == [
        (1, []), (0, ["open"]), (1, []), (0, ["read"]),
    ]  # fmt: skip
    shown = tools.run("requests", "-f", tools.name, str(rows[-1]["id"])).stdout
    assert "--- call of docs/read" in shown
    assert '{"q": "seven"}\npage seven\n' in shown
    assert tools.run("diff", "-f", tools.name, code=0).returncode == 0

    question = 'call docs__read {"q": "\\u001b[31mseven"} then it says: RESULT'
    piped = tools.run("run", "-f", tools.name, "demo", 'call docs__read {"q": "seven"} then it says: RESULT')
    assert (piped.stdout, piped.stderr) == ("it says: page seven\n", "")
    with pty_session(["run", "-f", tools.name, "demo", question], tools.home, **tools.env) as session:
        assert session.finish() == 0
    assert '\x1b[2mdocs/read {"q":"\\u001b[31mseven"}\x1b[0m' in session.seen
    assert "\x1b[2mdocs/read: 15 B\x1b[0m" in session.seen

    stub.tools = [tool("search", "changed"), tool("read", "Reads.")]
    shown = tools.run("diff", "-f", tools.name, code=2).stdout
    assert "! mcp.docs" in shown
    assert "search changed: use them as they are now" in shown
    assert condition(tools)["reason"] == "ToolsChanged"
    tools.apply()
    tools.run("diff", "-f", tools.name, code=0)
    assert condition(tools)["status"] is True

    tools.run("lock", "-f", tools.name)
    assert set(json.loads((tools.home / "mullama.lock").read_text())["tools"]) == {"docs", "files"}
    stub.tools = [tool("read", "Reads.")]
    shown = tools.run("diff", "-f", tools.name, code=2).stdout
    assert "search is gone: mullama lock --update pins them" in shown
    assert condition(tools)["reason"] == "ToolsChanged"
    tools.run("lock", "-f", tools.name, "--update", "docs")
    tools.apply()
    assert condition(tools)["status"] is True
    tools.run("diff", "-f", tools.name, code=0)
    assert "canary" not in tools.log() + json.dumps(tools.status()) + shown


@pytest.fixture
def forced(stack: Stack, stub: McpStub) -> str:
    """The address of a server whose real model never calls a tool by itself; its only tool has one argument."""
    stub.tools = [tool("read", "Reads.", properties={"q": {"enum": ["seven"]}}, additionalProperties=False)]
    stack.write(
        {"tiny": {"from": "builtin:tiny", "mcp": ["docs"], "context": {"size": 4096}}},
        mcp={"docs": {"url": stub.url, "timeout": "10s"}},
    )
    stack.serve()
    url = stack.ready()
    eventually(lambda: condition(stack)["status"], stack.log)
    return url


def calls_of(stub: McpStub) -> int:
    return stub.methods.count("tools/call")


LIMIT = 60
"""Tokens of an answer, for the call and some after it."""


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"max_tokens": LIMIT, "tool_choice": "required"}),
        ("/v1/messages", {"max_tokens": LIMIT, "tool_choice": {"type": "any"}}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": LIMIT, "tool_choice": "required"}),
        ("/api/chat", {"options": {"num_predict": LIMIT}, "tool_choice": "required", "stream": False}),
        ("/v1/messages", {"max_tokens": LIMIT, "tool_choice": {"type": "tool", "name": "docs__read"}}),
        (
            "/v1/chat/completions",
            {"max_tokens": LIMIT, "tool_choice": {"type": "function", "function": {"name": "docs__read"}}},
        ),
        (
            "/v1/responses",
            {"input": "Hi", "max_output_tokens": LIMIT, "tool_choice": {"type": "function", "name": "docs__read"}},
        ),
    ],
)
def test_a_required_call_may_be_one_of_a_tool_of_the_manifest(
    forced: str, stub: McpStub, path: str, body: dict[str, Any]
) -> None:
    asked = body if "input" in body else {"messages": [{"role": "user", "content": "Hi"}], **body}
    answer = httpx.post(f"{forced}{path}", json={"model": "tiny", **asked}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert calls_of(stub) == 1
    if "input" in body:
        assert "mcp_call" in [item["type"] for item in answer.json()["output"]]
    free = {name: value for name, value in asked.items() if name != "tool_choice"}
    httpx.post(f"{forced}{path}", json={"model": "tiny", **free}, timeout=120).raise_for_status()
    assert calls_of(stub) == 1, "the model calls no tool that it is not asked for"
    unknown = {"type": "tool", "name": "docs__gone"}
    if path == "/v1/messages":
        wrong = httpx.post(f"{forced}{path}", json={"model": "tiny", **asked, "tool_choice": unknown}, timeout=60)
        assert (wrong.status_code, "docs__gone" in wrong.text) == (400, True)


def test_a_required_call_of_a_session_may_be_one_of_a_tool_of_the_manifest(forced: str, stub: McpStub) -> None:
    with connect(f"{forced.replace('http', 'ws')}/v1/realtime?model=tiny", proxy=None) as socket:

        def until(kind: str) -> dict[str, Any]:
            while True:
                event: dict[str, Any] = json.loads(socket.recv(timeout=120))
                assert event["type"] != "error", event
                if event["type"] == kind:
                    return event

        def send(kind: str, **more: Any) -> None:
            socket.send(json.dumps({"type": kind, **more}))

        until("session.created")
        session = {"type": "realtime", "tool_choice": "required", "output_modalities": ["text"]}
        send("session.update", session=session)
        until("session.updated")
        content = [{"type": "input_text", "text": "Hi"}]
        send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        send("response.create", response={"max_output_tokens": LIMIT})
        until("response.done")
    assert calls_of(stub) == 1
