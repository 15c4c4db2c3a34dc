"""Calls each tool of a server of tools once, with the connection that models use: `tool_caller.py ADDRESS`."""

from __future__ import annotations

import asyncio
import sys

from mullama.tools.mcp_client import HttpAddress, McpClient

SECONDS = 30.0
ARGUMENTS = {"add_numbers": {"a": 5, "b": 3}}


async def main() -> None:
    client = McpClient("suite", HttpAddress(url=sys.argv[-1]), allowed=("*",), seconds=SECONDS, most=65536)
    for tool in await client.tools():
        result = await client.call(tool.name, ARGUMENTS.get(tool.name, {}), seconds=SECONDS)
        assert not result.is_error, result.text
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main())
