"""Measures the start of commands and servers: medians, for the table of commands in docs/performance.md.

    python -m benches.start_up [MODEL.gguf …] [--peer LLAMA_SERVER] [--rounds 9]

For a command, the processor time beyond a bare interpreter and the duration. For each model, and the built-in one, the
time from the start of `mullama serve` to the first answer of one token, and that of llama-server in turn with it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from benches.servers import Server, llama_server, mullama

ROOT = Path(__file__).parents[1]
_SIZE, _PARALLEL = 4096, 4  # tokens of a request; requests at once, as many as a model of mullama has
BUILT_IN = ROOT / "mullama/sources/builtin_models/tiny.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--peer", type=Path, help="llama-server, see build_peer.sh")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    compileall.compile_dir(ROOT / "mullama", quiet=1)  # so that no run has to
    _commands(options.rounds)
    for model in (BUILT_IN, *options.models):
        _start(model, options.peer, options.rounds)


def _commands(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mullama-bench-") as folder:
        alone = {**os.environ, "HOME": folder, "MULLAMA_STATE_DIR": f"{folder}/state"}
        alone.pop("MULLAMA_HOST", None)
        bare = _median(("-c", "pass"), alone, rounds)[0]
        for arguments in (("--version",), ("--help",), ("diff", "-f", str(ROOT / "mullama.yaml"))):
            _report(arguments, alone, bare, rounds)
        with mullama({"bench": {"from": "builtin:tiny"}}) as server:
            asking = {**alone, "MULLAMA_HOST": server.url}
            for arguments in (("list",), ("ps",), ("show", "bench")):
                _report(arguments, asking, bare, rounds)


def _report(arguments: tuple[str, ...], env: dict[str, str], bare: float, rounds: int) -> None:
    used, took = _median(("-m", "mullama", *arguments), env, rounds)
    print(f"mullama {arguments[0]}: {1000 * (used - bare):.0f} ms of CPU beyond an interpreter, {1000 * took:.0f} ms")


def _median(arguments: tuple[str, ...], env: dict[str, str], rounds: int) -> tuple[float, float]:
    """Return the processor time and the duration of a run of the interpreter in seconds."""
    runs = []
    for _ in range(rounds):
        before, begun = _children(), time.perf_counter()
        subprocess.run([sys.executable, *arguments], env=env, cwd=env["HOME"], capture_output=True, check=False)
        runs.append((_children() - before, time.perf_counter() - begun))
    return statistics.median(used for used, _ in runs), statistics.median(took for _, took in runs)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _start(model: Path, peer: Path | None, rounds: int) -> None:
    source = "builtin:tiny" if model == BUILT_IN else str(model.resolve())
    ours, theirs = [], []
    for _ in range(rounds):
        # Equal contexts: their cells are cleared, which takes longer than to map the weights of a small model.
        ours.append(_first_answer(mullama({"bench": {"from": source, "context": {"size": _SIZE}}})))
        if peer is not None:
            theirs.append(_first_answer(llama_server(peer, model, threads=2, size=_SIZE, parallel=_PARALLEL)))
    against = f", llama-server {statistics.median(theirs):.2f} s" if theirs else ""
    print(f"start to first answer, {model.stem}: {statistics.median(ours):.2f} s{against}")


def _first_answer(starting: AbstractContextManager[Server]) -> float:
    begun = time.perf_counter()
    with starting as server:
        body = json.dumps({"model": "bench", "prompt": "Hi", "max_tokens": 1}).encode()
        request = urllib.request.Request(f"{server.url}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            answer.read()
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
