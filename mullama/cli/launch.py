"""Starts the server in the background and waits until it answers; stops one and waits until it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mullama
from mullama.cli.exits import exit_code
from mullama.cli.failures import CLASSES
from mullama.cli.locate import Server, local_client
from mullama.errors import Internal, MullamaError, TimedOut, Unavailable
from mullama.store.records import Records, ServerRecord, alive

START_SECONDS = 60.0
_TAIL_BYTES = 8192

# Servers that this process started and leaves running: kept so that nobody tries to reap them.
_left_running: list[subprocess.Popen[bytes]] = []


def start(records: Records, arguments: Sequence[str], *, within: float = START_SECONDS) -> Server:
    """Run `mullama serve ARGUMENTS` in a session of its own, its output in the log; return once it answers."""
    records.create()
    begun = _log_length(records)
    with open(os.open(records.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "mullama", "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            start_new_session=True,
        )
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise _failed_start(records, child.returncode, begun)
        if (record := records.server()) and record.pid == child.pid and _answers(record):
            _left_running.append(child)
            return Server(client=local_client(record), records=records, record=record)
        time.sleep(0.02)
    child.kill()
    child.wait()
    raise TimedOut(f"the server did not answer within {within:g} s", hint=f"its log is {records.log_path}")


def stop(server: Server, *, within: float, force: bool) -> None:
    """Ask the server to end and wait until its process is gone; `force` kills one that does not."""
    record = server.record
    if record is None:
        server.client.post("/api/v1/shutdown", {})
        return
    try:
        server.client.post("/api/v1/shutdown", {})
    except Unavailable:
        if alive(record.pid) and not force:
            raise
    if _gone(record.pid, within):
        return
    if not force:
        raise TimedOut(
            f"the server (pid {record.pid}) still runs after {within:g} s",
            hint="requests may still be draining; --force ends it now",
        )
    os.kill(record.pid, 9)
    _gone(record.pid, 10.0)


def _answers(record: ServerRecord) -> bool:
    try:
        local_client(record).get("/livez")
    except MullamaError:
        return False
    return True


def _gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
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


def _log_length(records: Records) -> int:
    return records.log_path.stat().st_size if records.log_path.exists() else 0


def _failed_start(records: Records, code: int, begun: int) -> MullamaError:
    """What the server said before it ended, as an error that leads to the same exit code."""
    with records.log_path.open("rb") as log:
        log.seek(max(begun, _log_length(records) - _TAIL_BYTES))
        said = log.read().decode("utf-8", "replace").strip().splitlines()[-10:]
    message = "\n".join([f"the server did not start (exit {code})", *said])
    hint = f"its log is {records.log_path}"
    for kind in CLASSES.values():
        error = kind(message, hint=hint)
        if exit_code(error) == code:
            return error
    return Internal(message, hint=hint)
