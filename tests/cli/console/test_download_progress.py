"""Files in transfer: bars on a terminal, one line for each phase elsewhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mullama.cli.console.download_progress import DownloadDisplay
from mullama.cli.console.terminal import Terminal
from mullama.sources.base import DownloadProgress
from tests.cli.conftest import Screen


def screen(*, tty: bool, **env: str) -> tuple[Terminal, Screen]:
    err = Screen(tty=tty)
    return Terminal(Screen(), Screen(), err, {"TERM": "xterm-256color", **env}), err


def at(completed: int, file: str = "a") -> DownloadProgress:
    return DownloadProgress(file=file, phase="downloading", completed=completed, total=100)


def test_a_pipe_gets_one_line_for_each_file() -> None:
    terminal, err = screen(tty=False)
    with DownloadDisplay(terminal) as report, ThreadPoolExecutor(4) as threads:
        for file in "ab":
            list(threads.map(report, (at(done, file) for done in range(101))))
    assert err.getvalue() == "downloading a: 100 B\ndownloading b: 100 B\n"


def test_a_terminal_gets_bars_and_is_left_clean() -> None:
    terminal, err = screen(tty=True)
    with DownloadDisplay(terminal) as report:
        report(at(10))
        report.note("a note\x1b[2J")
    shown = err.getvalue()
    assert "downloading a" in shown
    assert "10 %, 10 B of 100 B" in shown
    assert "a note\\x1b[2J" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


def test_no_control_code_is_written_with_no_color() -> None:
    terminal, err = screen(tty=True, NO_COLOR="1")
    with DownloadDisplay(terminal) as report:
        report(at(10))
        report.note("a note")
    assert err.getvalue() == "downloading a: 100 B\na note\n"


def test_stored_files_and_quiet_commands_show_nothing() -> None:
    terminal, err = screen(tty=True)
    with DownloadDisplay(terminal) as report:
        report(DownloadProgress(file="a", phase="found", completed=5, total=5))
    with DownloadDisplay(terminal, quiet=True) as report:
        report(at(10))
    assert err.getvalue() == ""
