"""The trace of a client is continued: in the response, in the log, in events."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

import pytest

from mullama.errors import Busy
from mullama.server.log import Lines
from mullama.trace_context import Span
from tests.server.server_fixture import CHAT, StubRuntime, key, running_server

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


class Spans:
    """A tracer that keeps all spans."""

    def __init__(self, *, active: bool = True, sampled: bool = True) -> None:
        self.active, self.sampled = active, sampled
        self.found: list[Span] = []

    def samples(self, trace_id: str) -> bool:
        return self.sampled

    def add(self, *spans: Span) -> None:
        self.found += spans


def test_the_span_of_a_request_has_the_attributes_of_http_and_continues_the_trace() -> None:
    tracer, runtime = Spans(), StubRuntime(keys=(key("ci", "s3cret", "infer"),))
    with running_server(runtime, tracer=tracer) as server:
        headers = {"traceparent": PARENT, "tracestate": "a=1", "authorization": "Bearer s3cret"}
        answer = server.ask("POST", "/v1/chat/completions?secret=x", CHAT, headers)
        server.ask("GET", "/livez")

    (span,) = tracer.found
    assert (span.trace_id, span.parent_id, span.state) == (TRACE, "b7ad6b7169203331", "a=1")
    assert span.span_id == answer.headers["traceresponse"].split("-")[2]
    assert (span.name, span.serves, span.error) == ("POST /v1/chat/completions", True, None)
    assert 0 < span.end - span.begin < 60
    assert span.attributes == {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
        "url.scheme": "http", "client.address": "127.0.0.1", "mullama.request.id": answer.headers["x-request-id"],
        "mullama.dialect": "openai", "mullama.key": "ci", "mullama.revision": 7,
    }  # fmt: skip
    assert runtime.callers[0].trace is not None
    assert runtime.callers[0].trace.span_id == span.span_id


def test_a_request_without_a_trace_begins_one_with_its_own_id() -> None:
    tracer = Spans()
    with running_server(StubRuntime(script=(Busy("the queue is full"),)), tracer=tracer) as server:
        answer = server.ask("POST", "/api/chat", CHAT)
        server.ask("GET", "/livez")

    (span,) = tracer.found
    assert answer.headers["x-request-id"] == f"req_{span.trace_id}"
    assert answer.headers["traceresponse"] == f"00-{span.trace_id}-{span.span_id}-01"
    assert (span.parent_id, span.error, span.attributes["error.type"]) == ("", "busy", "busy")
    assert span.attributes["http.response.status_code"] == 503


@pytest.mark.parametrize(
    ("tracer", "traceparent", "flags"),
    [
        (Spans(sampled=False), None, "00"),  # not in the share of the manifest
        (Spans(), PARENT[:-1] + "0", "00"),  # the client does not sample it
        (Spans(active=False), PARENT, "01"),
    ],
)
def test_what_is_not_sampled_is_passed_on_and_not_recorded(tracer: Spans, traceparent: str | None, flags: str) -> None:
    with running_server(tracer=tracer) as server:
        headers = {"traceparent": traceparent} if traceparent else {}
        answer = server.ask("POST", "/api/chat", CHAT, headers)
        server.ask("GET", "/livez")
    assert answer.headers["traceresponse"].endswith(f"-{flags}")
    assert tracer.found == []
