"""The declared servers of tools as providers, with the secrets and commands of this machine, and their pins."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from mullama.errors import MullamaError, ToolsUnavailable
from mullama.manifest.spec import Manifest, McpServer
from mullama.plan.tools import ToolPins
from mullama.reconcile.secrets import read_secret
from mullama.tools.base import ServerTool, ToolProvider
from mullama.tools.host_file import host_command
from mullama.tools.listing import ToolListing

_IN_HEADER: Final = re.compile(r"[!-~]+(?:[ \t]+[!-~]+)*")


class Listed(ToolProvider, Protocol):
    """A provider that has the reasons for tools that it leaves out, and the time for which its list holds."""

    listing: ToolListing
    keeps: float | None
    """Seconds; None where the server does not say."""


async def open_server(name: str, server: McpServer, env: Mapping[str, str]) -> Listed:
    """Return the client of a declared server, which connects when it is used.

    Reads its secrets or the host file. Raises the errors of `read_secret`, and `ToolsUnavailable`.
    """
    return await asyncio.to_thread(_opened, name, server, env)  # imports the SDK and reads files


def _opened(name: str, server: McpServer, env: Mapping[str, str]) -> Listed:
    try:
        sdk: Any = importlib.import_module("mullama.tools.mcp_client")
    except ModuleNotFoundError as error:
        raise ToolsUnavailable(
            f"the server of tools {name} needs the package mcp, which is not installed",
            hint="pip install 'mullama[mcp]' installs it",
        ) from error
    place = (
        host_command(server.from_host, env)
        if server.from_host is not None
        else sdk.HttpAddress(url=server.url, headers=_headers(name, server, env), oauth=_credentials(name, server, env))
    )
    made: Listed = sdk.McpClient(name, place, allowed=server.tools, seconds=server.timeout, most=server.result)
    return made


def _headers(name: str, server: McpServer, env: Mapping[str, str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for header, ref in server.headers.items():
        field = f"mcp.{name}.headers.{header}"
        value = read_secret(ref, field, env)
        if value is not None and not _IN_HEADER.fullmatch(value):
            raise ToolsUnavailable(
                f"{field} has a character that no header can have", hint="it is printable ASCII without a line break"
            )
        if value is not None:
            headers[header] = value
    return headers


def _credentials(name: str, server: McpServer, env: Mapping[str, str]) -> Any:
    """Return the client of OAuth with its secret; None without one."""
    if (oauth := server.oauth) is None:
        return None
    from mullama.tools.oauth import ClientCredentials

    secret = read_secret(oauth.client_secret, f"mcp.{name}.oauth.client_secret", env)
    return None if secret is None else ClientCredentials(
        token_url=oauth.token_url, client_id=oauth.client_id, client_secret=secret, scope=" ".join(oauth.scopes),
        resource=server.url or "",
    )  # fmt: skip


def tool_digests(tools: Iterable[ServerTool]) -> dict[str, str]:
    """Return the digest of each tool by its name."""
    return {tool.name: tool.digest for tool in tools}


async def list_pins(
    manifest: Manifest, names: Iterable[str], env: Mapping[str, str]
) -> dict[str, ToolPins | MullamaError]:
    """Return the pins of these servers as they list their tools now, or the error of one that does not."""

    async def one(name: str) -> ToolPins | MullamaError:
        try:
            provider = await open_server(name, manifest.mcp[name], env)
            try:
                return tool_digests(await provider.tools())
            finally:
                await provider.aclose()
        except MullamaError as error:
            return error

    chosen = tuple(names)
    return dict(zip(chosen, await asyncio.gather(*map(one, chosen)), strict=True))
