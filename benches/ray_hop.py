"""Measures what Ray adds to a request: time to the first byte, and the CPU time of each process per token.

    make ray    # once, for its environment
    .venv-ray/bin/python -m benches.ray_hop [--requests 30] [--tokens 300]

The same requests go to a server of one machine and to a stack on a cluster, one after another. The scripted engine
takes almost no time, so the differences are those of Serve's proxy, the gateway and the messages to the replica. Tokens
come as fast as the engine writes them, and at 100 a second: joined tokens share the price of a message.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from mullama.struct import Struct
from tests.e2e.stack import stack_in
from tests.targets import contract
from tests.targets.contract import KEY, chat
from tests.targets.ray.cluster_stack import Stack
from tests.targets.ray.local_cluster import local_cluster

PACES = {"as fast as written": "", "100 a second": "slow 10ms "}
Times = Callable[[], dict[str, float]]
"""Returns CPU seconds by part."""


class Measured(Struct, frozen=True, kw_only=True):
    """Requests of one pace to one place."""

    first: float
    """Median seconds to the first byte of a streamed answer."""
    cpu: dict[str, float]
    """CPU seconds for each token, by part."""

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=300)
    options = parser.parse_args()
    alone, cluster = server(options.requests, options.tokens), stack(options.requests, options.tokens)
    for pace in PACES:
        one, many = alone[pace], cluster[pace]
        added, more = (many.first - one.first) * 1e3, (many.total - one.total) * 1e6
        print(f"tokens {pace}:")
        print(f"  first byte  {one.first * 1e3:.2f} ms server, {many.first * 1e3:.2f} ms cluster: {added:.2f} ms added")
        for name, seconds in (one.cpu | many.cpu).items():
            print(f"  CPU a token {seconds * 1e6:.0f} us: {name}")
        print(f"  CPU a token {more:.0f} us added")


def server(requests: int, tokens: int) -> dict[str, Measured]:
    """Measure a server of one machine."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "a.script.json").write_text(json.dumps(contract.SCRIPT))
        with stack_in(home) as one:
            one.forks = False
            one.variables["TEAM_KEY"] = KEY
            one.write({"a": {"from": "./a.script.json"}}, auth=contract.AUTH)
            process = psutil.Process(one.serve().pid)
            port = int(one.ready().rpartition(":")[2])
            return measured(port, requests, tokens, lambda: {"server": _seconds(process)})


def stack(requests: int, tokens: int) -> dict[str, Measured]:
    """Measure a stack on a cluster of this machine."""
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        made = Stack(cluster, Path(folder))
        made.script("a", "I am one")
        made.apply()
        found = measured(cluster.http, requests, tokens, _parts)
        made.run("down", "--yes")
        return found


def measured(port: int, requests: int, tokens: int, times: Times) -> dict[str, Measured]:
    found = {}
    for pace, text in PACES.items():
        for _ in range(20):
            _first(port, f"{text}5 tokens")
        before = times()
        firsts = [_first(port, f"{text}{tokens} tokens") for _ in range(requests)]
        after, count = times(), requests * tokens
        cpu = {part: (seconds - before.get(part, 0.0)) / count for part, seconds in after.items()}
        found[pace] = Measured(first=statistics.median(firsts), cpu=cpu)
    return found


def _first(port: int, text: str) -> float:
    """Return the seconds to the first byte of a streamed answer, which is read to its end."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begun = time.perf_counter()
    body = json.dumps(chat("a", text, stream=True))
    link.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {KEY}"})
    answer = link.getresponse()
    answer.readline()
    first = time.perf_counter() - begun
    assert b"[DONE]" in answer.read()
    link.close()
    return first


def _parts() -> dict[str, float]:
    """Return the CPU seconds of the processes of the cluster that a request passes."""
    found: dict[str, float] = {}
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        for part, mark in (("proxy", "ProxyActor"), ("gateway", "Replica:gateway"), ("replica", "Replica:m-")):
            if mark in line:
                found[part] = found.get(part, 0.0) + _seconds(process)
    return found


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
