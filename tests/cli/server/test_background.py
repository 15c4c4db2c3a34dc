"""A server in the background: start, stop, and the errors of both."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.exit_codes import CONFLICT, exit_code
from mullama.cli.server.background import ended, start, stop
from mullama.errors import Conflict, MullamaError, NotFound, TimedOut, TransferFailed
from mullama.store.process import alive
from mullama.store.records import Records, instance_name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "MULLAMA_STATE_DIR": tmp_path / "state",
        "XDG_RUNTIME_DIR": tmp_path,
        "PYTHONPATH": Path(__file__).parents[3],
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


@pytest.fixture
def server(home: Path) -> Iterator[FoundServer]:
    """A real server that waits for its first manifest; its instance is that of the manifest's path."""
    manifest = home / "mullama.yaml"
    manifest.write_text("mullama: v1\nserver: {listen: ['127.0.0.1:0']}\nmodels: {chat: builtin:tiny}\n")
    records = Records(home / "state", instance_name(("127.0.0.1:0",), str(manifest)))
    started = start(records, ["--held", "-f", str(manifest)])
    assert started.record is not None
    yield started
    # A child of this process keeps its pid until waitpid.
    with contextlib.suppress(ProcessLookupError):
        os.kill(started.record.pid, signal.SIGKILL)
    os.waitpid(started.record.pid, 0)


def pid_of(server: FoundServer) -> int:
    assert server.record is not None
    return server.record.pid


def test_a_started_server_answers_in_a_session_of_its_own_and_logs_to_a_file(server: FoundServer) -> None:
    assert server.client.get("/livez") == {"status": "ok"}
    assert os.getsid(pid_of(server)) == pid_of(server) != os.getsid(0)
    assert server.records is not None
    assert server.records.log_path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_an_error_before_a_server_starts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the server would run without a record, and no command would find it."""

    def full(path: Path, data: bytes, *, durable: bool = True) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("mullama.store.records.write_atomic", full)
    records = Records(home / "state", "full")

    with pytest.raises(TransferFailed, match=rf"no space is left: {home}/state/full: No space"):
        start(records, ["--held"])
    assert not records.log_path.exists()


def test_a_server_that_ends_before_its_first_revision_leads_to_its_error(home: Path) -> None:
    """The error has the exit code of the server, and the lines of its log alone."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        manifest = home / "mullama.yaml"
        manifest.write_text(f"mullama: v1\nserver: {{listen: ['127.0.0.1:{port}']}}\nmodels: {{chat: builtin:tiny}}\n")
        records = Records(home / "state", instance_name((f"127.0.0.1:{port}",), str(manifest)))
        records.log_path.parent.mkdir(parents=True)
        records.log_path.write_text("a line of an earlier start\n")
        try:
            error: MullamaError = ended(start(records, ["-f", str(manifest)]))
        except MullamaError as at_once:
            error = at_once
    assert exit_code(error) == CONFLICT
    assert str(port) in error.message
    assert "an earlier start" not in error.message


def test_a_stopped_server_has_no_process_and_no_record(server: FoundServer) -> None:
    stop(server, within=30.0, force=False)
    assert not alive(pid_of(server))
    assert server.records is not None
    assert server.records.server() is None


def test_a_server_that_hangs_is_killed_only_by_force(server: FoundServer) -> None:
    os.kill(pid_of(server), signal.SIGSTOP)
    with pytest.raises(TimedOut):
        stop(server, within=0.2, force=False)
    assert alive(pid_of(server))
    stop(server, within=0.2, force=True)
    assert not alive(pid_of(server))


def test_stopping_a_server_that_has_ended_does_nothing(server: FoundServer) -> None:
    os.kill(pid_of(server), signal.SIGKILL)
    stop(server, within=10.0, force=True)
    assert not alive(pid_of(server))


def test_a_failed_start_has_the_log_and_the_exit_code_of_the_server(home: Path) -> None:
    records = Records(home / "state", "file-test")
    with pytest.raises(NotFound, match="there is no manifest") as caught:
        start(records, ["-f", str(home / "none.yaml")])
    assert str(records.log_path) in caught.value.hint

    (home / "bad.yaml").write_text("mullama: v1\nmodels: {chat: {form: x}}\n")
    with pytest.raises(MullamaError, match=r"bad.yaml:2:\d+") as caught_too:
        start(records, ["-f", str(home / "bad.yaml")])
    assert exit_code(caught_too.value) == 4


def test_a_server_that_finds_its_address_in_use_ends_a_start_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the exit code of one that finds another server of its instance, for which a start waits."""
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(10)"])
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_options: ended)
    records = Records(home / "state", "file-test")
    with pytest.raises(Conflict, match=r"did not start \(exit 10\)"):
        start(records, [], within=float("inf"))


def test_a_start_that_takes_too_long_leaves_no_server(home: Path) -> None:
    manifest = home / "mullama.yaml"
    manifest.write_text("mullama: v1\nserver: {listen: ['127.0.0.1:0']}\nmodels: {chat: builtin:tiny}\n")
    records = Records(home / "state", instance_name(("127.0.0.1:0",), str(manifest)))
    with pytest.raises(TimedOut, match="did not answer within 0 s"):
        start(records, ["--held", "-f", str(manifest)], within=0.0)
    assert records.server() is None


def test_a_long_log_is_rotated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(home / "state", "file-test")
    records.create()
    records.log_path.write_text("an old line\n" * 100)
    monkeypatch.setattr("mullama.cli.server.background.LOG_BYTES", 1000)
    with pytest.raises(NotFound):
        start(records, ["-f", str(home / "none.yaml")])
    assert "an old line" not in records.log_path.read_text()
    assert "an old line" in (records.folder / "server.log.1").read_text()
