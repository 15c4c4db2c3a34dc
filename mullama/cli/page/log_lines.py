"""The log of the server for the page: the lines of its file on this machine, from a position onwards."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mullama.cli.page.server_access import PageServer
from mullama.cli.server.logs import tail
from mullama.errors import NotFound, Unavailable
from mullama.units import printable

KEPT_LINES = 5000
_CHUNK = 1 << 20
_LONGEST = 2000  # characters of a line that are shown


class LogPart(NamedTuple):
    """Lines of the log, and the position behind them."""

    lines: tuple[str, ...]
    position: int
    replaced: bool = False
    """The file is another one: it was rotated."""


def read_log(server: PageServer, position: int | None) -> LogPart:
    """Return the lines after a position, or with None the last ones of the file.

    Raises `Unavailable` for a server of another machine, `NotFound` where the server has no log file.
    """
    records = server.find().records
    if records is None:
        raise Unavailable("the log of a server on another machine cannot be read", hint="run mullama logs there")
    path = records.log_path
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise NotFound(f"there is no log at {path}", hint="only a background server writes one") from error
    if position is None or size < position:
        lines = tail(path, KEPT_LINES)
        return LogPart(tuple(map(shown, lines)), _after(path, lines, size), position is not None)
    with path.open("rb") as file:
        file.seek(position)
        data = file.read(_CHUNK)
    whole = data[: data.rfind(b"\n") + 1]
    return LogPart(tuple(map(shown, whole.splitlines())), position + len(whole))


def _after(path: Path, lines: list[bytes], size: int) -> int:
    """Return the end of the last whole line."""
    return size - (len(lines[-1]) if lines and not lines[-1].endswith(b"\n") else 0)


def shown(line: bytes) -> str:
    """Return a line for the page: control and direction characters escaped, and shortened if it is very long."""
    text = printable(line[: 4 * _LONGEST].decode("utf-8", "replace").rstrip("\r\n").replace("\t", "    "))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
