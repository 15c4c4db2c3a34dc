"""Tests in a child process that the native library can decode on this machine, and caches the result.

A library built for this CPU may use instructions that a virtual machine advertises but does not support. The process
then dies at its first decode. Without repacked weight buffers such a build often works. The result depends on the
library's files and the CPU; it is kept in a folder until either changes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mullama.struct import Struct, asdict

_PROMPT = "One two three four five six seven eight nine ten. " * 8
_LONGEST = 120.0  # seconds for one decode in a child


class SelfTest(Struct, frozen=True, kw_only=True):
    """The result of a self-test."""

    works: bool
    """A decode succeeds."""
    extra_buffers: bool
    """It succeeds with repacked weight buffers."""
    report: str = ""
    """The failure as a sentence, "" without one."""


def selftest(model: str, folder: Path, env: Mapping[str, str], *, cpu: str | None = None) -> SelfTest:
    """Return the cached result, else decode with `model`, a small GGUF file, in child processes with `env`.

    `cpu` identifies the processor and its features; the default is this machine's.

    It blocks for seconds.
    """
    path = folder / f"selftest-{_identity(cpu_features() if cpu is None else cpu)}.json"
    result = _read(path)
    if result is None:
        result = _test(model, env)
        _write(path, result)
    return result


def _test(model: str, env: Mapping[str, str]) -> SelfTest:
    first = _decode_in_child(model, env, extra_buffers=True)
    if not first:
        return SelfTest(works=True, extra_buffers=True)
    second = _decode_in_child(model, env, extra_buffers=False)
    if not second:
        return SelfTest(
            works=True,
            extra_buffers=False,
            report=f"decoding with repacked weight buffers {first}; it works without them",
        )
    return SelfTest(works=False, extra_buffers=False, report=f"decoding {second}")


def _decode_in_child(model: str, env: Mapping[str, str], *, extra_buffers: bool) -> str:
    """Return the failure of one decode in a child, "" if it succeeds."""
    mode = "extra" if extra_buffers else "plain"
    command = [sys.executable, "-I", "-m", "mullama.engines.selftest", model, mode]
    try:
        done = subprocess.run(command, env=dict(env), capture_output=True, timeout=_LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end within {_LONGEST:g} s"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"was killed by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"failed: {lines[-1] if lines else f'exit code {done.returncode}'}"


def _identity(cpu: str) -> str:
    """Return a digest of the native library's files and the CPU, without loading the library."""
    digest = hashlib.sha256()
    spec = find_spec("llama_cpp")
    folder = Path(spec.origin).parent / "lib" if spec and spec.origin else Path()
    for file in sorted({path.resolve() for path in folder.glob("*") if path.is_file()}):
        digest.update(file.name.encode() + file.read_bytes())
    digest.update(cpu.encode())
    return digest.hexdigest()[:32]


def cpu_features() -> str:
    """Return the name and the features of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(next((x for x in lines if x.startswith(name)), "") for name in ("model name", "flags", "Features"))


def _read(path: Path) -> SelfTest | None:
    try:
        return SelfTest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, result: SelfTest) -> None:
    partial = path.with_suffix(".partial")
    with suppress(OSError):  # the next start tests again
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(result)), encoding="utf-8")
        partial.replace(path)


def decode_once(model: str, *, extra_buffers: bool) -> None:
    """Load the model, decode a prompt and a few tokens. This runs every kind of matrix product that serving needs."""
    from mullama.chat.types import DEFAULT_SAMPLING
    from mullama.engines import find_engine
    from mullama.engines.base import ContextOptions, Generate, WeightsOptions

    options = WeightsOptions(extra_buffers=extra_buffers)
    engine = find_engine("llamacpp")((model,), options, lambda _share: True)
    engine.open_context("selftest", ContextOptions(size=512))
    engine.submit(Generate(id=1, context="selftest", prompt=_PROMPT, sampling=DEFAULT_SAMPLING, max_tokens=4))
    while engine.busy:
        engine.step()
    engine.close()


if __name__ == "__main__":
    decode_once(sys.argv[1], extra_buffers=sys.argv[2] == "extra")
