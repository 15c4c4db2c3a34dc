"""A server of tools by the official SDK, as a process on loopback: prints its port, and ends with its standard input.

    python -m tests.tools.notes_server FOLDER

`hold` waits until it is cancelled; the files `held` and `released` of the folder show both.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def notes_server(folder: Path) -> Iterator[str]:
    """Run the server; yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tools.notes_server", str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def main(folder: Path) -> None:
    import uvicorn
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    server = MCPServer("notes")

    @server.tool(structured_output=False)
    async def read(page: int) -> str:
        """Reads a page of the notes."""
        return f"page {page}"

    @server.tool(structured_output=False)
    async def fail() -> str:
        """Fails."""
        raise ToolError("no such page")

    @server.tool(structured_output=False)
    async def hold() -> str:
        """Waits until it is cancelled."""
        (folder / "held").touch()
        try:
            await asyncio.Event().wait()
        finally:
            (folder / "released").touch()
        return ""

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    app = server.streamable_http_app(stateless_http=True, json_response=False)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))

    def end_with_input() -> None:
        sys.stdin.read()
        running.force_exit = running.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    asyncio.run(running.serve(sockets=[listener]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
