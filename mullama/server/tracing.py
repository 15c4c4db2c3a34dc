"""The trace of each HTTP request: that of its client, or a new one while traces are exported."""

from __future__ import annotations

import secrets
import time

from mullama.runtime.base import Tracer
from mullama.server.http.exchange import Exchange
from mullama.trace_context import SAMPLED, AttributeValue, Span, TraceContext, continued

PROBES = ("/livez", "/readyz", "/healthz", "/health", "/v1/health", "/metrics")
"""Routes that are asked every few seconds; they are logged at debug level and not traced."""


def context_of(exchange: Exchange, tracer: Tracer | None) -> TraceContext | None:
    """Return the place of a request in the trace of its client, or in a new one; None if there is no trace."""
    found = continued(exchange.headers, span_id=secrets.token_hex(8)) if "traceparent" in exchange.headers else None
    if found is None and tracer is not None and tracer.active:
        flags = SAMPLED if tracer.samples(exchange.id) else 0
        found = TraceContext(trace_id=exchange.id, span_id=secrets.token_hex(8), flags=flags)
    return found


def span_of(exchange: Exchange, context: TraceContext) -> Span | None:
    """Return the span of a request that has ended, with the attributes of HTTP servers; None for a probe."""
    notes, end = exchange.notes, time.time()
    if notes.route in PROBES:
        return None
    attributes: dict[str, AttributeValue] = {
        "http.request.method": exchange.method,
        "url.scheme": str(exchange.scope.get("scheme", "http")),
        "client.address": exchange.client,
        "mullama.request.id": exchange.request_id,
        "mullama.revision": notes.generation,
    }
    given: dict[str, AttributeValue | None] = {
        "http.route": notes.route, "http.response.status_code": exchange.status, "mullama.dialect": notes.dialect,
        "mullama.key": notes.key, "error.type": _error_type(exchange),
    }  # fmt: skip
    attributes |= {name: value for name, value in given.items() if value}
    failed = notes.error is not None and (exchange.status >= 500 or notes.stream)
    return Span(
        trace_id=context.trace_id, span_id=context.span_id, parent_id=context.parent_id, state=context.state,
        name=f"{exchange.method} {notes.route}".rstrip(), serves=True,
        begin=end - exchange.elapsed, end=end, attributes=attributes,
        error=notes.error.kind.value if failed and notes.error else None,
    )  # fmt: skip


def _error_type(exchange: Exchange) -> str:
    if exchange.notes.disconnected:
        return "client_disconnected"
    return exchange.notes.error.kind.value if exchange.notes.error else ""
