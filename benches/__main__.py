"""`python -m benches`: the table of ratios against llama-server, with the machine named.

    benches/build_peer.sh ~/.cache/mullama-bench           # once
    python -m benches [--rows plain,formats] [--rounds 3] [--json FILE]

The model is made once, with random weights over a real vocabulary, and quantised to Q4_K_M. The machine should have
nothing else to do; what the load average says is printed with the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benches.model import SHAPES, write
from benches.rows import ROWS, Row, Setup


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mullama-bench"
    parser.add_argument("--folder", type=Path, default=cache, help="where the peer was built and the model is kept")
    parser.add_argument("--peer", type=Path, help="llama-server (default: the one in the folder)")
    parser.add_argument("--model", type=Path, help="the GGUF to measure with (default: made in the folder)")
    parser.add_argument("--rows", default=",".join(ROWS), help="which rows, by name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    peer = asked.peer or asked.folder / "build" / "bin" / "llama-server"
    if not peer.exists():
        print(f"{peer} is missing: benches/build_peer.sh {asked.folder} builds it", file=sys.stderr)
        return 1
    model = asked.model or made(asked.folder)
    setup = Setup(peer=peer, model=model, threads=asked.threads, rounds=asked.rounds)
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}, {model.name}, {asked.rounds} rounds\n")
    columns = ("work", "goal", "ratio", "mullama", "llama-server", "unit", "each round", "CPU")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    rows: list[Row] = []
    for name in asked.rows.split(","):
        for row in ROWS[name](setup):
            rows.append(row)
            each = " ".join(f"{ratio:.2f}" for ratio in row.ratios)
            print(
                f"| {row.what} | {row.goal:g} | {row.ratio:.2f} | {row.ours:.3g} | {row.theirs:.3g} | {row.unit} "
                f"| {each} | {'' if row.cpu is None else f'{row.cpu:.2f}'} |",
                flush=True,
            )
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2))
    return 0


def made(folder: Path) -> Path:
    """The model of half a billion parameters, made and quantised when it is not there yet."""
    wanted = folder / "half-q4_k_m.gguf"
    if not wanted.exists():
        (vocabulary,) = folder.glob("source-*/vendor/llama.cpp/models/ggml-vocab-qwen2.gguf")
        whole = folder / "half-f16.gguf"
        write(vocabulary, whole, SHAPES["half"])
        beside = wanted.with_suffix(".part")
        subprocess.run([folder / "build/bin/llama-quantize", whole, beside, "Q4_K_M"], check=True, capture_output=True)
        beside.rename(wanted)
        whole.unlink()
    return wanted


def machine() -> str:
    """Processor, cores, system."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    sys.exit(main())
