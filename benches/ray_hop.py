"""Measures what Ray adds to a request: time to the first byte, and processor time for a token and for a request.

    make ray    # once, for its environment
    .venv-ray/bin/python -m benches.ray_hop [--requests 20]

The same requests go to a server of one machine, to a stack on a cluster, and to two bare deployments on the same
cluster: one has a route and passes on what it gets from the handle of the other, which sends the same strings in as
many messages. The bare ones are the price of Serve itself; what the stack takes more is ours.

The scripted engine takes almost no time. Tokens come as fast as the engine writes them, and at 100 a second: joined
tokens share the price of a message. The time of a request is that of one with a single token, and the time of a token
that of the others of a long answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from mullama.errors import MullamaError
from mullama.struct import Struct
from mullama.targets.ray.dashboard import Dashboard
from tests.e2e.stack import stack_in
from tests.targets import contract
from tests.targets.contract import KEY, chat
from tests.targets.ray.cluster_stack import Stack, until
from tests.targets.ray.local_cluster import LocalCluster, local_cluster

PACES = {"as fast as written": ("", 2000), "100 a second": ("slow 10ms ", 100)}
"""The beginning of a request, and the tokens of its long answers."""
OURS = {"proxy": "ProxyActor", "gateway": "Replica:gateway", "replica": "Replica:m-"}
BARE = {"proxy": "ProxyActor", "gateway": "Replica:bare:Gateway", "replica": "Replica:bare:Replica"}
"""The processes that a request passes, by a part of their titles."""
Times = Callable[[], dict[str, float]]
"""Returns processor seconds by part."""


class Measured(Struct, frozen=True, kw_only=True):
    """Requests of one pace to one place."""

    first: float
    """Median seconds to the first byte of a streamed answer."""
    request: Mapping[str, float]
    """Processor seconds for a request with one token, by part."""
    token: Mapping[str, float]
    """Processor seconds for each further token, by part."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20)
    options = parser.parse_args()
    alone = server(options.requests)
    ours, bare = stack(options.requests)
    print(f"load {os.getloadavg()[0]:.1f}")
    for pace in PACES:
        one, many, floor = alone[pace], ours[pace], bare[pace]
        print(f"\ntokens {pace}:\n\n| measured | server | bare Serve | stack | stack - bare |\n|---|---|---|---|---|")
        _row("first byte", "ms", 1e3, one.first, floor.first, many.first)
        _row("first byte, added to the server's", "ms", 1e3, None, floor.first - one.first, many.first - one.first)
        for part in ("server", *OURS):
            _row(
                f"processor time for a request: {part}", "ms", 1e3, *(at.request.get(part) for at in (one, floor, many))
            )
        _row("processor time for a request", "ms", 1e3, *(sum(at.request.values()) for at in (one, floor, many)))
        for part in ("server", *OURS):
            _row(f"processor time for a token: {part}", "us", 1e6, *(at.token.get(part) for at in (one, floor, many)))
        _row("processor time for a token", "us", 1e6, *(sum(at.token.values()) for at in (one, floor, many)))


def _row(name: str, unit: str, scale: float, one: float | None, bare: float | None, many: float | None) -> None:
    more = many - bare if many is not None and bare is not None else None
    cells = ["" if value is None else f"{value * scale:.2f} {unit}" for value in (one, bare, many, more)]
    print(f"| {name} | {' | '.join(cells)} |")


def server(requests: int) -> dict[str, Measured]:
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
            return measured(port, requests, lambda: {"server": _seconds(process)})


def stack(requests: int) -> tuple[dict[str, Measured], dict[str, Measured]]:
    """Measure a stack on a cluster of this machine, and the bare deployments after it."""
    with local_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        dashboard = Dashboard(cluster.dashboard)
        until(lambda: _starts(dashboard), "Serve", within=300)
        made = Stack(cluster, Path(folder))
        made.script("a", "I am one")
        made.apply()
        ours = measured(cluster.http, requests, lambda: _parts(cluster, OURS))
        made.run("down", "--yes")
        app = {"name": "bare", "import_path": "benches.bare_serve:build", "route_prefix": "/"}
        dashboard.put({"http_options": {"host": "127.0.0.1", "port": cluster.http}, "applications": [app]})

        def runs() -> bool:
            found = dashboard.details()["applications"].get("bare", {})
            if found.get("status") == "DEPLOY_FAILED":
                raise RuntimeError(found["message"])
            return bool(found.get("status") == "RUNNING")

        until(runs, "the bare deployments")
        return ours, measured(cluster.http, requests, lambda: _parts(cluster, BARE))


def _starts(dashboard: Dashboard) -> bool:
    """Return True when the dashboard answers: the first request starts Serve, and may fail before it runs."""
    try:
        dashboard.details()
    except MullamaError:
        return False
    return True


def measured(port: int, requests: int, times: Times) -> dict[str, Measured]:
    found = {}
    for _ in range(40):
        _first(port, "5 tokens")
    for pace, (text, tokens) in PACES.items():
        request, firsts = _spent(port, requests, f"{text}1 tokens", times)
        long, further = _spent(port, requests, f"{text}{tokens} tokens", times)
        token = {part: (seconds - request[part]) / (tokens - 1) for part, seconds in long.items()}
        found[pace] = Measured(first=statistics.median(firsts + further), request=request, token=token)
    return found


def _spent(port: int, requests: int, text: str, times: Times) -> tuple[dict[str, float], list[float]]:
    """Return the processor seconds for a request by part, and the seconds to the first byte of each."""
    before = times()
    firsts = [_first(port, text) for _ in range(requests)]
    return {part: (seconds - before.get(part, 0.0)) / requests for part, seconds in times().items()}, firsts


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


def _parts(cluster: LocalCluster, marks: Mapping[str, str]) -> dict[str, float]:
    """Return the processor seconds of the processes of a cluster that a request passes."""
    found: dict[str, float] = {}
    for node in cluster.nodes:
        for process in psutil.Process(node.pid).children(recursive=True):
            try:
                line, seconds = " ".join(process.cmdline()), _seconds(process)
            except psutil.NoSuchProcess:
                continue
            for part, mark in marks.items():
                if mark in line:
                    found[part] = found.get(part, 0.0) + seconds
    return found


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
