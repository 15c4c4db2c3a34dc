"""Shows the events of an apply until its result: live on a terminal, lines on a pipe, NDJSON with --json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from mullama.cli.console.progress import ApplyProgress, fold, log_lines, outcome_lines
from mullama.cli.console.terminal import Terminal
from mullama.client.errors import error_from_tree
from mullama.errors import Unavailable

if TYPE_CHECKING:
    from mullama.cli.console.view import ApplyObserver


class ApplyView:
    """Output of one apply. `progress` is current at any time, also after an error."""

    def __init__(self, terminal: Terminal, *, as_json: bool = False) -> None:
        self.progress = ApplyProgress()
        self._terminal = terminal
        self._as_json = as_json

    def run(self, events: Iterable[Mapping[str, Any]], *, until_committed: bool = False) -> ApplyProgress:
        """Show the events up to the result, or with `until_committed` up to the commit.

        Raises the error of an error event, and `Unavailable` if the events end early.
        """
        with self._observer() as observe:
            for event in events:
                if event.get("event") == "error":
                    raise error_from_tree(event["error"])
                before, self.progress = self.progress, fold(self.progress, event)
                observe(event, before, self.progress)
                if until_committed and self.progress.committed:
                    break
        if self.progress.result is None and not (until_committed and self.progress.committed):
            raise Unavailable(
                "the server closed the connection before the result",
                hint="mullama status shows the state; apply again to continue",
            )
        return self.progress

    def show_outcome(self) -> None:
        """Write the outcome as lines: to the output if the apply succeeded, else to the error stream."""
        if self._as_json:
            return
        result = self.progress.result
        if result is None:
            self._terminal.line("the revision is committed; mullama wait follows the loading")
            return
        *failed, last = outcome_lines(result)
        for text in failed:
            self._terminal.note(text)
        if result["outcome"] == "applied":
            self._terminal.line(last)
        else:
            self._terminal.note(f"error: {last}")

    def _observer(self) -> AbstractContextManager[ApplyObserver]:
        if self._as_json:
            return nullcontext(self._write_json)
        if self._terminal.coloured:
            return self._terminal.view.apply()
        return nullcontext(self._write_lines)

    def _write_lines(self, event: Mapping[str, Any], before: ApplyProgress, after: ApplyProgress) -> None:
        del event
        for text in log_lines(before, after):
            self._terminal.line(text)

    def _write_json(self, event: Mapping[str, Any], before: ApplyProgress, after: ApplyProgress) -> None:
        del before, after
        self._terminal.out.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._terminal.out.flush()
