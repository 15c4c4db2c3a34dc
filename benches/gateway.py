"""Measures the cost of a hop: a server that forwards to a peer, with the scripted engine, which takes almost no time.

    python -m benches.gateway [--rounds 7] [--requests 200] [--tokens 4000]

Each pair is the same request, directly and through the gateway, in turn. Prints the median of the time to the first
byte that the hop adds, and the processor time of the gateway for a token of a long answer and for a short request.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benches.servers import Server, mullama


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """The cost of a hop: medians."""

    first_byte: float
    """Seconds that it adds to the first byte."""
    direct: float
    """Seconds to the first byte without it."""
    token: float
    """Seconds of processor time of the gateway for a token."""
    request: float
    """Seconds of processor time of the gateway for a request with a short answer."""


class Client:
    """Asks one server over one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)

    def connect(self) -> None:
        """Begin a new connection, because a server closes one that is unused for seconds, and use it once."""
        self._connection.close()
        self.ask("hi")

    def ask(self, text: str) -> tuple[float, int]:
        """Return the seconds to the first byte of the answer's body, and its tokens."""
        body = {"model": "bench", "stream": True, "messages": [{"role": "user", "content": text}]}
        begun = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = self._connection.getresponse()
        data = answer.read1(65536)
        first = time.perf_counter() - begun
        data += answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {data[:300]!r}")
        return first, data.count(b'"content":')


def measure(rounds: int = 7, requests: int = 200, tokens: int = 4000) -> Hop:
    """Return the medians over pairs of requests and over rounds."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "words.script.json")
        rules = [{"when": "long", "say": " word" * tokens}, {"when": ".", "say": "hi"}]
        script.write_text(json.dumps({"rules": rules, "context": 2 * tokens + 4096}))
        with mullama({"bench": {"from": str(script)}}) as peer:
            blocks = {"peers": {"a": {"url": peer.url}}, "routes": {"bench": "bench@a"}}
            with mullama({}, **blocks) as gateway:
                return _measured(Client(peer.url), Client(gateway.url), gateway, rounds, requests)


def _measured(direct: Client, through: Client, gateway: Server, rounds: int, requests: int) -> Hop:
    added, alone, of_token, of_request = [], [], [], []
    direct.ask("long")
    through.ask("long")
    process = psutil.Process(gateway.process.pid)
    for _ in range(rounds):
        direct.connect()
        through.connect()
        before = _cpu(process)
        for _ in range(requests):
            first, _ = direct.ask("hi")
            added.append(through.ask("hi")[0] - first)
            alone.append(first)
        of_request.append((_cpu(process) - before) / requests)
        before = _cpu(process)
        count = sum(through.ask("long")[1] for _ in range(5))
        of_token.append((_cpu(process) - before) / count)
    medians = map(statistics.median, (added, alone, of_token, of_request))
    return Hop(**dict(zip(("first_byte", "direct", "token", "request"), medians, strict=True)))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=4000)
    options = parser.parse_args()
    hop = measure(options.rounds, options.requests, options.tokens)
    print(f"load {os.getloadavg()[0]:.1f}\n\n| measured | value | goal |\n|---|---|---|")
    print(f"| first byte, added by the hop | {hop.first_byte * 1e3:.2f} ms | < 1.5 ms |")
    print(f"| first byte, directly | {hop.direct * 1e3:.2f} ms | |")
    print(f"| processor time of the gateway for a token | {hop.token * 1e6:.1f} us | < 30 us |")
    print(f"| processor time of the gateway for a short request | {hop.request * 1e3:.2f} ms | |")


if __name__ == "__main__":
    main()
