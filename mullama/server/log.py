"""Log lines as text or JSON, and the line of each request: client, key name, model, result, and no secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from mullama.manifest.spec import Logs
from mullama.server.http.exchange import Exchange
from mullama.server.tracing import PROBES
from mullama.server.web_page import PAGE_ROUTES
from mullama.trace_context import current

_log = logging.getLogger("mullama.requests")

_PROMPT = 16 * 1024  # characters of a logged prompt
_CLIENT_CLOSED_REQUEST = 499  # nginx's status; HTTP has none


def request(exchange: Exchange) -> None:
    """Log a request that has ended: health probes and files of the web page at debug level, others at info.

    Internal errors are at error level.
    """
    status = _CLIENT_CLOSED_REQUEST if exchange.notes.disconnected else exchange.status
    level = logging.INFO
    if status == 500:
        level = logging.ERROR
    elif exchange.notes.route in PROBES or (exchange.notes.route in PAGE_ROUTES and status < 400):
        level = logging.DEBUG
    if _log.isEnabledFor(level):
        _log.log(level, "request", extra={"fields": _fields(exchange, status)})


def _fields(exchange: Exchange, status: int) -> dict[str, Any]:
    """Return the fields of a request: first those that a narrow screen should show, and last what only tools need."""
    notes = exchange.notes
    fields: dict[str, Any] = {
        "status": status,
        "method": exchange.method,
        "path": exchange.path[:500],
        "seconds": round(exchange.elapsed, 4),
        "model": notes.model[:200],
        "answered_by": notes.answered_by[:200],
        "key": notes.key,
        "error": notes.error.kind.value if notes.error else None,
        "reason": notes.error.message[:500] if notes.error else None,
        "first_byte": None if notes.first_byte is None else round(notes.first_byte, 4),
        "dialect": notes.dialect,
        "generation": notes.generation,
        "stream": notes.stream or None,
        "bytes_in": notes.bytes_in,
        "bytes_out": exchange.bytes_out,
        "prompt_tokens": notes.prompt_tokens,
        "completion_tokens": notes.completion_tokens,
        "client": exchange.client,
        "id": exchange.request_id,
        "prompt": None if notes.prompt is None else notes.prompt[:_PROMPT],
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


ALL = ""
"""The name of the whole log among levels by part."""


def configure(logs: Logs, levels: Mapping[str, str] = MappingProxyType({})) -> None:
    """Use this format and these levels from now on, on every handler with our formatter.

    levels: of parts, by name, and of the log itself as `ALL`, in place of those of `logs`.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, Lines):
            handler.formatter.form = logs.format
    logging.getLogger("mullama").setLevel(levels.get(ALL, logs.level).upper())
    for part, declared in vars(logs.parts).items():
        level = levels.get(part) or declared
        logging.getLogger(_logger(part)).setLevel(level.upper() if level else logging.NOTSET)


def _logger(part: str) -> str:
    """Return the logger of a part of the log. The loggers of the modules of the HTTP server are below its own."""
    return "mullama.server" if part == "http" else f"mullama.{part}"


class Lines(logging.Formatter):
    """Formats each record as one line.

    Everything outside printable ASCII is escaped, so that logged text cannot add a line, move the cursor or change the
    writing direction.
    """

    def __init__(self, form: Literal["text", "json"]) -> None:
        super().__init__()
        self.form = form

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if (trace := current()) is not None:
            fields |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}"
        level, event = record.levelname.lower(), record.getMessage()
        if self.form == "json":
            head = {"time": time, "level": level, "logger": record.name, "event": event}
            return json.dumps({**head, **fields}, default=str)
        return f"{time} {level} {line_text(event, fields)}"


def line_text(event: str, fields: Mapping[str, Any]) -> str:
    """Return the text of a line behind its time and its level, in printable ASCII."""
    pairs = " ".join(f"{name}={_word(value)}" for name, value in fields.items())
    return f"{_plain(event)} {pairs}".rstrip()


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    simple = text.isascii() and text.isprintable() and not set(text) & set(' "\\=')
    return text if simple and text else json.dumps(text)


def _plain(text: str) -> str:
    """Return the text, quoted and escaped if it needs to be."""
    return text if text.isascii() and text.isprintable() else json.dumps(text)
