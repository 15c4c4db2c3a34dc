"""Starts a server in the background and waits until it answers; stops a server and waits until it has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mullama
from mullama.cli.api_client.discover import FoundServer, local_client
from mullama.cli.app.exit_codes import exit_code
from mullama.client.errors import CLASSES
from mullama.errors import Internal, MullamaError, TimedOut, Unavailable
from mullama.store.disk import is_full, translate_os_errors
from mullama.store.process import alive
from mullama.store.records import Records, ServerRecord

START_SECONDS = 60.0
KILL_SECONDS = 10.0
LOG_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 8192
_CONFLICT = 10  # exit code of a server that finds another one at its address


def start(records: Records, arguments: Sequence[str], *, within: float = START_SECONDS) -> FoundServer:
    """Run `mullama serve ARGUMENTS` in a session of its own, with its output in the log; return once it answers.

    An error or Ctrl-C before that kills the new server: it has no clients yet.
    """
    with translate_os_errors(records.folder):
        records.reserve()
    offset = _rotate_log(records)
    with open(os.open(records.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "mullama", "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            start_new_session=True,
        )
    try:
        return _wait_until_up(child, records, offset, within)
    except BaseException:
        child.kill()
        child.wait()
        raise


def _wait_until_up(child: subprocess.Popen[bytes], records: Records, offset: int, within: float) -> FoundServer:
    """Return the server once it answers: the child, or one that another process started at the same moment."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        lost_race = child.poll() == _CONFLICT and records.is_served()
        if child.returncode is not None and not lost_race:
            raise _start_failure(records, child.returncode, offset)
        record = records.server()
        if record is not None and (lost_race or record.pid == child.pid) and _responds(record):
            child.returncode = 0  # the server outlives this process: Popen must neither wait for it nor warn of it
            return FoundServer(client=local_client(record), records=records, record=record, log_start=offset)
        time.sleep(0.02)
    message = "\n".join([f"the server did not answer within {within:g} s", *_log_tail(records, offset)])
    raise TimedOut(message, hint=_log_hint(records))


def stop(server: FoundServer, *, within: float, force: bool) -> None:
    """Ask the server to stop and wait until its process has ended; `force` kills one that does not stop in time."""
    record = server.record
    if record is None:
        server.client.post("/api/v1/shutdown", {}, within=within)
        return
    deadline = time.monotonic() + within
    try:
        server.client.post("/api/v1/shutdown", {}, within=within)
    except (Unavailable, TimedOut):
        # The server may be stopping already; one that hangs is killed below.
        if alive(record.pid) and not force:
            raise
    if _wait_for_exit(record.pid, deadline):
        return
    if not force:
        raise TimedOut(
            f"the server (pid {record.pid}) is still running after {within:g} s",
            hint="requests may still be draining; --force kills it",
        )
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGKILL)
    if not _wait_for_exit(record.pid, time.monotonic() + KILL_SECONDS):
        raise TimedOut(f"the server (pid {record.pid}) cannot be killed", hint="it may be waiting for a disk")


def _responds(record: ServerRecord) -> bool:
    try:
        local_client(record).get("/livez")
    except MullamaError:
        return False
    return True


def _wait_for_exit(pid: int, deadline: float) -> bool:
    """Return True once the process has ended, False at the deadline."""
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _environment() -> dict[str, str]:
    """Return this process's environment, with the source tree on PYTHONPATH when mullama runs from one.

    The child runs with -P, which keeps files of the working directory from replacing modules. -P also removes the
    source tree from the path, so it must be named.
    """
    environment = dict(os.environ)
    tree = Path(mullama.__file__).resolve().parents[1]
    if not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == tree:
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{tree}{os.pathsep}{before}" if before else str(tree)
    return environment


def _rotate_log(records: Records) -> int:
    """Rename a long log to `.1`; return the offset at which the lines of the new server begin."""
    if _log_length(records) > LOG_BYTES:
        records.log_path.replace(records.log_path.with_suffix(".log.1"))
    return _log_length(records)


def _log_length(records: Records) -> int:
    return records.log_path.stat().st_size if records.log_path.exists() else 0


def _start_failure(records: Records, code: int, offset: int) -> MullamaError:
    """Return an error with the last lines of the log that leads to the exit code of the server."""
    message = "\n".join([f"the server did not start (exit {code})", *_log_tail(records, offset)])
    hint = _log_hint(records)
    for kind in CLASSES.values():
        error = kind(message, hint=hint)
        if exit_code(error) == code:
            return error
    return Internal(message, hint=hint)


def ended(server: FoundServer) -> MullamaError:
    """Return the error of a server that this command started and that ended, by its exit code and its log."""
    if server.records is None or server.record is None:
        return Unavailable("the new server ended")
    code, deadline = None, time.monotonic() + KILL_SECONDS
    while code is None and time.monotonic() < deadline:
        try:
            pid, status = os.waitpid(server.record.pid, os.WNOHANG)
        except ChildProcessError:  # another process started it
            break
        code = os.waitstatus_to_exitcode(status) if pid else None
        time.sleep(0 if pid else 0.02)
    if code is not None:
        return _start_failure(server.records, code, server.log_start)
    lines = _log_tail(server.records, server.log_start)
    return Unavailable("\n".join(["the new server ended", *lines]), hint=_log_hint(server.records))


def _log_hint(records: Records) -> str:
    """Return where the log is, and the reason for which it may lack the last lines."""
    hint = f"its log is {records.log_path}"
    return f"{hint}, which lacks lines because no space is left on its disk" if is_full(records.folder) else hint


def _log_tail(records: Records, offset: int) -> list[str]:
    """Return the last lines of the log behind `offset`."""
    with records.log_path.open("rb") as log:
        log.seek(max(offset, _log_length(records) - _TAIL_BYTES))
        return log.read().decode("utf-8", "replace").strip().splitlines()[-10:]
