"""The log of the server for the page: the lines that the server keeps, and then the new ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mullama.cli.page.server_access import PageServer
from mullama.cli.server.logs import log_line
from mullama.client.http import StreamStop
from mullama.units import counted, printable

KEPT_LINES = 5000
_LONGEST = 2000  # characters of a line that are shown


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
    """Return a line for the page: control and direction characters escaped, and shortened if it is very long."""
    text = log_line({**line, "text": str(line["text"])[: 2 * _LONGEST]})
    text = printable(text.replace("\t", "    "))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
