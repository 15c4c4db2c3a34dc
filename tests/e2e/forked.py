"""Runs commands in processes forked from one that has imported mullama.

Imports take most of the time of a short command, and the end-to-end tests run hundreds of them. A forked command has
its own process, environment, folder and streams, as one that is started by a shell.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.context import ForkServerContext
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None
# Coverage is measured in processes that are started, and another interpreter cannot be forked.
AVAILABLE = _CONTEXT is not None and not {"COVERAGE_PROCESS_START", "MULLAMA_PYTHON"} & os.environ.keys()


def run_forked(
    arguments: tuple[str, ...], env: dict[str, str], cwd: Path, text: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run one command line with this text as its input; raise `subprocess.TimeoutExpired` after `timeout` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, name) for name in ("in", "out", "err")]
        Path(names[0]).write_text(text, encoding="utf-8")
        process = _server().Process(target=_command, args=(arguments, env, str(cwd), names))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        code = process.exitcode
        process.close()
        out, err = (Path(name).read_text(encoding="utf-8", errors="replace") for name in names[1:])
        return subprocess.CompletedProcess(arguments, code, out, err)


def _server() -> ForkServerContext:
    assert _CONTEXT is not None
    _CONTEXT.set_forkserver_preload(["tests.e2e.preloaded"])
    return _CONTEXT


def _command(arguments: tuple[str, ...], env: dict[str, str], cwd: str, names: list[str]) -> None:
    """Become the command: runs in the forked process and ends it."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, (name, flags) in enumerate(zip(names, (os.O_RDONLY, *2 * (os.O_WRONLY | os.O_CREAT,)), strict=True)):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["mullama", *arguments]
    sys.stdin, sys.stdout = (open(n, mode, encoding="utf-8") for n, mode in ((0, "r"), (1, "w")))  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.exit(importlib.import_module("mullama.__main__").main())
