"""Quantises in a child process, because a bad file can crash llama.cpp."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping

from mullama.errors import EngineFailed, Invalid, MullamaError


def quantize(
    source: str, target: str, kind: str, *, again: bool, threads: int, imatrix: str | None, env: Mapping[str, str]
) -> None:
    """Write `target`; raise `Invalid` for an unknown kind, `EngineFailed` with the library's messages.

    imatrix: the path of an importance matrix of the source.
    """
    job = json.dumps(
        {"source": source, "target": target, "kind": kind, "again": again, "threads": threads, "imatrix": imatrix}
    )
    command = [sys.executable, "-I", "-m", "mullama.engines.llamacpp.quantize"]
    done = subprocess.run(command, input=job.encode(), env=dict(env), capture_output=True, check=False)
    if done.returncode == 0:
        return
    errors = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == 2:
        message, _, hint = errors.splitlines()[-1].partition("\t")
        raise Invalid(message, hint=hint)
    why = f"was killed by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else "failed"
    raise EngineFailed(f"quantizing {source} to {kind} {why}", report=errors)


def main() -> int:
    """Run in the child: read the job as JSON from standard input."""
    from mullama.engines.llamacpp.binding.quantize import quantize as write

    job = json.load(sys.stdin)
    try:
        write(
            job["source"], job["target"], job["kind"],
            again=job["again"], threads=job["threads"], imatrix=job["imatrix"],
        )  # fmt: skip
    except Invalid as error:
        sys.stderr.write(f"{error.message}\t{error.hint}\n")
        return 2
    except MullamaError as error:
        sys.stderr.write(f"{error}\n{getattr(error, 'report', '')}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
