"""Tasks of the server are followed to their end."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest

from mullama.cli.api_client.tasks import follow_task
from mullama.cli.app.context import CommandContext
from mullama.cli.console.terminal import Terminal
from mullama.errors import NotFound, Unavailable


@pytest.fixture
def call() -> CommandContext:
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})
    return CommandContext(options=argparse.Namespace(), terminal=terminal, env={}, folder=Path())


def test_a_task_ends_with_success(call: CommandContext) -> None:
    follow_task(call, [{"status": "pulling manifest"}, {"status": "success"}])
    assert call.terminal.err.getvalue() == "pulling manifest\n"  # type: ignore[attr-defined]


def test_a_task_ends_with_its_error(call: CommandContext) -> None:
    with pytest.raises(NotFound, match="nothing there"):
        follow_task(call, [{"error": {"kind": "not_found", "message": "nothing there", "hint": ""}}])


def test_a_task_without_an_end_is_an_error(call: CommandContext) -> None:
    with pytest.raises(Unavailable, match="before the task ended"):
        follow_task(call, [{"status": "pulling manifest"}])
