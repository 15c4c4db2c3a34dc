"""Shows the events of an apply until its result: live on a terminal, as lines elsewhere, as NDJSON when asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mullama.cli.api_client.errors import error_from_tree
from mullama.cli.console.download_progress import Speed
from mullama.cli.console.progress import ApplyProgress, fold, news, verdict
from mullama.cli.console.terminal import Terminal
from mullama.errors import Unavailable

# Told once for each event: the event, the progress before it, and after it.
Teller = Callable[[Mapping[str, Any], ApplyProgress, ApplyProgress], None]


class ApplyView:
    """One apply as it is told. `progress` is true at any moment, also after an error ended the telling."""

    def __init__(self, terminal: Terminal, *, as_json: bool = False) -> None:
        self.progress = ApplyProgress()
        self._terminal = terminal
        self._as_json = as_json
        self._speeds: dict[tuple[str, str], Speed] = {}

    def run(self, events: Iterable[Mapping[str, Any]], *, until_committed: bool = False) -> ApplyProgress:
        """Follow to the `result`, or only until the revision is committed: the server goes on by itself."""
        with self._telling() as tell:
            for event in events:
                if event.get("event") == "error":
                    raise error_from_tree(event["error"])
                event = self._timed(event)
                before, self.progress = self.progress, fold(self.progress, event)
                tell(event, before, self.progress)
                if until_committed and self.progress.committed:
                    break
        if self.progress.result is None and not (until_committed and self.progress.committed):
            raise Unavailable(
                "the server ended the connection before it told the result",
                hint="mullama status shows what came of it; apply again goes on from there",
            )
        return self.progress

    def _timed(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """A file's bytes with the speed at which they come here."""
        if event.get("event") != "fetch":
            return event
        speed = self._speeds.setdefault((str(event.get("model")), str(event.get("file"))), Speed())
        return {"speed": round(speed.of(int(event.get("done") or 0))), **event}

    def verdict(self) -> None:
        """The outcome in lines: on stdout when all went well, on stderr otherwise."""
        if self._as_json:
            return
        result = self.progress.result
        if result is None:
            self._terminal.line("the revision is committed; mullama wait follows the loading")
            return
        *failed, last = verdict(result)
        for text in failed:
            self._terminal.note(text)
        if result["exit"] == 0:
            self._terminal.line(last)
        else:
            self._terminal.note(f"error: {last}")

    def _telling(self) -> AbstractContextManager[Teller]:
        if self._as_json:
            return _told(self._tell_json)
        if self._terminal.coloured:
            return self._terminal.view.following()
        return _told(self._tell_lines)

    def _tell_lines(self, event: Mapping[str, Any], before: ApplyProgress, after: ApplyProgress) -> None:
        del event
        for text in news(before, after):
            self._terminal.line(text)

    def _tell_json(self, event: Mapping[str, Any], before: ApplyProgress, after: ApplyProgress) -> None:
        del before, after
        self._terminal.out.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._terminal.out.flush()


@contextmanager
def _told(tell: Teller) -> Iterator[Teller]:
    yield tell
