"""Servers of tools with the secrets and commands of this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.reconcile.tool_servers import list_pins, open_server
from tests.tools.mcp_stub import McpStub

pytestmark = pytest.mark.anyio


def manifest(**docs: Any) -> Manifest:
    declared = {"url": "http://127.0.0.1:1/mcp", **docs}
    models = {"a": {"from": "builtin:tiny", "mcp": ["docs"]}}
    return Manifest.model_validate({"mullama": "v1", "mcp": {"docs": declared}, "models": models})


CLIENT = {"token_url": "http://127.0.0.1:1/token", "client_id": "c", "scopes": ["a", "b"]}
OAUTH = {"oauth": {**CLIENT, "client_secret": {"from_env": "SECRET"}}}
HEADER = {"headers": {"X-Key": {"from_env": "KEY"}}}


@pytest.mark.parametrize(
    ("docs", "env", "message"),
    [
        (HEADER, {}, "mcp.docs.headers.X-Key: the environment variable KEY is missing or empty"),
        (OAUTH, {}, "mcp.docs.oauth.client_secret: the environment variable SECRET is missing or empty"),
        (HEADER, {"KEY": "canary\nX-Other: 1"}, "mcp.docs.headers.X-Key has a character that no header can have"),
        (HEADER, {"KEY": "canäry"}, "mcp.docs.headers.X-Key has a character that no header can have"),
        ({"url": None, "from_host": "x"}, {"MULLAMA_MCP_HOST_FILE": "/none"}, "/none does not exist, so this machine"),
    ],
)
async def test_a_server_that_cannot_be_asked_has_the_reason(
    docs: dict[str, Any], env: dict[str, str], message: str
) -> None:
    declared = manifest(**docs)
    with pytest.raises(MullamaError) as caught:
        await open_server("docs", declared.mcp["docs"], env)
    assert str(caught.value).startswith(message)
    assert "canar" not in str(caught.value)
    found = (await list_pins(declared, ["docs"], env))["docs"]
    assert isinstance(found, MullamaError)


async def test_a_client_of_oauth_gets_its_tokens_where_the_manifest_says() -> None:
    found = (await list_pins(manifest(**OAUTH), ["docs"], {"SECRET": "canary"}))["docs"]
    assert isinstance(found, MullamaError)
    assert "gets no token: oauth.token_url is not reachable" in str(found)


async def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mullama.tools.mcp_client", None)
    with pytest.raises(MullamaError, match=r"needs the package mcp, .*pip install 'mullama\[mcp\]'"):
        await open_server("docs", manifest().mcp["docs"], {})


async def test_the_pins_are_those_of_the_allowed_tools(tmp_path: Path) -> None:
    async with McpStub().running() as stub:
        (tmp_path / "key").write_text("canary\n")
        (tmp_path / "key").chmod(0o600)
        header = {"headers": {"X-Key": {"from_file": str(tmp_path / "key")}}}
        found = await list_pins(manifest(url=stub.url, tools=["s*"], **header), ["docs"], {})
        assert isinstance(found["docs"], dict)
        assert list(found["docs"]) == ["search"]
        assert {headers["x-key"] for _, headers in stub.seen} == {"canary"}
