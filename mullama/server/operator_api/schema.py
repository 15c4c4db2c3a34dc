"""The JSON schemas of the operator API: one row for each endpoint, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.names import JSONValue
from mullama.server.http.exchange import OPERATOR
from mullama.server.openapi import document
from mullama.server.operator_api import response_schemas as responses
from mullama.server.operator_api.requests import LONGEST_LEASE, TRIGGERS
from mullama.server.route_table import HttpRoute, RouteSchema

_TEXT, _FLAG, _COUNT, _TREE = responses.TEXT, responses.FLAG, responses.COUNT, responses.TREE
_NDJSON = "application/x-ndjson"


def _object(required: Mapping[str, JSONValue], closed: bool = False, **optional: JSONValue) -> JSONValue:
    fields: dict[str, JSONValue] = {"type": "object", "properties": {**required, **optional}}
    if required:
        fields["required"] = list(required)
    return {**fields, "additionalProperties": False} if closed else fields


_FENCE: JSONValue = {"type": ["integer", "null"], "minimum": 1, "description": "that of the lease of a fleet"}
_OPTIONS = _object(
    {},
    closed=True,
    allow_empty=_FLAG,
    offline=_FLAG,
    locked=_FLAG,
    prepare={"type": "boolean", "description": "fetch and check the files, and change nothing"},
    targets={"type": "array", "items": _TEXT, "description": "apply only these models and routes and what they need"},
    expect={"type": ["string", "null"], "description": "the revision that must be applied now"},
    trigger={"enum": list(TRIGGERS)},
    by=_TEXT,
    fence=_FENCE,
)
_STEP: JSONValue = {"type": "string", "description": "the step of a fleet's apply: NAME/FENCE.STEP"}
_ORIGIN = _object(
    {},
    closed=True,
    path={"type": ["string", "null"]},
    profiles={"type": "array", "items": _TEXT},
    digest=_TEXT,
    fleet=_STEP,
)
_NOTHING = _object({}, closed=True)
_HEALTH = _object({"status": {"enum": ["ok", "degraded"]}})  # a 503 has "starting" or "stopping" and an `error`
_SUMMARY = _object({"status": _TEXT, "version": _TEXT, "uptime_secs": _COUNT, "models_loaded": _COUNT})

SCHEMAS: Mapping[tuple[str, str], RouteSchema] = {
    ("GET", "/"): RouteSchema(summary="Greet", response=_TEXT),
    ("GET", "/livez"): RouteSchema(summary="Report that the process runs", response=_HEALTH),
    ("GET", "/readyz"): RouteSchema(
        summary="Report whether every model that loads at start is ready; a 503 lists the missing ones",
        response=_object({"ready": _FLAG}, missing={"type": "array", "items": _TEXT}),
    ),
    ("GET", "/healthz"): RouteSchema(summary="Report the state of the server in short", response=_HEALTH),
    ("GET", "/health"): RouteSchema(summary="Report the state of the server in short", response=_HEALTH),
    ("GET", "/v1/health"): RouteSchema(summary="Report the state of the server in short", response=_HEALTH),
    ("GET", "/openapi.json"): RouteSchema(summary="Get this document", response=_TREE),
    ("GET", "/metrics"): RouteSchema(summary="Get metrics in Prometheus' text format", response=_TEXT),
    ("GET", "/api/v1/status"): RouteSchema(
        summary="Get the complete status",
        response=responses.STATUS,
    ),
    ("GET", "/api/system/status"): RouteSchema(summary="Get the status in short, for monitors", response=_SUMMARY),
    ("GET", "/status"): RouteSchema(summary="Get the status in short, for monitors", response=_SUMMARY),
    ("GET", "/api/v1/stack"): RouteSchema(
        summary="Get the applied manifest; its revision is the ETag",
        response=responses.STACK,
    ),
    ("GET", "/api/v1/history"): RouteSchema(
        summary="List the revisions, newest first",
        response=responses.HISTORY,
    ),
    ("GET", "/api/v1/history/diff"): RouteSchema(
        summary="Compare two revisions, ?before=N&after=N: their resolved manifests and the plan between them",
        response=responses.COMPARISON,
    ),
    ("GET", "/api/v1/events"): RouteSchema(
        summary="Follow events, after the id in ?after= or Last-Event-ID",
        stream="text/event-stream",
    ),
    ("GET", "/api/v1/live"): RouteSchema(
        summary="Follow the status: everything first, then what changes, with the events",
        stream="text/event-stream",
    ),
    ("GET", "/api/v1/blobs/{digest}"): RouteSchema(
        summary="Get a stored file by its digest sha256:…, whole or one range of it, for other servers",
        stream="application/octet-stream",
    ),
    ("GET", "/api/v1/models/{name:path}"): RouteSchema(
        summary="Get a model: its values with their origins, template, files, contexts over its weights, and worker",
        response=responses.MODEL_DOCUMENT,
    ),
    ("GET", "/api/v1/logs"): RouteSchema(
        summary="Get the last ?tail= lines of the log, filtered by ?model=, ?part=, ?level=, ?text= and ?since=",
        response=responses.LOGS,
    ),
    ("GET", "/api/v1/logs/events"): RouteSchema(
        summary="Follow the log from now on, or after the line in ?after= or Last-Event-ID, filtered as /api/v1/logs",
        stream="text/event-stream",
    ),
    ("GET", "/api/v1/logs/worker/{name:path}"): RouteSchema(
        summary="Get the end of the engine's log of a model, and of the output of its worker",
        response=responses.WORKER_LOG,
    ),
    ("GET", "/api/v1/usage"): RouteSchema(
        summary="Sum up requests and tokens since ?since= (7d, or Unix seconds), ?by= key, route and model, per ?span=",
        response=responses.USAGE,
    ),
    ("GET", "/api/v1/hub/search"): RouteSchema(
        summary="Search the hub for repositories with ?query=, at most ?limit=; ?all=1 also those without GGUF files",
        response=responses.HUB_SEARCH,
    ),
    ("GET", "/api/v1/hub/repository"): RouteSchema(
        summary="Get the files of the repository ?source=, rated for this machine, ?context_size= and ?profile=",
        response=responses.HUB_REPOSITORY,
    ),
    ("POST", "/api/v1/manifest/entry"): RouteSchema(
        summary="Return a text of a manifest with a new entry; nothing is saved",
        request=_object(
            {"text": _TEXT, "path": {"type": "array", "items": _TEXT, "minItems": 1}, "value": {}}, closed=True
        ),
        response=_object({"text": _TEXT}),
    ),
    ("GET", "/api/v1/keys"): RouteSchema(
        summary="List the declared API keys with their rights, limits and use, without secrets",
        response=responses.KEYS,
    ),
    ("GET", "/api/v1/metrics/history"): RouteSchema(
        summary="Get the metrics of the last hour since ?since= (15m, or Unix seconds) in steps of ?step= (15s), "
        "also of one ?model=",
        response=responses.METRICS_HISTORY,
    ),
    ("GET", "/api/v1/requests"): RouteSchema(
        summary="List the captured requests, newest first, filtered by ?model=, ?key=, ?route= and ?result=",
        response=responses.CAPTURES,
    ),
    ("GET", "/api/v1/requests/events"): RouteSchema(
        summary="Follow the captured requests, after the id in ?after= or Last-Event-ID",
        stream="text/event-stream",
    ),
    ("GET", "/api/v1/requests/{id}"): RouteSchema(
        summary="Get a captured request with its prompt and answer", response=responses.CAPTURE
    ),
    ("GET", "/api/v1/manifest"): RouteSchema(
        summary="Get the text of the followed manifest", response=responses.MANIFEST_TEXT
    ),
    ("POST", "/api/v1/manifest/plan"): RouteSchema(
        summary="Check a text of the followed manifest, and plan it",
        request=_object({"text": _TEXT}, closed=True, profiles={"type": "array", "items": _TEXT}),
        response=responses.TEXT_PLAN,
    ),
    ("PUT", "/api/v1/manifest"): RouteSchema(
        summary="Save a text in place of the one with this digest, and apply it; If-Match as for /api/v1/stack",
        request=_object(
            {"text": _TEXT, "digest": _TEXT},
            closed=True,
            profiles={"type": "array", "items": _TEXT, "description": "those that the server follows from now on"},
            allow_empty=_FLAG,
        ),
        stream=_NDJSON,
    ),
    ("POST", "/api/v1/plan"): RouteSchema(
        summary="Return the plan of an apply of this manifest with these options",
        request=_object({"manifest": _TREE}, closed=True, origin=_ORIGIN, options=_OPTIONS),
        response=responses.PREVIEW,
    ),
    ("PUT", "/api/v1/stack"): RouteSchema(
        summary="Apply this manifest; If-Match requires the applied revision",
        request=_object({"manifest": _TREE}, closed=True, origin=_ORIGIN, options=_OPTIONS),
        stream=_NDJSON,
    ),
    ("GET", "/api/v1/drift"): RouteSchema(
        summary="Return the plan from the observed state to the applied revision",
        response=responses.PLAN,
    ),
    ("POST", "/api/v1/refresh"): RouteSchema(
        summary="Record the files of the served models as they are now and return the drift; changes no model",
        request=_NOTHING,
        response=responses.PLAN,
    ),
    ("POST", "/api/v1/reload"): RouteSchema(
        summary="Read the followed manifest now",
        request=_NOTHING,
        response=_object({"changed": _FLAG, "outcome": _TEXT, "message": _TEXT}),
    ),
    ("GET", "/api/v1/undo"): RouteSchema(
        summary="Plan the return to an earlier revision; ?to=N names it", response=responses.PREVIEW
    ),
    ("POST", "/api/v1/undo"): RouteSchema(
        summary="Apply the manifest of an earlier revision",
        request=_object({}, closed=True, to={"type": ["integer", "null"]}, by=_TEXT, fence=_FENCE, fleet=_STEP),
        stream=_NDJSON,
    ),
    ("GET", "/api/v1/fleet"): RouteSchema(
        summary="Get all hosts of the fleet of this server, its models by host, and its rollout",
        response=responses.FLEET,
    ),
    ("GET", "/api/v1/fleet/rollout"): RouteSchema(
        summary="Get the record of the last rollout, as the controller of the fleet left it here",
        response=responses.ROLLOUT,
    ),
    ("PUT", "/api/v1/fleet/rollout"): RouteSchema(
        summary="Leave the record of a rollout; an older one than the present is not kept",
        request=responses.ROLLOUT_RECORD,
        response=responses.ROLLOUT,
    ),
    ("GET", "/api/v1/fleet/lease"): RouteSchema(
        summary="Get the highest fence that a fleet used here, and the lease in force", response=responses.LEASE
    ),
    ("PUT", "/api/v1/fleet/lease"): RouteSchema(
        summary="Take or renew the lease of a fleet; a fence above that of the last one, or that of a renewed one",
        request=_object(
            {
                "holder": _TEXT,
                "fleet": _TEXT,
                "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_LEASE},
                "fence": {"type": "integer", "minimum": 1},
            },
            closed=True,
        ),
        response=responses.LEASE,
    ),
    ("DELETE", "/api/v1/fleet/lease"): RouteSchema(
        summary="Release the lease of a fleet",
        request=_object({"holder": _TEXT}, closed=True),
        response=responses.LEASE,
    ),
    ("POST", "/api/v1/sync"): RouteSchema(
        summary="Look at the git repository of sync.git now; a request of the git host, signed with its secret",
        raw=True,
        response=_object({"checking": _FLAG}),
    ),
    ("POST", "/api/v1/shutdown"): RouteSchema(
        summary="Stop the server after the requests in progress",
        request=_NOTHING,
        response=_object({"stopping": _FLAG, "pid": _COUNT}),
    ),
}


async def _unserved(*_: object) -> None: ...


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the operator API alone, without a server. The web page takes its types from it."""
    routes = [
        HttpRoute(method=method, path=path, access="read", handler=_unserved, error_format=OPERATOR, schema=schema)
        for (method, path), schema in SCHEMAS.items()
    ]
    return document(routes, with_keys=False, version="1")
