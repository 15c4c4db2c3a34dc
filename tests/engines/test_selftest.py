"""The self-test: it succeeds on this machine, its result is cached, and it reports a library that crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mullama.engines import selftest as module
from mullama.engines.selftest import SelfTest, selftest

ENV = {name: os.environ[name] for name in ("PATH",) if name in os.environ} | {"OMP_WAIT_POLICY": "passive"}


def test_a_decode_in_a_child_process_works_here(tiny_path: str, tmp_path: Path) -> None:
    result = selftest(tiny_path, tmp_path, ENV)
    assert result.works
    assert selftest("/nowhere.gguf", tmp_path, ENV) == result, "the second call reads what the first found"


def test_the_parent_does_not_load_the_native_library() -> None:
    code = "import mullama.engines.selftest as s, sys; s._identity('cpu'); assert 'llama_cpp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def fake_runs(monkeypatch: pytest.MonkeyPatch, codes: dict[str, int | None]) -> list[str]:
    """Replace child processes by these exit codes (None for a timeout); return the modes they are started with."""
    modes: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        modes.append(command[-1])
        code = codes[command[-1]]
        if code is None:
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, code, b"", b"Traceback\nBadWeights: no such file")

    monkeypatch.setattr(module.subprocess, "run", run)
    return modes


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"extra": 0}, SelfTest(works=True, extra_buffers=True)),
        (
            {"extra": -4, "plain": 0},
            SelfTest(
                works=True,
                extra_buffers=False,
                report="decoding with repacked weight buffers was killed by SIGILL; it works without them",
            ),
        ),
        (
            {"extra": -11, "plain": -11},
            SelfTest(works=False, extra_buffers=False, report="decoding was killed by SIGSEGV"),
        ),
        (
            {"extra": 1, "plain": 1},
            SelfTest(works=False, extra_buffers=False, report="decoding failed: BadWeights: no such file"),
        ),
        (
            {"extra": None, "plain": 0},
            SelfTest(
                works=True,
                extra_buffers=False,
                report="decoding with repacked weight buffers did not end within 120 s; it works without them",
            ),
        ),
    ],
)
def test_the_result_follows_from_the_exit_codes(
    codes: dict[str, int | None], expected: SelfTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = fake_runs(monkeypatch, codes)
    assert selftest("m.gguf", tmp_path, {}) == expected
    assert modes == list(codes)
    assert selftest("m.gguf", tmp_path, {}) == expected
    assert modes == list(codes), "remembered"


def test_another_cpu_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = fake_runs(monkeypatch, {"extra": 0})
    selftest("m.gguf", tmp_path, {})
    selftest("m.gguf", tmp_path, {}, cpu="another")
    assert modes == ["extra", "extra"]


def test_a_damaged_memory_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = fake_runs(monkeypatch, {"extra": 0})
    selftest("m.gguf", tmp_path, {})
    (file,) = tmp_path.glob("selftest-*.json")
    file.write_text("{")
    assert selftest("m.gguf", tmp_path, {}).works
    assert modes == ["extra", "extra"]


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch, {"extra": 0})
    (tmp_path / "file").write_text("")
    assert selftest("m.gguf", tmp_path / "file" / "below", {}).works
