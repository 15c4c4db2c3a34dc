"""The log of the server for the page: the lines that the server keeps, and then the new ones."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mullama.cli.page.server_access import PageServer
from mullama.client.http import StreamStop
from mullama.units import counted, printable

KEPT_LINES = 5000
_LONGEST = 2000  # characters of a line that are shown
_REQUEST = re.compile(r"^request status=(\d+) method=(\S+) path=(\S+) seconds=(\S+)")
"""The beginning of the line of a request, as `server/log.py` writes it."""


def log_lines(server: PageServer, stop: StreamStop) -> Iterator[tuple[str, ...]]:
    """Yield the kept lines of the log at once, and then each new one, until `stop` ends it. It needs the role admin."""
    client = server.find().client
    found = client.get(f"/api/v1/logs?tail={KEPT_LINES}")
    yield tuple(map(shown, found["lines"]))
    for line in client.events(f"/api/v1/logs/events?after={found['last']}", stop=stop):
        lost = line.get("dropped")
        missed = (f"… {counted(lost, 'line')} came too fast and are not kept",) if lost else ()
        yield (*missed, shown(line))


def shown(line: Mapping[str, Any]) -> str:
    """Return a line for the page: the time of day, the level, and the text, whose end a narrow terminal cuts.

    Control and direction characters are escaped. A very long line is shortened, and a request begins with its result.
    """
    text = _REQUEST.sub(r"\1 \2 \3 \4 s", str(line["text"])[: 2 * _LONGEST])
    clock = time.strftime("%H:%M:%S", time.localtime(float(line["when"])))
    text = printable(f"{clock} {line['level']} {text}".replace("\t", "    "))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
