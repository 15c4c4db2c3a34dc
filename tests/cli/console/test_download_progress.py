"""Progress in words: bytes, speed and time left, told once for each tenth where nothing can be drawn."""

from __future__ import annotations

import io

import pytest

from mullama.cli.api_client.tasks import follow_task, progress_of
from mullama.cli.app.context import CommandContext
from mullama.cli.console.download_progress import Speed, Ticker, describe, together
from mullama.cli.console.terminal import Terminal
from mullama.errors import NotFound, Unavailable
from mullama.sources.base import DownloadProgress

MIB = 2**20


def terminal() -> Terminal:
    return Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})


def test_a_line_has_bytes_speed_rest_and_what_was_resumed() -> None:
    progress = DownloadProgress(file="a.gguf", phase="downloading", completed=MIB, total=4 * MIB, resumed=MIB)
    told = describe(progress, MIB)
    assert told == "downloading a.gguf: 1 MiB of 4 MiB, 1 MiB resumed, 1 MiB/s, 3 s left"
    assert describe(DownloadProgress(file="a", phase="retrying", message="cut"), 0.0) == "retrying a: 0 B, cut"


def test_speed_is_taken_over_the_last_looks() -> None:
    moments = iter((0.0, 1.0, 2.0))
    speed = Speed(now=lambda: next(moments))
    assert [speed.of(n) for n in (0, 10, 30)] == [0.0, 10.0, 15.0]


def test_several_files_are_told_as_one() -> None:
    one = DownloadProgress(file="a", phase="downloading", completed=1, total=2)
    two = DownloadProgress(file="b", phase="verifying", completed=2, total=None)
    assert together([one]) == one
    assert (together([one, two]).completed, together([one, two]).total) == (3, None)


def test_where_nothing_can_be_drawn_each_tenth_is_told_once() -> None:
    screen = terminal()
    with Ticker(screen) as ticker:
        for done in range(101):
            ticker(DownloadProgress(file="a", phase="downloading", completed=done, total=100))
    assert len(screen.err.getvalue().splitlines()) == 11  # type: ignore[attr-defined]


def test_a_task_ends_with_success_or_its_error() -> None:
    import argparse
    from pathlib import Path

    call = CommandContext(options=argparse.Namespace(), terminal=terminal(), env={}, folder=Path())
    follow_task(call, [{"status": "pulling manifest"}, {"status": "success"}])
    with pytest.raises(NotFound, match="nothing there"):
        follow_task(call, [{"error": {"kind": "not_found", "message": "nothing there", "hint": ""}}])
    with pytest.raises(Unavailable):
        follow_task(call, [{"status": "pulling manifest"}])


def test_a_line_of_a_task_is_progress_of_its_file() -> None:
    line = {"status": "pulling 123", "file": "b", "phase": "downloading", "completed": 3, "total": 5, "resumed": 2}
    assert progress_of(line) == DownloadProgress(file="b", phase="downloading", completed=3, total=5, resumed=2)
    assert progress_of({"status": "pulling manifest"}) is None


def test_a_file_that_was_here_is_not_told_of() -> None:
    screen = terminal()
    with Ticker(screen) as ticker:
        ticker(DownloadProgress(file="a", phase="found", completed=5, total=5))
    assert screen.err.getvalue() == ""  # type: ignore[attr-defined]
