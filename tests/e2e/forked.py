"""Runs commands, servers and workers in processes forked from one that has imported mullama.

Imports take most of the time of a short command and of the start of a server, and the end-to-end tests run hundreds of
them. A forked command has its own process, environment, folder and streams, as one that is started by a shell. So have
the servers and workers that it starts: where the command would execute a module of mullama in a new interpreter, its
process is forked, and the module runs in the fork. Each kind of process also starts for real in some test of another
folder, and `make coverage` starts all of them for real.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None
# Coverage is measured in processes that are started, and another interpreter cannot be forked.
AVAILABLE = _CONTEXT is not None and not {"COVERAGE_PROCESS_START", "MULLAMA_PYTHON"} & os.environ.keys()

_ENTRIES = {"mullama": "mullama.__main__", "mullama.runtime.worker.child": "mullama.runtime.worker.child"}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE)
_execute: Callable[..., int] = subprocess._fork_exec  # type: ignore[attr-defined]
_replaced: list[object] = []  # streams of the process that forked: their destructors would write and close ours


class ForkedProcess:
    """A process with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], cwd: Path, names: Sequence[str]) -> None:
        assert _CONTEXT is not None
        _CONTEXT.set_forkserver_preload(["tests.e2e.preloaded"])
        self._process = _CONTEXT.Process(target=_command, args=(arguments, env, str(cwd), names))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code; raise `subprocess.TimeoutExpired` after `timeout` seconds."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("mullama", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


def run_forked(
    arguments: tuple[str, ...], env: dict[str, str], cwd: Path, text: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run one command line with this text as its input; raise `subprocess.TimeoutExpired` after `timeout` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, name) for name in ("in", "out", "err")]
        Path(names[0]).write_text(text, encoding="utf-8")
        process = ForkedProcess(arguments, env, cwd, names)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        out, err = (Path(name).read_text(encoding="utf-8", errors="replace") for name in names[1:])
        return subprocess.CompletedProcess(arguments, code, out, err)


def _command(arguments: Sequence[str], env: dict[str, str], cwd: str, names: Sequence[str]) -> None:
    """Become the command, in a session of its own: runs in the forked process and ends it."""
    os.setsid()
    opened = [os.open(name, flags, 0o600) for name, flags in zip(names, _FLAGS, strict=True)]
    subprocess._fork_exec = _fork_or_execute  # type: ignore[attr-defined]
    _become(_ENTRIES["mullama"], ["mullama", *arguments], env, cwd, opened)


_FLAGS = (os.O_RDONLY, *2 * (os.O_WRONLY | os.O_CREAT | os.O_APPEND,))


def _fork_or_execute(
    command: Sequence[bytes], executables: object, close: object, keep: tuple[int, ...], cwd: str | None,
    env: Sequence[bytes] | None, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
    *rest: Any,
) -> int:  # fmt: skip
    """The function of the standard library that starts a process, with a fork for the modules of `_ENTRIES`."""
    arguments = [os.fsdecode(part) for part in command]
    module = arguments[arguments.index("-m") + 1] if arguments[0] == sys.executable and "-m" in arguments else ""
    if module not in _ENTRIES:
        return _execute(
            command, executables, close, keep, cwd, env, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest
        )
    pid = os.fork()
    if pid == 0:
        failed, new_session = rest[1], rest[3]
        if new_session:
            os.setsid()
        pairs = (os.fsdecode(pair).partition("=") for pair in env) if env is not None else os.environ.items()
        variables = {pair[0]: pair[-1] for pair in pairs}
        opened = [given if given >= 0 else own for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        kept = {*keep} - {failed}  # the parent reads its end of `failed` until this process has closed it
        _become(
            _ENTRIES[module], [module, *arguments[arguments.index("-m") + 2 :]], variables, cwd or ".", opened, kept
        )
    return pid


def _become(
    module: str, arguments: list[str], env: dict[str, str], cwd: str, opened: list[int], kept: set[int] | None = None
) -> None:
    """Run the `main` of a module as if in a new process, and end the process with its exit code."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    copies = [os.dup(descriptor) for descriptor in opened]
    for number, copy in enumerate(copies):
        os.dup2(copy, number)
    if kept is None:
        for descriptor in (*copies, *opened):
            os.close(descriptor)
    else:
        _close_all_but(kept)
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
    _replaced.extend((sys.stdin, sys.stdout, sys.stderr))
    sys.argv = arguments
    sys.stdin, sys.stdout = (open(n, m, encoding="utf-8", closefd=False) for n, m in ((0, "r"), (1, "w")))  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    gc.set_threshold(700, 10, 10)
    code = _run(importlib.import_module(module).main)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _close_all_but(kept: set[int]) -> None:
    start = 3
    for descriptor in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(start, descriptor)
        start = descriptor + 1


def _run(main: Callable[[], int | None]) -> int:
    """Return the exit code that the interpreter would have for this end of `main`."""
    try:
        return main() or 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - the interpreter prints every error
        traceback.print_exc()
    return 1
