"""Measures the first token of a chat whose model has 40 declared tools against the same chat without tools.

    python -m benches.tool_prompt MODEL.gguf [--rounds 15]

Prints the medians of both, the ratio, and the prompt tokens of each first request. The tools come from a server of
the official SDK on loopback, and make a prompt of about 3,000 tokens in the vocabulary of SmolLM2. The first request
waits for their prefix where it is being computed; its cached tokens are printed. Both models share the weights and the
context, and the first one to ask changes from round to round.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benches.servers import Server, mullama

TOOLS = 40
DESCRIPTION = "Returns the entries of the register {n} that match a query, newest first."


@contextmanager
def register_server() -> Iterator[str]:
    """Serve 40 tools from a thread; yield the address."""
    import uvicorn
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("register")

    async def search(query: str) -> str:
        return f"no entry for {query}"

    for number in range(TOOLS):
        server.add_tool(search, name=f"search_{number}", description=DESCRIPTION.format(n=number))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = server.streamable_http_app(stateless_http=True, json_response=False)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        running.should_exit = running.force_exit = True
        thread.join()
        listener.close()


def first_token(server: Server, model: str, question: str) -> tuple[float, dict[str, Any]]:
    """Return the seconds to the first text of an answer, and the usage of the request."""
    body = {
        "model": model, "stream": True, "max_tokens": 4, "temperature": 0, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": question}],
    }  # fmt: skip
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    usage: dict[str, Any] = {}
    begun, first = time.perf_counter(), 0.0
    with urllib.request.urlopen(request, timeout=300) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            frame = json.loads(line[6:])
            usage = frame.get("usage") or usage
            if not first and any(choice["delta"].get("content") for choice in frame["choices"]):
                first = time.perf_counter() - begun
    return first, usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    same = {"from": str(options.model), "context": {"size": 6144, "threads": 2}, "limits": {"parallel": 2}}
    with register_server() as address:
        models = {"plain": same, "tools": {**same, "mcp": ["register"]}}
        with mullama(models, mcp={"register": {"url": address}}) as server:
            seconds: dict[str, list[float]] = {"plain": [], "tools": []}
            for number in range(options.rounds):
                for model in ("plain", "tools") if number % 2 == 0 else ("tools", "plain"):
                    found, usage = first_token(server, model, f"Tell me about the number {number + 100}, please.")
                    seconds[model].append(found)
                    if number == 0:
                        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
                        print(f"{model}: first request, {usage['prompt_tokens']} prompt tokens, {cached} cached")
    medians = {model: statistics.median(found) for model, found in seconds.items()}
    for model, median in medians.items():
        print(f"{model}: {median * 1000:.1f} ms to the first token, median of {options.rounds}")
    print(f"with {TOOLS} tools: {medians['tools'] / medians['plain']:.2f} times the first token without (goal 1.1)")


if __name__ == "__main__":
    main()
