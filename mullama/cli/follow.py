"""Shows the events of an apply until its result: live on a terminal, as lines elsewhere, as NDJSON when asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mullama.cli.progress import Progress, fold, news, verdict
from mullama.cli.terminal import Terminal
from mullama.errors import Unavailable


def follow(
    events: Iterator[dict[str, Any]],
    terminal: Terminal,
    *,
    as_json: bool = False,
    until_committed: bool = False,
) -> Progress:
    """Everything the server told, its `result` the last of it.

    until_committed: leave as soon as the generation is committed; the server goes on by itself.
    """
    if as_json:
        progress = _as_json(events, terminal, until_committed)
    elif terminal.coloured:
        with terminal.view.following() as follower:
            progress = _drain(events, follower.feed, until_committed)
    else:
        progress = _as_lines(events, terminal, until_committed)
    if progress.result is None and not (until_committed and progress.committed):
        raise Unavailable(
            "the server ended the connection before it told the result",
            hint="mullama status shows what came of it; apply again goes on from there",
        )
    return progress


def show_verdict(progress: Progress, terminal: Terminal) -> None:
    """The outcome in lines: on stdout when all went well, on stderr otherwise."""
    if progress.result is None:
        terminal.line("the generation is committed; the server goes on loading (mullama wait follows it)")
        return
    say = terminal.line if progress.result["exit"] == 0 else terminal.note
    for text in verdict(progress.result):
        say(text)


def _drain(events: Iterator[dict[str, Any]], feed: Any, until_committed: bool) -> Progress:
    progress = Progress()
    for event in events:
        progress = feed(event)
        if until_committed and progress.committed:
            break
    return progress


def _as_lines(
    events: Iterator[dict[str, Any]], terminal: Terminal, until_committed: bool
) -> Progress:
    progress = Progress()

    def feed(event: Mapping[str, Any]) -> Progress:
        nonlocal progress
        before, progress = progress, fold(progress, event)
        for text in news(before, progress):
            terminal.line(text)
        return progress

    return _drain(events, feed, until_committed)


def _as_json(
    events: Iterator[dict[str, Any]], terminal: Terminal, until_committed: bool
) -> Progress:
    progress = Progress()

    def feed(event: Mapping[str, Any]) -> Progress:
        nonlocal progress
        progress = fold(progress, event)
        terminal.out.write(json.dumps(event, ensure_ascii=False) + "\n")
        terminal.out.flush()
        return progress

    return _drain(events, feed, until_committed)
