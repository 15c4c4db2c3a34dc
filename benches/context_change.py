"""Measures the duration of an apply that changes only a model's context, while the weights stay loaded.

    python -m benches.context_change [MODEL.gguf] [--rounds 9]

A running server gets manifests with alternating context sizes. The time is that of the complete apply, from the
request to its result: plan, new context, first probe, swap, and the end of the old context. Prints milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import urllib.request
from typing import Any

from benches.servers import mullama

SIZES = (1024, 768)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="builtin:tiny")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()

    def models(size: int) -> dict[str, Any]:
        return {"bench": {"from": arguments.model, "context": {"size": size}}}

    with mullama(models(SIZES[0])) as server:
        listen = server.url.removeprefix("http://")
        took = []
        for n in range(1, arguments.rounds + 1):
            tree = {"mullama": "v1", "server": {"listen": [listen]}, "models": models(SIZES[n % 2])}
            before = time.perf_counter()
            costs = _apply(server.url, tree)
            took.append((time.perf_counter() - before) * 1e3)
            assert costs == ["context"], costs
    low, middle, high = statistics.quantiles(took, n=4)
    print(f"{arguments.model}: {middle:.0f} ms, half of {len(took)} from {low:.0f} to {high:.0f}")


def _apply(url: str, tree: dict[str, Any]) -> list[str]:
    """Apply a manifest; return the costs of the plan's steps."""
    body = json.dumps({"manifest": tree}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v1/stack", body, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=300) as answer:
        lines = [json.loads(line) for line in answer]
    if lines[-1].get("outcome") != "applied":
        raise SystemExit(f"the apply failed: {lines[-1]}")
    (plan,) = [line["plan"] for line in lines if line["event"] == "plan"]
    return [step["cost"] for step in plan["steps"]]


if __name__ == "__main__":
    main()
