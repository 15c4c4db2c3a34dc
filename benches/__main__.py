"""Prints a table of ratios against llama-server, with the name of the machine.

    benches/build_peer.sh ~/.cache/mullama-bench           # once
    python -m benches [--rows plain,formats] [--rounds 3] [--json FILE]

The model is made once, with random weights over a real vocabulary, and quantised to Q4_K_M. Rows of real models are
measured when they are named; `make real` fetches the models. The machine should be idle; the table is printed with the
load average.
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

from benches.media_rows import MEDIA_ROWS
from benches.model import SHAPES, write
from benches.real_rows import REAL_ROWS
from benches.rows import ROWS, Row, Setup

ALL = ROWS | MEDIA_ROWS | REAL_ROWS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mullama-bench"
    parser.add_argument("--folder", type=Path, default=cache, help="folder of the peer's build and of the model")
    parser.add_argument("--peer", type=Path, help="llama-server (default: the one in the folder)")
    parser.add_argument("--model", type=Path, help="the GGUF to measure with (default: made in the folder)")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"names of rows: {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peer = options.peer or options.folder / "build" / "bin" / "llama-server"
    if not peer.exists():
        print(f"{peer} is missing: benches/build_peer.sh {options.folder} builds it", file=sys.stderr)
        return 1
    names = options.rows.split(",")
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"there is no row {unknown[0]!r}: the rows are {', '.join(ALL)}")
    model = options.model or (quantised_model(options.folder) if (ROWS | MEDIA_ROWS).keys() & set(names) else Path())
    setup = Setup(peer=peer, model=model, threads=options.threads, rounds=options.rounds)
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}, {model.name or 'real models'}, {options.rounds} rounds\n")
    columns = ("work", "goal", "ratio", "mullama", "llama-server", "unit", "each round", "CPU")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    rows: list[Row] = []
    for name in names:
        for row in ALL[name](setup):
            rows.append(row)
            each = " ".join(f"{ratio:.2f}" for ratio in row.ratios)
            print(
                f"| {row.work} | {row.goal:g} | {row.ratio:.2f} | {row.ours:.3g} | {row.theirs:.3g} | {row.unit} "
                f"| {each} | {'' if row.cpu is None else f'{row.cpu:.2f}'} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2))
    return 0


def quantised_model(folder: Path) -> Path:
    """Return a model of half a billion parameters; make and quantise it if it does not exist."""
    target = folder / "half-q4_k_m.gguf"
    if not target.exists():
        (vocabulary,) = folder.glob("source-*/vendor/llama.cpp/models/ggml-vocab-qwen2.gguf")
        unquantised = folder / "half-f16.gguf"
        write(vocabulary, unquantised, SHAPES["half"])
        partial = target.with_suffix(".part")
        subprocess.run(
            [folder / "build/bin/llama-quantize", unquantised, partial, "Q4_K_M"], check=True, capture_output=True
        )
        partial.rename(target)
        unquantised.unlink()
    return target


def machine() -> str:
    """Return processor, cores and system."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    sys.exit(main())
