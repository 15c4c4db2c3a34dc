"""What the operator's API takes and gives, for the API document."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.names import JSONValue
from mullama.server.routes import RouteSchema

_TEXT: JSONValue = {"type": "string"}
_FLAG: JSONValue = {"type": "boolean"}
_COUNT: JSONValue = {"type": "integer", "minimum": 0}
_TREE: JSONValue = {"type": "object"}
_NDJSON = "application/x-ndjson"


def _object(required: Mapping[str, JSONValue], closed: bool = False, **optional: JSONValue) -> JSONValue:
    fields: dict[str, JSONValue] = {"type": "object", "properties": {**required, **optional}}
    if required:
        fields["required"] = list(required)
    return {**fields, "additionalProperties": False} if closed else fields


_OPTIONS = _object(
    {},
    closed=True,
    allow_empty=_FLAG,
    offline=_FLAG,
    locked=_FLAG,
    expect={"type": ["string", "null"], "description": "the revision that must be applied now"},
    trigger={"enum": ["apply", "watch", "signal", "start", "api", "undo"]},
    by=_TEXT,
)
_ORIGIN = _object(
    {},
    closed=True,
    path={"type": ["string", "null"]},
    profiles={"type": "array", "items": _TEXT},
    digest=_TEXT,
)
_NOTHING = _object({}, closed=True)
_HEALTH = _object({"status": {"enum": ["ok", "degraded"]}})
_SUMMARY = _object({"status": _TEXT, "version": _TEXT, "uptime_secs": _COUNT, "models_loaded": _COUNT})

SHAPES: Mapping[tuple[str, str], RouteSchema] = {
    ("GET", "/"): RouteSchema(summary="A greeting", response=_TEXT),
    ("GET", "/livez"): RouteSchema(summary="Whether the process lives", response=_HEALTH),
    ("GET", "/readyz"): RouteSchema(
        summary="Whether every model that is loaded at start answers; 503 names those that do not",
        response=_object({"ready": _FLAG}, missing={"type": "array", "items": _TEXT}),
    ),
    ("GET", "/healthz"): RouteSchema(summary="How the server is, in short", response=_HEALTH),
    ("GET", "/health"): RouteSchema(summary="How the server is, in short", response=_HEALTH),
    ("GET", "/v1/health"): RouteSchema(summary="How the server is, in short", response=_HEALTH),
    ("GET", "/openapi.json"): RouteSchema(summary="This document", response=_TREE),
    ("GET", "/metrics"): RouteSchema(summary="Metrics in Prometheus' text format", response=_TEXT),
    ("GET", "/api/v1/status"): RouteSchema(
        summary="Everything about the stack as it is now",
        response=_object({"format": {"const": "mullama.status/1"}}),
    ),
    ("GET", "/api/system/status"): RouteSchema(summary="The stack in short, for monitors", response=_SUMMARY),
    ("GET", "/status"): RouteSchema(summary="The stack in short, for monitors", response=_SUMMARY),
    ("GET", "/api/v1/stack"): RouteSchema(
        summary="The applied manifest; its revision is the ETag",
        response=_object({"generation": _COUNT, "revision": _TEXT, "manifest": _TREE, "origin": _TREE}),
    ),
    ("GET", "/api/v1/history"): RouteSchema(
        summary="The last revisions, newest first",
        response=_object({"generations": {"type": "array", "items": _TREE}}),
    ),
    ("GET", "/api/v1/events"): RouteSchema(
        summary="Events of the stack as they happen, after the number in ?after= or Last-Event-ID",
        stream="text/event-stream",
    ),
    ("POST", "/api/v1/plan"): RouteSchema(
        summary="The plan that an apply with these options would carry out",
        request=_object({"manifest": _TREE}, closed=True, origin=_ORIGIN, options=_OPTIONS),
        response=_object({"format": {"const": "mullama.plan/1"}}),
    ),
    ("PUT", "/api/v1/stack"): RouteSchema(
        summary="Apply this manifest; If-Match names the revision that must be applied now",
        request=_object({"manifest": _TREE}, closed=True, origin=_ORIGIN, options=_OPTIONS),
        stream=_NDJSON,
    ),
    ("POST", "/api/v1/reload"): RouteSchema(
        summary="Read the watched manifest again, now",
        request=_NOTHING,
        response=_object({"changed": _FLAG, "message": _TEXT}),
    ),
    ("POST", "/api/v1/undo"): RouteSchema(
        summary="Apply the manifest of an earlier revision",
        request=_object({}, closed=True, to={"type": ["integer", "null"]}),
        stream=_NDJSON,
    ),
    ("POST", "/api/v1/shutdown"): RouteSchema(
        summary="Stop the server when what is running has ended",
        request=_NOTHING,
        response=_object({"stopping": _FLAG, "pid": _COUNT}),
    ),
}
