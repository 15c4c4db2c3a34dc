"""Runs commands, servers and workers in processes forked from one that has imported mullama.

Imports take most of the time of a short command and of the start of a server or worker, and the tests run many hundreds
of them. A forked process has its own environment, folder, session and streams, as one that is executed. So have the
servers and workers that a forked command starts: where it would execute a module of mullama in a new interpreter, its
process is forked, and the module runs in the fork. Each kind of process is also executed in some test, and
`make coverage` executes all of them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import IO, Any

from mullama.runtime.worker.spawn import SpawnedWorker, environment, spawn_worker

# Coverage is measured in processes that are executed, and another interpreter cannot be forked.
AVAILABLE = sys.platform == "linux" and not {"COVERAGE_PROCESS_START", "MULLAMA_PYTHON"} & os.environ.keys()

_PRELOADED = "tests.processes.preloaded"
_WORKER = "mullama.runtime.worker.child"
_ENTRIES = {"mullama": "mullama.__main__", _WORKER: _WORKER}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE)
_execute: Callable[..., int] = subprocess._fork_exec  # type: ignore[attr-defined]
_replaced: list[object] = []  # streams of the process that forked: their destructors would write and close ours


class ForkedProcess:
    """A process with the methods of `subprocess.Popen` that the tests and the parents of workers use.

    It calls `run(*arguments, descriptors=...)` with its copies of the given descriptors, and the function ends it.
    """

    stdout: IO[bytes] | None = None

    def __init__(self, run: Callable[..., None], *arguments: object, descriptors: Sequence[int] = ()) -> None:
        forkserver.set_forkserver_preload([_PRELOADED, __name__])
        self._end, order = forkserver.connect_to_new_process(list(descriptors))
        with open(order, "wb") as pipe:
            pickle.dump({"sys_path": sys.path}, pipe)
            pickle.dump(_Order(run, arguments), pipe)
        self.pid: int = forkserver.read_signed(self._end)
        self._code: int | None = None
        self._lock = threading.Lock()

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        with self._lock:
            if self._code is None and connection.wait([self._end], 0):
                self._code = forkserver.read_signed(self._end)
                os.close(self._end)
            return self._code

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raise `subprocess.TimeoutExpired` after `timeout` seconds."""
        with self._lock:
            end = os.dup(self._end) if self._code is None else None
        if end is not None:
            connection.wait([end], timeout)
            os.close(end)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired("mullama", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended since, as `subprocess.Popen` allows it
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Order:
    """The work of a forked process, in the form that the forking process expects."""

    def __init__(self, run: Callable[..., None], arguments: Sequence[object]) -> None:
        self._run = run
        self._arguments = arguments

    def _bootstrap(self, parent: int) -> int:
        assert _PRELOADED in sys.modules, f"`import {_PRELOADED}` fails, and each process would import all of mullama"
        self._run(*self._arguments, descriptors=forkserver.get_inherited_fds())
        return 1


def run_forked(
    arguments: tuple[str, ...], env: dict[str, str], cwd: Path, text: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run one command line with this text as its input; raise `subprocess.TimeoutExpired` after `timeout` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, name) for name in ("in", "out", "err")]
        Path(names[0]).write_text(text, encoding="utf-8")
        process = fork_command(arguments, env, cwd, names)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out, err = (Path(name).read_text(encoding="utf-8", errors="replace") for name in names[1:])
        return subprocess.CompletedProcess(arguments, code, out, err)


def fork_command(arguments: Sequence[str], env: dict[str, str], cwd: Path, names: Sequence[str]) -> ForkedProcess:
    """Start a command line whose input, output and errors are the files with these names."""
    return ForkedProcess(_command, arguments, env, str(cwd), names)


def _command(
    arguments: Sequence[str], env: dict[str, str], cwd: str, names: Sequence[str], descriptors: list[int]
) -> None:
    """Become the command, in a session of its own."""
    os.setsid()
    opened = [os.open(name, flags, 0o600) for name, flags in zip(names, _FLAGS, strict=True)]
    subprocess._fork_exec = _fork_or_execute  # type: ignore[attr-defined]
    _become(_ENTRIES["mullama"], ["mullama", *arguments], env, cwd, opened)


def fork_worker(engine: str = "", /) -> SpawnedWorker:
    """Start a child without weights, like `spawn_worker`."""
    if not AVAILABLE:
        return spawn_worker(engine)
    ours, theirs = socket.socketpair()
    output, end = os.pipe()
    with theirs:
        process = ForkedProcess(_worker, engine, environment(os.environ), descriptors=(theirs.fileno(), end))
    os.close(end)
    process.stdout = open(output, "rb")  # noqa: SIM115 - the parent of the worker closes it
    return SpawnedWorker(process, ours)


def _worker(engine: str, env: dict[str, str], descriptors: list[int]) -> None:
    """Become a worker, in a session of its own."""
    os.setsid()
    theirs, output = descriptors
    opened = [os.open(os.devnull, os.O_RDONLY), output, output]
    _become(_WORKER, [_WORKER, engine, str(theirs)], env, ".", opened, {theirs})


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
    threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter ends: idle threads of pools, then the others
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
