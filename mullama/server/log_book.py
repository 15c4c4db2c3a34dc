"""The last lines of the server's log in memory, for administrators who read it through the server."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from mullama.errors import masked
from mullama.server.log import line_text
from mullama.struct import Struct

MOST_LINES = 20_000
MOST_BYTES = 8 * 1024 * 1024
_OWN_BYTES = 600  # of a line without its texts, about
_LONGEST = 16 * 1024  # characters of a line
LEVELS: Mapping[str, int] = {
    name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error", "critical")
}


class LogFilter(Struct, frozen=True, kw_only=True):
    """The lines that a reader wants."""

    model: str = ""
    part: str = ""
    level: int = 0
    """Lowest level, as of `logging`."""
    text: str = ""
    """A part of the text, without regard to case."""
    since: float = 0.0
    """Unix seconds."""


class _Kept(Struct, frozen=True):
    """One line before it is written out: most lines are never read here."""

    id: int
    when: float
    level: int
    part: str
    models: tuple[str, ...]
    event: str
    fields: Mapping[str, Any]
    size: int

    def matches(self, wanted: LogFilter) -> bool:
        """Return True for a line that the filter wants, apart from its text."""
        return (
            self.level >= wanted.level
            and self.when >= wanted.since
            and (not wanted.part or self.part == wanted.part)
            and (not wanted.model or wanted.model in self.models)
        )

    def tree(self) -> dict[str, Any]:
        """Return the published form. The text is printable ASCII, as in the log itself."""
        text = masked(line_text(self.event, self.fields))
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}... ({len(text) - _LONGEST} more characters)"
        return {
            "id": self.id,
            "when": self.when,
            "level": logging.getLevelName(self.level).lower(),
            "part": self.part,
            "models": list(self.models),
            "text": text,
        }


class LogBook(logging.Handler):
    """Keeps the last lines, bounded by their number and their bytes. Any thread may log; readers are of one loop."""

    def __init__(self, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._most_bytes, self._most_lines = most_bytes, most_lines
        self._kept: deque[_Kept] = deque()
        self._bytes = 0
        self.last = 0
        """The id of the newest line, 0 before the first."""
        self._waiting: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line. `logging` calls it under the lock of the handler."""
        event, fields = record.getMessage(), dict(getattr(record, "fields", None) or {})
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        size = _OWN_BYTES + len(event) + sum(len(value) for value in fields.values() if isinstance(value, str))
        self.last += 1
        self._kept.append(
            _Kept(
                self.last, record.created, record.levelno, _part(record.name), _models(record, fields), event, fields,
                size,
            )
        )  # fmt: skip
        self._bytes += size
        while (self._bytes > self._most_bytes or len(self._kept) > self._most_lines) and len(self._kept) > 1:
            self._bytes -= self._kept.popleft().size
        if self._waiting and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def read(self, wanted: LogFilter, most: int) -> list[dict[str, Any]]:
        """Return the last lines that a filter wants, at most so many, oldest first.

        A search in the texts writes every line out, so it belongs into a thread.
        """
        found: deque[dict[str, Any]] = deque()
        for kept in reversed(self._copy()):
            if len(found) >= most:
                break
            if (tree := _wanted(kept, wanted)) is not None:
                found.appendleft(tree)
        return list(found)

    async def follow(self, wanted: LogFilter, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the kept lines after this id that a filter wants, then each new one; endless.

        A reader that was slower than the log gets `dropped`, the number of lines that it missed, with its next line.
        """
        self._loop = asyncio.get_running_loop()
        added = asyncio.Event()
        self._waiting.add(added)
        try:
            while True:
                added.clear()
                dropped = 0
                for kept in self._after(after):
                    dropped += kept.id - after - 1
                    after = kept.id
                    if (tree := _wanted(kept, wanted)) is not None:
                        yield {**tree, "dropped": dropped}
                        dropped = 0
                await added.wait()
        finally:
            self._waiting.discard(added)

    def _copy(self) -> list[_Kept]:
        self.acquire()
        try:
            return list(self._kept)
        finally:
            self.release()

    def _after(self, id: int) -> list[_Kept]:
        """Return the kept lines after an id; those before it are not looked at."""
        self.acquire()
        try:
            fresh: list[_Kept] = []
            for kept in reversed(self._kept):
                if kept.id <= id:
                    break
                fresh.append(kept)
        finally:
            self.release()
        return fresh[::-1]

    def _wake(self) -> None:
        for added in self._waiting:
            added.set()


def _wanted(kept: _Kept, wanted: LogFilter) -> dict[str, Any] | None:
    """Return the published form of a line that a filter wants, else None."""
    if not kept.matches(wanted):
        return None
    tree = kept.tree()
    return tree if wanted.text.casefold() in tree["text"].casefold() else None


def _part(logger: str) -> str:
    """Return the part of the log, as `observability.logs.parts` names it; that of a library is its own name."""
    if logger == "mullama":
        return ""
    name = logger.removeprefix("mullama.").split(".")[0]
    return "http" if name == "server" and logger.startswith("mullama.") else name


def _models(record: logging.LogRecord, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the models that a line is about: those of its event, or those that a request named or used."""
    found = (*getattr(record, "models", ()), fields.get("answered_by"), fields.get("model"))
    return tuple(dict.fromkeys(name for name in found if name))
