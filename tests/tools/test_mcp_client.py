"""Servers of tools over HTTP and as commands: good ones in both revisions, and hostile ones."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mullama.errors import ToolsUnavailable
from mullama.tools.host_file import HostCommand
from mullama.tools.listing import summary
from mullama.tools.mcp_client import MOST_PAGES, HttpAddress, McpClient, cut
from tests.certificates import Authority
from tests.runtime.runtime_fixture import until
from tests.server.server_fixture import StubRuntime, manifest, running_server
from tests.tools.mcp_stub import LEGACY, MODERN, McpStub, response, text, tool

pytestmark = pytest.mark.anyio

FAR = 20.0


def client(place: HttpAddress | HostCommand, **options: Any) -> McpClient:
    return McpClient("docs", place, **{"allowed": ("*",), "seconds": FAR, "most": 4096, **options})


@pytest.fixture(params=[MODERN, LEGACY])
async def stub(request: pytest.FixtureRequest) -> AsyncIterator[McpStub]:
    async with McpStub(request.param).running() as running:
        yield running


@pytest.fixture
async def docs(stub: McpStub) -> AsyncIterator[McpClient]:
    made = client(HttpAddress(url=stub.url, headers={"Authorization": "Bearer canary"}))
    yield made
    await made.aclose()


async def reason(work: Any) -> str:
    with pytest.raises(ToolsUnavailable) as caught:
        await work
    assert str(caught.value).startswith("the server of tools docs ")
    assert str(caught.value).isprintable()
    return str(caught.value)


# Servers as they should be


async def test_tools_are_listed_in_order_and_called(stub: McpStub, docs: McpClient) -> None:
    found = await docs.tools()
    assert [one.function for one in found] == ["docs__read", "docs__search"]
    assert found[1].description == "Searches."
    assert found[1].parameters["required"] == ["q"]
    result = await docs.call("search", {"q": "x"}, seconds=FAR)
    assert (result.text, result.is_error) == ("search {'q': 'x'}", False)
    assert all(headers["authorization"] == "Bearer canary" for _, headers in stub.seen)


async def test_pages_are_read_to_the_end(stub: McpStub, docs: McpClient) -> None:
    stub.listed = lambda cursor: {"tools": [tool("b")], "nextCursor": "2"} if cursor is None else {"tools": [tool("a")]}
    assert [one.name for one in await docs.tools()] == ["a", "b"]


async def test_a_list_is_kept_for_the_time_that_its_server_allows() -> None:
    async with McpStub().running() as stub:
        stub.ttl = 60_000
        docs = client(HttpAddress(url=stub.url))
        first = await docs.tools()
        stub.tools = [tool("other")]
        assert await docs.tools() == first
        assert docs.keeps == 60.0
        assert stub.methods.count("tools/list") == 1
        await docs.aclose()


async def test_calls_run_at_the_same_time(stub: McpStub, docs: McpClient) -> None:
    await docs.tools()
    stub.hold.clear()
    calls = [asyncio.create_task(docs.call("read", {"q": str(n)}, seconds=FAR)) for n in range(3)]
    await stub.arrived.wait()
    while stub.methods.count("tools/call") < 3:
        stub.arrived.clear()
        await stub.arrived.wait()
    stub.hold.set()
    assert [result.text for result in await asyncio.gather(*calls)] == [f"read {{'q': '{n}'}}" for n in range(3)]


async def test_a_failure_of_a_tool_is_a_result(stub: McpStub, docs: McpClient) -> None:
    stub.called = lambda name, arguments: text("no such page", error=True)
    result = await docs.call("read", {"q": "x"}, seconds=FAR)
    assert (result.text, result.is_error) == ("no such page", True)
    stub.called = lambda name, arguments: {"error": {"code": -32602, "message": "q is too long"}}
    result = await docs.call("read", {"q": "x"}, seconds=FAR)
    assert (result.text, result.is_error) == ("The tool failed: q is too long", True)


async def test_every_kind_of_content_becomes_text(stub: McpStub, docs: McpClient) -> None:
    stub.called = lambda name, arguments: {
        "content": [
            {"type": "text", "text": "one"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "resource_link", "name": "page", "uri": "https://h/x"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "two"}},
        ]
    }
    result = await docs.call("read", {"q": "x"}, seconds=FAR)
    assert result.text.split("\n") == [
        "one", "[image of the type image/png, which is left out]", "[page](https://h/x)", "two",
    ]  # fmt: skip
    stub.called = lambda name, arguments: {"content": [], "structuredContent": {"n": 1}}
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).text == '{"n": 1}'


async def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    async with McpStub().running() as stub:
        docs = client(HttpAddress(url=stub.url))
        await docs.tools()
        stub.hold.clear()
        call = asyncio.create_task(docs.call("read", {"q": "x"}, seconds=FAR))
        await stub.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(stub.gone.wait(), FAR)  # noqa: TID251 - the end of a test that failed
        stub.hold.set()
        assert (await docs.call("read", {"q": "y"}, seconds=FAR)).text == "read {'q': 'y'}"
        await docs.aclose()


# Servers as they should not be


async def test_a_list_without_an_end_is_given_up(stub: McpStub, docs: McpClient) -> None:
    count = iter(range(10_000))
    stub.listed = lambda cursor: {"tools": [tool(f"t{next(count)}")], "nextCursor": f"c{next(count)}"}
    assert f"on more than {MOST_PAGES} pages" in await reason(docs.tools())
    assert stub.methods.count("tools/list") == MOST_PAGES
    stub.listed = lambda cursor: {"tools": [], "nextCursor": "again"}
    assert "on more than" in await reason(docs.tools())
    stub.listed = lambda cursor: {"tools": [tool(f"t{n}") for n in range(2000)], "nextCursor": "c"}
    assert "has more than 1024" in await reason(docs.tools())


async def test_a_list_that_is_too_large_or_wrong_is_refused(stub: McpStub, docs: McpClient) -> None:
    stub.listed = lambda cursor: {"tools": [tool("a", "x" * 5_000_000)]}
    assert "more than 4 MiB" in await reason(docs.tools())
    stub.listed = lambda cursor: {"tools": [{"name": 7}]}
    assert "in a wrong form" in await reason(docs.tools())
    stub.listed = lambda cursor: response(b"<html>")
    assert "answered with an error" in await reason(docs.tools())
    stub.listed = lambda cursor: {"tools": [tool("fine")]}
    assert [one.name for one in await docs.tools()] == ["fine"]


async def test_tools_that_no_model_can_have_are_left_out(stub: McpStub, docs: McpClient) -> None:
    wrong = tool("wrong", properties={"q": {"type": "strnig"}})
    stub.tools = [tool("b"), tool("twice"), tool("twice"), wrong, tool("esc\x1b[2J")]
    assert [one.name for one in await docs.tools()] == ["b"]
    assert {"twice", "wrong"} < set(docs.listing.left_out)
    assert summary(docs.listing).isprintable()


async def test_a_huge_result_is_cut_and_an_endless_one_ends(stub: McpStub, docs: McpClient) -> None:
    stub.called = lambda name, arguments: text("ä" * 5000)
    result = await docs.call("read", {"q": "x"}, seconds=FAR)
    assert result.text == "ä" * 2048 + "\n[cut here: 4 KiB of 9.8 KiB]"
    stub.called = lambda name, arguments: text("x" * 5_000_000)
    result = await docs.call("read", {"q": "x"}, seconds=FAR)
    assert (result.is_error, "more than 4 MiB" in result.text) == (True, True)
    stub.called = lambda name, arguments: text("small")  # the failure ended one call, and no other
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).text == "small"
    assert stub.methods.count("initialize") <= 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response(status="307 T", headers=["Location: /mcp/"]), "redirects to another path"),
        (response(status="302 F", headers=["Location: http://169.254.169.254/x?a=canary"]), "to http://169.254.169.25"),
        (response(status="401 U"), "refuses the request with status 401: check its headers"),
        (response(status="401 U", headers=["WWW-Authenticate: Bearer"]), "status 401: check its headers"),
        (response(status="503 S"), "answered with status 503"),
        (response(b"\x1f\x8b", headers=["Content-Encoding: gzip"]), "sent a compressed answer"),
        (response(b"{", length=100), "is not reachable"),
        (b"SSH-2.0-x\r\n", "is not reachable"),
        (b"", "is not reachable"),
    ],
)
async def test_an_answer_of_http_that_must_not_be_used_has_its_reason(
    stub: McpStub, docs: McpClient, answer: bytes, expected: str
) -> None:
    stub.other = lambda method: answer
    found = await reason(docs.tools())
    assert expected in found
    assert "canary" not in found
    assert all(headers["host"] == f"127.0.0.1:{stub.port}" for _, headers in stub.seen)


async def test_a_server_that_asks_for_oauth_says_what_to_write(stub: McpStub) -> None:
    stub.other = lambda method: response(status="401 U", headers=['WWW-Authenticate: Bearer error="canary"'])
    docs = client(HttpAddress(url=stub.url))
    found = await reason(docs.tools())
    assert "asks for a token of OAuth: give one by headers.Authorization, or declare oauth" in found
    assert "canary" not in found
    await docs.aclose()


async def test_a_certificate_is_that_of_the_name_and_not_of_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is made to the address that was checked."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", authority.cert)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("server", hosts="DNS:localhost"))
    async with McpStub().running(tls=tls) as stub:
        named = client(HttpAddress(url=f"https://localhost:{stub.port}/mcp"))
        assert len(await named.tools()) == 2
        await named.aclose()
        numbered = client(HttpAddress(url=f"https://127.0.0.1:{stub.port}/mcp"))
        assert "certificate verify failed" in await reason(numbered.tools())
        await numbered.aclose()


async def test_a_name_whose_address_is_of_the_link_is_never_asked() -> None:
    docs = client(HttpAddress(url="http://169.254.169.254/mcp"), seconds=5.0)
    assert "has the address 169.254.169.254, to which no request is sent" in await reason(docs.tools())
    await docs.aclose()


async def test_a_server_that_is_down_and_returns(stub: McpStub, docs: McpClient) -> None:
    port = stub.port
    down = client(HttpAddress(url="http://127.0.0.1:1/mcp"))
    assert "is not reachable" in await reason(down.tools())
    await down.aclose()
    assert len(await docs.tools()) == 2
    stub.other = lambda method: response(status="502 B")
    assert "answered with status 502" in await reason(docs.call("read", {"q": "x"}, seconds=FAR))
    stub.other = lambda method: None
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).text == "read {'q': 'x'}"
    assert stub.port == port


async def test_a_server_that_hangs_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    docs = client(HttpAddress(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"), seconds=0.2)
    found = await reason(docs.tools())
    assert "did not answer in" in found
    await docs.aclose()
    server.close()


async def test_a_call_that_hangs_is_a_result(stub: McpStub, docs: McpClient) -> None:
    await docs.tools()
    stub.hold.clear()
    result = await docs.call("read", {"q": "x"}, seconds=0.05)
    assert (result.text, result.is_error) == ("The tool did not answer within 0.05 s.", True)
    stub.hold.set()
    assert not (await docs.call("read", {"q": "x"}, seconds=FAR)).is_error


def events(*data: str, end: str = "\n\n") -> bytes:
    """An answer as a stream of events, which a server may send in place of JSON."""
    body = "".join(f"event: message\ndata: {one}{end}" for one in data)
    return response(body.encode(), kind="text/event-stream")


async def test_an_answer_may_be_a_stream_of_events_and_has_the_same_bounds(stub: McpStub, docs: McpClient) -> None:
    await docs.tools()

    def answered(*parts: str) -> bytes:
        note = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
        extra = {"resultType": "complete"} if stub.revision == MODERN else {}
        done = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {**text(*parts), **extra}})
        return events(note, done)

    stub.called = lambda name, arguments: answered("from a stream")
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).text == "from a stream"
    stub.called = lambda name, arguments: answered("x" * 5_000_000)
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).is_error
    stub.called = lambda name, arguments: events("{" * 5_000_000)
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).is_error
    stub.called = lambda name, arguments: events()
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).is_error
    stub.listed = lambda cursor: events()
    assert "a stream of events that is too large or ends early" in await reason(docs.tools())
    stub.called = lambda name, arguments: text("as before")
    assert (await docs.call("read", {"q": "x"}, seconds=FAR)).text == "as before"


async def test_an_answer_that_breaks_off_is_continued_and_not_without_end() -> None:
    """Servers of 2025-11-25 close the stream of a long call, and the client asks for the rest."""
    async with McpStub(LEGACY).running() as stub:
        docs = client(HttpAddress(url=stub.url))
        await docs.tools()
        assert "GET" not in stub.methods  # no stream of the server's own messages
        begun = response(b"id: 1\nretry: 1\ndata: \n\n", kind="text/event-stream")
        stub.called = lambda name, arguments: begun
        rest = json.dumps({"jsonrpc": "2.0", "id": 1, "result": text("the rest")})
        stub.other = lambda method: events(rest) if method == "GET" else None
        assert (await docs.call("read", {"q": "x"}, seconds=FAR)).text == "the rest"
        assert dict(stub.seen)["GET"]["last-event-id"] == "1"
        stub.other = lambda method: begun if method == "GET" else None
        assert (await docs.call("read", {"q": "x"}, seconds=FAR)).is_error
        posts = len([method for method in stub.methods if method != "GET"])
        assert stub.methods.count("GET") <= 8 * posts
        await docs.aclose()


async def test_a_schema_of_results_is_not_evaluated(stub: McpStub, docs: McpClient) -> None:
    """Its patterns are the server's, and one of them can take any time."""
    slow = {"type": "object", "properties": {"t": {"type": "string", "pattern": "^(a+)+$"}}}
    stub.tools = [{**tool("slow"), "outputSchema": slow}]
    await docs.tools()
    stub.called = lambda name, arguments: {**text("ok"), "structuredContent": {"t": "a" * 60 + "b"}}
    assert (await docs.call("slow", {"q": "x"}, seconds=FAR)).text == "ok"


async def test_a_client_is_closed_after_its_calls(stub: McpStub, docs: McpClient) -> None:
    """A manifest that declares the server otherwise cuts off no answer."""
    await docs.tools()
    stub.hold.clear()
    call = asyncio.create_task(docs.call("read", {"q": "x"}, seconds=FAR))
    await stub.arrived.wait()
    closing = asyncio.create_task(docs.aclose())
    await asyncio.sleep(0)
    assert "is not declared any more" in await reason(docs.call("read", {"q": "y"}, seconds=FAR))
    assert not closing.done()
    stub.hold.set()
    assert (await call).text == "read {'q': 'x'}"
    await closing


async def test_a_failed_request_leaves_the_calls_beside_it(stub: McpStub, docs: McpClient) -> None:
    await docs.tools()
    stub.hold.clear()
    call = asyncio.create_task(docs.call("read", {"q": "x"}, seconds=FAR))
    await stub.arrived.wait()
    stub.other = lambda method: response(status="502 B")
    assert "answered with status 502" in await reason(docs.call("read", {"q": "y"}, seconds=FAR))
    stub.other = lambda method: None
    stub.hold.set()
    assert (await call).text == "read {'q': 'x'}"


async def test_a_closed_client_is_not_used_again(stub: McpStub, docs: McpClient) -> None:
    await docs.tools()
    await docs.aclose()
    assert "is not declared any more" in await reason(docs.tools())
    await docs.aclose()


def test_a_text_is_cut_between_characters() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("äää", 3) == "ä\n[cut here: 3 B of 6 B]"


# Commands


SCRIPT = """
import json, sys, os
def send(id, result): print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
for line in sys.stdin:
    r = json.loads(line); m = r["method"]
    if m == "initialize":
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        send(r["id"], about)
    elif m == "tools/list":
        send(r["id"], {"tools": [{"name": "env", "inputSchema": {"type": "object"}}]})
    elif m == "tools/call":
        what = r["params"]["arguments"].get("do")
        if what == "long": sys.stdout.write("x" * 9_000_000); sys.stdout.flush()
        elif what == "die": sys.stderr.write("bad luck\\n"); sys.stderr.flush(); os._exit(3)
        else: send(r["id"], {"content": [{"type": "text", "text": json.dumps(dict(os.environ))}]})
    elif "id" in r:
        print(json.dumps({"jsonrpc": "2.0", "id": r["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> HostCommand:
    script = tmp_path / "server.py"
    script.write_text(SCRIPT)
    return HostCommand(command=sys.executable, args=(str(script),), env={"OWN": "1"}, cwd=str(tmp_path))


async def test_a_command_is_a_server_with_an_environment_of_its_own(
    command: HostCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    files = client(command)
    assert [one.name for one in await files.tools()] == ["env"]
    found = json.loads((await files.call("env", {}, seconds=FAR)).text)
    assert found["OWN"] == "1"
    assert "HF_TOKEN" not in found
    await files.aclose()


async def test_a_command_that_ends_is_started_again(command: HostCommand) -> None:
    files = client(command)
    assert "closed the connection; it wrote: bad luck" in await reason(files.call("env", {"do": "die"}, seconds=FAR))
    assert not (await files.call("env", {}, seconds=FAR)).is_error
    await files.aclose()


async def test_a_message_of_a_command_has_a_bound(command: HostCommand) -> None:
    files = client(command)
    assert "a message of more than 4 MiB" in await reason(files.call("env", {"do": "long"}, seconds=FAR))
    await files.aclose()


async def test_a_command_may_write_other_lines_and_ignore_what_it_does_not_know(tmp_path: Path) -> None:
    """Servers before 2026 know no question for revisions, and some print a banner."""
    quiet = '    elif "id" in r:\n        pass\n'
    script = tmp_path / "server.py"
    script.write_text("print('Server started on stdio')\n" + SCRIPT[: SCRIPT.index('    elif "id" in r:')] + quiet)
    files = client(HostCommand(command=sys.executable, args=(str(script),)), seconds=1.0)
    assert "did not answer in 1 s" in await reason(files.tools())
    assert [one.name for one in await files.tools()] == ["env"]
    await files.aclose()


# Servers of the SDK, and mullama itself


SDK_SCRIPT = """
from mcp.server.mcpserver import MCPServer

server = MCPServer("adder")

@server.tool()
def add(a: int, b: int) -> int:
    "Adds two numbers."
    return a + b

@server.tool()
def fail() -> str:
    "Fails."
    raise ValueError("no luck")

server.run("stdio")
"""


async def test_a_command_made_with_the_sdk_is_a_server(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SDK_SCRIPT)
    adder = client(HostCommand(command=sys.executable, args=(str(script),)), seconds=60.0)
    tools = await adder.tools()
    assert [one.function for one in tools] == ["docs__add", "docs__fail"]
    assert (tools[0].description, adder.listing.left_out) == ("Adds two numbers.", {})
    assert (await adder.call("add", {"a": 2, "b": 3}, seconds=FAR)).text == "5"
    failed = await adder.call("fail", {}, seconds=FAR)
    assert (failed.is_error, "fail" in failed.text) == (True, True)
    wrong = await adder.call("add", {"a": "x"}, seconds=FAR)
    assert wrong.is_error
    assert (await adder.call("none", {}, seconds=FAR)).is_error
    await adder.aclose()


async def test_another_mullama_is_a_server_of_tools() -> None:
    with running_server(StubRuntime(manifest=manifest(server={"mcp": "read"}))) as server:
        other = client(HttpAddress(url=f"http://127.0.0.1:{server.port}/mcp"))
        tools = await other.tools()
        assert {"status", "diff", "models"} <= {one.name for one in tools}
        assert other.listing.left_out == {}
        result = await other.call("status", {}, seconds=FAR)
        assert not result.is_error
        assert "mullama" in result.text or "state" in result.text
        await other.aclose()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (HostCommand(command="/none/such"), "is a command that does not exist: /none/such"),
        (HostCommand(command="/etc/passwd"), "is a command that cannot be started: Permission denied"),
        (HostCommand(command=sys.executable, args=("-c", "")), "closed the connection"),
        (HostCommand(command=sys.executable, args=("-c", "print('hello')")), "closed the connection"),
    ],
)
async def test_a_command_that_is_no_server_has_its_reason(place: HostCommand, expected: str) -> None:
    files = client(place)
    assert expected in await reason(files.tools())
    await files.aclose()


async def test_a_command_that_stays_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import os,signal,subprocess,sys,time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)\n"
    )
    files = client(HostCommand(command=sys.executable, args=("-c", code)), seconds=1.5)
    assert "did not answer in 1.5 s" in await reason(files.tools())
    await files.aclose()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    await until(lambda: not any(map(_lives, pids)), FAR)  # a child is not waited for, and takes its time to end


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True
    except (ProcessLookupError, FileNotFoundError):
        return False
