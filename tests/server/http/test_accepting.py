"""Accepting connections while no descriptor is left."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

import pytest

from mullama.server.http.accepting import REPORT_EVERY, AcceptReports, ListeningSocket


def exhausted(*_: Any) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


def test_one_failure_ends_a_round_of_accepts_and_the_next_round_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with ListeningSocket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        listening.setblocking(False)
        with socket.create_connection(listening.getsockname()):
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "accept", exhausted)
                for _ in range(3):
                    with pytest.raises(OSError, match="Too many open files"):
                        listening.accept()
                    with pytest.raises(BlockingIOError):
                        listening.accept()
            accepted, _ = listening.accept()
            accepted.close()


def test_the_log_gets_one_line_a_minute_and_other_failures_as_usual(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    loop, reports = asyncio.new_event_loop(), AcceptReports(lambda: now[0])
    full = {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "Too many")}
    with caplog.at_level(logging.WARNING):
        for second in (0.0, 1.0, REPORT_EVERY - 1, REPORT_EVERY):
            now[0] = second
            reports(loop, full)
        assert [record.exc_info for record in caplog.records] == [None, None]
        reports(loop, {"message": "something else", "exception": ValueError("x")})
    loop.close()
    assert caplog.records[-1].getMessage().startswith("something else")


def test_asyncio_reports_with_the_text_that_is_matched() -> None:
    """A new Python may change the text."""
    import inspect
    from asyncio import selector_events

    assert "socket.accept() out of system resource" in inspect.getsource(selector_events)
