"""Progress of files and of an apply as lines of text."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.cli.console.progress import (
    ApplyProgress,
    amounts,
    fold,
    is_complete,
    log_lines,
    outcome_lines,
    phase_line,
    read_progress,
)
from mullama.sources.base import DownloadProgress
from mullama.struct import replace

MIB = 2**20
EVENTS: tuple[dict[str, Any], ...] = (
    {"event": "phase", "phase": "fetch"},
    {"event": "fetch", "model": "a", "file": "a.gguf", "phase": "downloading", "done": 0, "total": 100 * MIB},
    {"event": "fetch", "model": "a", "file": "a.gguf", "phase": "downloading", "done": 50 * MIB, "total": 100 * MIB},
    {"event": "fetch", "model": "a", "file": "a.gguf", "phase": "downloading", "done": 100 * MIB, "total": 100 * MIB},
    {"event": "fetch", "model": "a", "file": "a.gguf", "phase": "done", "done": 100 * MIB, "total": 100 * MIB},
    {"event": "phase", "phase": "commit"},
    {"event": "phase", "phase": "load"},
    {"event": "step", "model": "a", "state": "loading", "message": ""},
    {"event": "warning", "message": "slow disk"},
    {"event": "step", "model": "a", "state": "ready", "message": "in 2 s"},
    {"event": "unheard-of"},
    {"event": "result", "outcome": "applied", "generation": 3, "message": "", "models": {"a": {"ok": True}}},
)


def shown(events: tuple[dict[str, Any], ...]) -> tuple[list[str], ApplyProgress]:
    progress, lines = ApplyProgress(), []
    for event in events:
        before, progress = progress, fold(progress, event)
        lines += log_lines(before, progress)
    return lines, progress


def test_a_log_of_an_apply_has_each_phase_file_state_and_warning_once() -> None:
    lines, progress = shown(EVENTS)
    assert lines == [
        "fetching files",
        "  a: downloading a.gguf: 100 MiB",
        "committing the revision",
        "loading models",
        "  a: loading",
        "warning: slow disk",
        "  a: ready: in 2 s",
    ]
    assert outcome_lines(progress.result or {}) == ("revision 3 is applied",)


@pytest.mark.parametrize(("count", "committed"), [(0, False), (6, False), (7, True), (12, True)])
def test_a_revision_counts_as_committed_once_loading_begins(count: int, committed: bool) -> None:
    assert shown(EVENTS[:count])[1].committed is committed


@pytest.mark.parametrize(
    ("outcome", "committed"), [("applied", True), ("partly_applied", True), ("transfer", False), ("refused", False)]
)
def test_a_result_shows_whether_anything_was_committed(outcome: str, committed: bool) -> None:
    assert shown(({"event": "result", "outcome": outcome},))[1].committed is committed


def test_the_outcome_names_each_model_that_failed() -> None:
    models = {"a": {"ok": False, "message": "probe failed"}, "b": {"ok": True, "message": ""}}
    result = {"outcome": "partly_applied", "generation": 4, "message": "1 of 2", "models": models}
    assert outcome_lines(result) == ("a: probe failed", "1 of 2")
    assert outcome_lines({"outcome": "partly_applied", "generation": 4}) == ("revision 4 is partly applied",)
    assert outcome_lines({"outcome": "refused"}) == ("not applied (refused)",)


HALF = DownloadProgress(file="a.gguf", phase="downloading", completed=MIB, total=4 * MIB)


@pytest.mark.parametrize(
    ("progress", "speed", "text"),
    [
        (HALF, MIB, "25 %, 1 MiB of 4 MiB, 1 MiB/s, 3 s left"),
        (replace(HALF, resumed=MIB), None, "25 %, 1 MiB of 4 MiB, 1 MiB resumed"),
        (replace(HALF, total=None), MIB, "1 MiB, 1 MiB/s"),
        (replace(HALF, completed=4 * MIB), MIB, "100 %, 4 MiB of 4 MiB"),
        (DownloadProgress(file="a", phase="retrying", message="cut"), 0.0, "0 B, cut"),
    ],
)
def test_amounts_are_percent_bytes_speed_and_time_left(
    progress: DownloadProgress, speed: float | None, text: str
) -> None:
    assert amounts(progress, speed) == text


@pytest.mark.parametrize(
    ("phases", "reported"),
    [
        ("downloading downloading verifying verifying done", ["downloading"]),
        ("found resuming downloading verifying done", ["downloading"]),
        ("verifying verifying done", ["verifying"]),
        ("sending sending done", ["sending"]),
        ("verifying verifying sending sending done", ["verifying", "sending"]),
        ("downloading retrying downloading retrying done", ["downloading", "retrying", "retrying"]),
        ("found", []),
    ],
)
def test_a_log_has_one_line_for_each_file_and_one_for_each_delay(phases: str, reported: list[str]) -> None:
    before, found = None, []
    for phase in phases.split():
        progress = DownloadProgress(file="a", phase=phase, completed=0, total=4)  # type: ignore[arg-type]
        if line := phase_line(before, progress):
            found.append(line.split()[0])
        before = progress
    assert found == reported


def test_a_line_of_a_file_has_its_size_and_its_delay() -> None:
    assert phase_line(None, HALF) == "downloading a.gguf: 4 MiB"
    assert phase_line(HALF, replace(HALF, completed=2 * MIB)) is None
    assert phase_line(HALF, replace(HALF, phase="retrying", message="cut")) == "retrying a.gguf: 4 MiB, cut"
    assert phase_line(None, replace(HALF, total=None, resumed=MIB)) == "downloading a.gguf: 1 MiB resumed"
    assert phase_line(None, replace(HALF, phase="found")) is None


def test_progress_is_read_from_a_task_line_and_from_an_apply_event() -> None:
    line = {"status": "pulling 123", "file": "b", "phase": "downloading", "completed": 3, "total": 5, "resumed": 2}
    expected = DownloadProgress(file="b", phase="downloading", completed=3, total=5, resumed=2)
    assert read_progress(line) == expected
    assert read_progress({"event": "fetch", "file": "b", "done": 3, "total": 5, "resumed": 2}) == expected
    assert read_progress({"status": "pulling manifest"}) is None
    assert read_progress({"file": "b", "phase": "of a newer server"}) is None


def test_a_file_of_unknown_size_is_complete_only_when_it_is_done() -> None:
    unknown = replace(HALF, total=None)
    assert [is_complete(unknown), is_complete(replace(unknown, phase="done"))] == [False, True]
    assert [is_complete(HALF), is_complete(replace(HALF, completed=4 * MIB))] == [False, True]
