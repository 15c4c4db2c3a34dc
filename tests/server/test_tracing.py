"""The trace of a client is continued: in the response, in the log, in events."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

import pytest

from mullama.server.log import Lines
from tests.server.server_fixture import CHAT, StubRuntime, running_server

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(Lines("json").format(record))


@pytest.mark.parametrize("stream", [True, False])
def test_the_response_and_the_log_line_name_the_trace(stream: bool) -> None:
    kept, logger = Kept(), logging.getLogger("mullama.requests")
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    try:
        with running_server() as server:
            headers = {"traceparent": PARENT, "origin": "http://localhost:3000"}
            answer = server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": stream}, headers)
            server.ask("GET", "/livez")
    finally:
        logger.removeHandler(kept)
        logger.setLevel(logging.NOTSET)

    version, trace, span, flags = answer.headers["traceresponse"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert "traceresponse" in answer.headers["access-control-expose-headers"]
    line = json.loads(kept.lines[0])
    assert (line["trace_id"], line["span_id"]) == (TRACE, span)


@pytest.mark.parametrize("headers", [{}, {"traceparent": PARENT + "-x"}, {"tracestate": "a=1"}])
def test_without_a_valid_trace_there_is_none(headers: Mapping[str, str]) -> None:
    with running_server() as server:
        assert "traceresponse" not in server.ask("GET", "/livez", None, headers).headers


def test_errors_have_the_trace_too() -> None:
    with running_server(StubRuntime()) as server:
        answer = server.ask("GET", "/nothing", None, {"traceparent": PARENT})
    assert answer.status == 404
    assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-")
