"""What an apply tells, folded and put into lines."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.cli.console.progress import ApplyProgress, fold, news, verdict

EVENTS: tuple[dict[str, Any], ...] = (
    {"event": "phase", "phase": "fetch"},
    {"event": "fetch", "model": "a", "file": "a.gguf", "done": 0, "total": 100 * 2**20, "speed": 0},
    {"event": "fetch", "model": "a", "file": "a.gguf", "done": 2**20, "total": 100 * 2**20, "speed": 2**20},
    {"event": "fetch", "model": "a", "file": "a.gguf", "done": 50 * 2**20, "total": 100 * 2**20, "speed": 2**20},
    {"event": "fetch", "model": "a", "file": "a.gguf", "done": 100 * 2**20, "total": 100 * 2**20, "speed": 0},
    {"event": "phase", "phase": "commit"},
    {"event": "phase", "phase": "load"},
    {"event": "step", "model": "a", "state": "loading", "message": ""},
    {"event": "warning", "message": "slow disk"},
    {"event": "step", "model": "a", "state": "ready", "message": "in 2 s"},
    {"event": "unheard-of"},
    {"event": "result", "exit": 0, "generation": 3, "message": "", "models": {"a": {"ok": True}}},
)


def told(events: tuple[dict[str, Any], ...]) -> tuple[list[str], ApplyProgress]:
    progress, lines = ApplyProgress(), []
    for event in events:
        before, progress = progress, fold(progress, event)
        lines += news(before, progress)
    return lines, progress


def test_an_apply_is_told_once_each_and_downloads_in_tenths() -> None:
    lines, progress = told(EVENTS)
    assert lines == [
        "fetching files",
        "  a: a.gguf: 0 B of 100 MiB",
        "  a: a.gguf: 50 MiB of 100 MiB, 1 MiB/s, 50 s left",
        "  a: a.gguf: 100 MiB of 100 MiB",
        "committing the revision",
        "loading models",
        "  a: loading",
        "warning: slow disk",
        "  a: ready: in 2 s",
    ]
    assert verdict(progress.result or {}) == ("revision 3 is applied",)


@pytest.mark.parametrize(("count", "committed"), [(0, False), (6, False), (7, True), (12, True)])
def test_a_generation_counts_as_committed_once_loading_begins(count: int, committed: bool) -> None:
    assert told(EVENTS[:count])[1].committed is committed


@pytest.mark.parametrize(("code", "committed"), [(0, True), (8, True), (5, False), (9, False)])
def test_a_result_says_whether_anything_was_committed(code: int, committed: bool) -> None:
    assert told(({"event": "result", "exit": code},))[1].committed is committed


def test_the_verdict_names_each_model_that_failed() -> None:
    models = {"a": {"ok": False, "message": "probe failed"}, "b": {"ok": True, "message": ""}}
    assert verdict({"exit": 8, "generation": 4, "message": "1 of 2", "models": models}) == ("a: probe failed", "1 of 2")
    assert verdict({"exit": 8, "generation": 4}) == ("revision 4 is applied in part",)
    assert verdict({"exit": 9}) == ("not applied (exit 9)",)


def test_a_download_of_unknown_size_shows_what_came() -> None:
    lines, _ = told(({"event": "fetch", "model": "a", "file": "f", "done": 2**20, "total": None, "speed": 0},))
    assert lines == ["  a: f: 1 MiB"]
