"""Measures the throughput of the complete HTTP path with the scripted engine, which takes almost no time.

    python -m benches.http_path [--streams 32] [--tokens 512]

Prints tokens per second over the wire, and the CPU time of server and worker per token.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import psutil

from benches.servers import mullama


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--api", choices=("chat", "completions"), default="chat")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "words.script.json")
        rule = {"when": ".", "say": " word" * options.tokens}
        script.write_text(json.dumps({"rules": [rule], "context": 4096}))
        models = {"bench": {"from": str(script), "limits": {"parallel": options.streams}}}
        with mullama(models) as server:
            processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children()]
            for number in range(options.rounds):
                before = [_cpu(process) for process in processes]
                found = server.load(
                    clients=options.streams,
                    prompt_len=16,
                    gen_len=options.tokens,
                    api=options.api,
                    seed=number,
                    warmup=1,
                )
                spent = [_cpu(process) - was for process, was in zip(processes, before, strict=True)]
                each = ", ".join(
                    f"{name} {seconds / found.tokens * 1e6:.1f} us"
                    for name, seconds in zip(("server", "worker"), spent, strict=False)
                )
                print(
                    f"{options.streams} streams of {found.tokens // options.streams} tokens: "
                    f"{found.tokens_per_second:,.0f} tokens/s; CPU per token: {each} (load {os.getloadavg()[0]:.1f})"
                )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
