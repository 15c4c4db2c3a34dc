"""Measures the first token of a chat whose model has 40 declared tools against the same chat without tools.

    python -m benches.tool_prompt MODEL.gguf … [--rounds 15] [--threads 2]

Prints for each model: the tokens of the tools, those of a request that are cached and new, the medians of the time to
the first token and of the processor time until then, each for the server process and for the worker, and their ratios
with the least possible one (`benches.prefix_cost`).

The tools come from a server of the official SDK on loopback, and make a prompt of about 3,000 tokens in the vocabulary
of SmolLM2. The first request waits for their prefix where it is being computed, and is not counted. Both chats share
the weights and the context, and the first one to ask changes from round to round. Processor time does not depend on
other processes of the machine, except for their use of the caches; the time to the first token does.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.prefix_cost import of_facts
from benches.servers import Server, mullama
from mullama.sources.local_files import look_into

TOOLS = 40
DESCRIPTION = "Returns the entries of the register {n} that match a query, newest first."
GOAL = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request up to its first token."""

    first: float
    """Seconds to the first token."""
    server: float
    """Seconds of processor time of the server process."""
    worker: float
    """Seconds of processor time of its workers."""
    prompt: int
    """Tokens of the prompt."""
    cached: int
    """Of these, the tokens that were not computed."""


@contextmanager
def register_server() -> Iterator[str]:
    """Serve 40 tools from a thread; yield the address."""
    import uvicorn
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("register", log_level="ERROR")
    logging.getLogger("mcp").setLevel(logging.ERROR)

    async def search(query: str) -> str:
        return f"no entry for {query}"

    for number in range(TOOLS):
        server.add_tool(search, name=f"search_{number}", description=DESCRIPTION.format(n=number))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = server.streamable_http_app(stateless_http=True, json_response=False)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        running.should_exit = True  # not `force_exit`, which cancels the end of the app
        thread.join()
        listener.close()


def first_token(server: Server, model: str, question: str) -> Asked:
    """Ask for one token."""
    body = {
        "model": model, "stream": True, "max_tokens": 1, "temperature": 0, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": question}],
    }  # fmt: skip
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    usage: dict[str, Any] = {}
    before = server.processor_times()
    begun, first = time.perf_counter(), 0.0
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            frame = json.loads(line[6:])
            usage = frame.get("usage") or usage
            if not first and any(choice["delta"].get("content") for choice in frame["choices"]):
                first = time.perf_counter() - begun
    first = first or time.perf_counter() - begun  # a token without a text of its own
    after = server.processor_times()
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return Asked(
        first=first, server=after[0] - before[0], worker=after[1] - before[1], prompt=usage["prompt_tokens"],
        cached=cached,
    )  # fmt: skip


def measure(path: Path, address: str, rounds: int, threads: int) -> dict[str, list[Asked]]:
    """Return the requests to the model without tools and with those of this address, without the first of each."""
    same = {"from": str(path.resolve()), "context": {"size": 8192, "threads": threads}, "limits": {"parallel": 2}}
    models = {"plain": same, "tools": {**same, "mcp": ["register"]}}
    asked: dict[str, list[Asked]] = {"plain": [], "tools": []}
    with mullama(models, mcp={"register": {"url": address}}) as server:
        for number in range(rounds + 1):
            for model in ("plain", "tools") if number % 2 == 0 else ("tools", "plain"):
                asked[model].append(first_token(server, model, f"Tell me about the number {number + 100}, please."))
    return {model: found[1:] for model, found in asked.items()}


def report(path: Path, asked: dict[str, list[Asked]]) -> Iterator[str]:
    """Yield the lines about a model."""
    plain, tools = (
        {name: statistics.median(getattr(one, name) for one in asked[model]) for name in Asked.__slots__}
        for model in ("plain", "tools")
    )
    facts = look_into((str(path),))
    yield f"{facts.name or path.name}, {facts.quantization}: {tools['prompt'] - plain['prompt']:.0f} tokens of tools"
    for name, found in (("without tools", plain), ("with tools", tools)):
        new = found["prompt"] - found["cached"]
        yield (
            f"  {name}: {found['cached']:.0f} tokens cached, {new:.0f} new; first token after "
            f"{found['first'] * 1000:.1f} ms; processor time {found['server'] * 1000:.1f} ms of the server, "
            f"{found['worker'] * 1000:.1f} ms of the worker"
        )
    ratios = {name: tools[name] / plain[name] for name in ("first", "worker")}
    line = f"  ratio: first token {ratios['first']:.2f} (goal {GOAL}), worker {ratios['worker']:.2f}"
    if cost := of_facts(facts):
        with_, without = (
            (round(found["prompt"] - found["cached"]), round(found["cached"])) for found in (tools, plain)
        )
        operations = cost.operations(*with_) / cost.operations(*without)
        read = cost.bytes(*with_) / cost.bytes(*without)
        line += f"; least possible: {operations:.2f} by operations, {read:.2f} by bytes"
    yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"{TOOLS} declared tools, medians of {options.rounds} rounds", flush=True)
    with register_server() as address:
        for path in options.models:
            for line in report(path, measure(path, address, options.rounds, options.threads)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
