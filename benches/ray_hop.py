"""Measures a request through Ray: time to the first byte, and the CPU time of each process per token.

    make ray    # once, for its environment
    .venv-ray/bin/python -m benches.ray_hop [--requests 30] [--tokens 300]

The scripted engine takes almost no time, so the figures are those of Serve's proxy, the gateway and the replica.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from tests.targets.contract import KEY, chat
from tests.targets.ray.cluster_stack import Stack
from tests.targets.ray.local_cluster import local_cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=300)
    options = parser.parse_args()
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        stack = Stack(cluster, Path(folder))
        stack.script("a", "I am one")
        stack.apply()
        for _ in range(20):
            stack.who("a")
        before, firsts, rests = _cpu(), list[float](), list[float]()
        for _ in range(options.requests):
            first, rest = _answer(cluster.http, options.tokens)
            firsts.append(first)
            rests.append(rest)
        after, tokens = _cpu(), options.requests * options.tokens
        print(f"first byte {statistics.median(firsts) * 1e3:.1f} ms (median of {options.requests})")
        print(f"wall time  {statistics.median(rests) / options.tokens * 1e6:.0f} us per token")
        for name, seconds in after.items():
            print(f"CPU time   {(seconds - before.get(name, 0.0)) / tokens * 1e6:.0f} us per token: {name}")
        stack.run("down", "--yes")


def _answer(port: int, tokens: int) -> tuple[float, float]:
    """Return the seconds to the first byte of a streamed answer, and from there to its end."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begun = time.perf_counter()
    body = json.dumps(chat("a", f"{tokens} tokens", stream=True))
    link.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {KEY}"})
    answer = link.getresponse()
    answer.readline()
    first = time.perf_counter()
    answer.read()
    link.close()
    return first - begun, time.perf_counter() - first


def _cpu() -> dict[str, float]:
    """Return the CPU seconds of the processes of a request, by their part."""
    found: dict[str, float] = {}
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        line, times = " ".join(process.info["cmdline"] or []), process.info["cpu_times"]
        for part, mark in (("proxy", "ProxyActor"), ("gateway", "Replica:gateway"), ("replica", "Replica:m-")):
            if mark in line and times is not None:
                found[part] = found.get(part, 0.0) + times.user + times.system
    return found


if __name__ == "__main__":
    main()
