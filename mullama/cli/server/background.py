"""Starts the server in the background and waits until it answers; stops one and waits until it is gone."""

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
from mullama.cli.api_client.errors import CLASSES
from mullama.cli.app.exit_codes import exit_code
from mullama.errors import Internal, MullamaError, TimedOut, Unavailable
from mullama.store.process import alive
from mullama.store.records import Records, ServerRecord

START_SECONDS = 60.0
KILL_SECONDS = 10.0
LOG_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 8192
_CONFLICT = 10


def start(records: Records, arguments: Sequence[str], *, within: float = START_SECONDS) -> FoundServer:
    """Run `mullama serve ARGUMENTS` in a session of its own, its output in the log; return once it answers.

    Whatever ends the waiting early, Ctrl-C too, ends the server: it has served nobody yet.
    """
    records.create()
    begun = _begin_log(records)
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
        return _once_it_answers(child, records, begun, within)
    except BaseException:
        child.kill()
        child.wait()
        raise


def _once_it_answers(child: subprocess.Popen[bytes], records: Records, begun: int, within: float) -> FoundServer:
    """The server, once it answers: ours, or the one that somebody else started in the same moment."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        late = child.poll() == _CONFLICT
        if child.returncode is not None and not late:
            raise _failed_start(records, child.returncode, begun)
        record = records.server()
        if record is not None and (late or record.pid == child.pid) and _answers(record):
            child.returncode = 0  # it is left running: nobody is to wait for it or to warn of it
            return FoundServer(client=local_client(record), records=records, record=record)
        time.sleep(0.02)
    message = "\n".join([f"the server did not answer within {within:g} s", *_said(records, begun)])
    raise TimedOut(message, hint=f"its log is {records.log_path}")


def stop(server: FoundServer, *, within: float, force: bool) -> None:
    """Ask the server to end and wait until its process is gone; `force` kills one that does not."""
    record = server.record
    if record is None:
        server.client.post("/api/v1/shutdown", {}, within=within)
        return
    deadline = time.monotonic() + within
    try:
        server.client.post("/api/v1/shutdown", {}, within=within)
    except (Unavailable, TimedOut):
        # It may be on its way out already; one that hangs is what `force` is for.
        if alive(record.pid) and not force:
            raise
    if _gone(record.pid, deadline):
        return
    if not force:
        raise TimedOut(
            f"the server (pid {record.pid}) still runs after {within:g} s",
            hint="requests may still be draining; --force ends it now",
        )
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGKILL)
    if not _gone(record.pid, time.monotonic() + KILL_SECONDS):
        raise TimedOut(f"the server (pid {record.pid}) cannot be ended", hint="it may be waiting for a disk")


def _answers(record: ServerRecord) -> bool:
    try:
        local_client(record).get("/livez")
    except MullamaError:
        return False
    return True


def _gone(pid: int, deadline: float) -> bool:
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _environment() -> dict[str, str]:
    """This process's environment; when mullama runs from a source tree, the child must find that tree too.

    The child is started with -P, so that a file in the working directory can never stand in for a module.
    """
    environment = dict(os.environ)
    tree = Path(mullama.__file__).resolve().parents[1]
    if not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == tree:
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{tree}{os.pathsep}{before}" if before else str(tree)
    return environment


def _begin_log(records: Records) -> int:
    """Where in the log this server's lines begin; a log that has grown long is set aside as `.1` first."""
    if _log_length(records) > LOG_BYTES:
        records.log_path.replace(records.log_path.with_suffix(".log.1"))
    return _log_length(records)


def _log_length(records: Records) -> int:
    return records.log_path.stat().st_size if records.log_path.exists() else 0


def _failed_start(records: Records, code: int, begun: int) -> MullamaError:
    """What the server said before it ended, as an error that leads to the same exit code."""
    message = "\n".join([f"the server did not start (exit {code})", *_said(records, begun)])
    hint = f"its log is {records.log_path}"
    for kind in CLASSES.values():
        error = kind(message, hint=hint)
        if exit_code(error) == code:
            return error
    return Internal(message, hint=hint)


def _said(records: Records, begun: int) -> list[str]:
    """The last lines that the server wrote to its log since it was started."""
    with records.log_path.open("rb") as log:
        log.seek(max(begun, _log_length(records) - _TAIL_BYTES))
        return log.read().decode("utf-8", "replace").strip().splitlines()[-10:]
