"""`mullama lock` and the tools of servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Ran
from tests.tools.mcp_stub import McpStub, stub_in_thread, tool

Run = Callable[..., Ran]


@pytest.fixture
def stub() -> Iterator[McpStub]:
    with stub_in_thread() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, stub: McpStub) -> Path:
    (tmp_path / "mullama.yaml").write_text(
        f"mullama: v1\nmcp: {{docs: {{url: '{stub.url}', timeout: 10s}}}}\n"
        "models: {chat: {from: builtin:tiny, mcp: [docs]}}\n"
    )
    return tmp_path


def pinned(folder: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((folder / "mullama.lock").read_text()).get("tools", {})
    return found


def test_tools_are_pinned_and_updated_only_when_they_are_named(run: Run, folder: Path, stub: McpStub) -> None:
    assert "+ mcp.docs  2 tools  added" in run("lock").out
    first = pinned(folder)["docs"]
    assert set(first) == {"read", "search"}
    stub.tools = [tool("search", "otherwise"), tool("new")]
    out = run("lock").out
    assert "= mcp.docs  2 tools  kept" in out
    assert pinned(folder)["docs"] == first
    shown = run("lock", "--update", "docs", "--dry-run").out
    assert "~ mcp.docs  search changed; new is new; read is gone  moved" in shown
    assert "1 server of tools, 1 would change" in shown
    assert pinned(folder)["docs"] == first
    assert run("lock", "--update", "chat").code == 0
    assert pinned(folder)["docs"] == first
    tree = json.loads(run("lock", "--update", "--json").out)
    assert tree["tools"] == [
        {"server": "docs", "state": "moved", "count": 2, "changes": "search changed; new is new; read is gone"}
    ]
    assert set(pinned(folder)["docs"]) == {"new", "search"}


def test_a_server_that_does_not_answer_keeps_its_pins(run: Run, folder: Path, stub: McpStub) -> None:
    run("lock")
    first = pinned(folder)
    text = (folder / "mullama.yaml").read_text()
    (folder / "mullama.yaml").write_text(text.replace(stub.url, "http://127.0.0.1:1/mcp"))
    ran = run("lock", "--update")
    assert (ran.code, "docs is not reachable" in ran.err, "its pins stay" in ran.err) == (0, True, True)
    assert pinned(folder) == first
    assert run("lock", "--offline", "--update").code == 0
    assert pinned(folder) == first
    (folder / "mullama.lock").unlink()
    assert "its tools are not pinned" in run("lock").err
    assert pinned(folder) == {}


def test_pins_of_a_server_that_is_gone_are_removed(run: Run, folder: Path) -> None:
    run("lock")
    (folder / "mullama.yaml").write_text("mullama: v1\nmodels: {chat: builtin:tiny}\n")
    checked = run("lock", "--check")
    assert (checked.code, "- mcp.docs  is locked and not used" in checked.out) == (2, True)
    assert "- mcp.docs  2 tools  removed" in run("lock").out
    assert pinned(folder) == {}
    assert run("lock", "--check").code == 0


def test_an_unknown_name_is_still_an_error(run: Run, folder: Path) -> None:
    ran = run("lock", "--update", "dosc")
    assert (ran.code, "the manifest has no model 'dosc'" in ran.err) == (3, True)
