"""The OpenAPI document, generated from the routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from mullama.errors import Invalid
from mullama.server.route_table import HttpRoute, RouteSchema

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_TAGS = {
    "ollama": "Endpoints of Ollama's API",
    "openai": "Endpoints of OpenAI's API, and llama-server's own",
    "anthropic": "Endpoints of Anthropic's API",
    "operator": "mullama's own API: models, status, plan and apply",
}


def document(routes: Iterable[HttpRoute], with_keys: bool, version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document. Routes that share a method and path become one operation."""
    ordered = sorted(routes, key=lambda r: (r.path, r.method))
    paths: dict[str, Any] = {}
    for (path, method), shared in groupby(ordered, key=lambda r: (r.path, r.method)):
        operation = _operation(tuple(shared), with_keys)
        paths.setdefault(_template(path), {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "mullama", "version": version, "license": {"name": "Apache-2.0"}},
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {"securitySchemes": _SECURITY} if with_keys else {},
    }


def _template(path: str) -> str:
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def _operation(routes: Sequence[HttpRoute], with_keys: bool) -> dict[str, Any]:
    first = routes[0]
    name = f"{first.path}index" if first.path.endswith("/") and first.path != "/" else first.path
    operation: dict[str, Any] = {
        "tags": [route.dialect or "operator" for route in routes],
        "operationId": f"{first.method.lower()}{re.sub(r'[^0-9A-Za-z]+', '_', name)}".rstrip("_"),
        "summary": " / ".join(dict.fromkeys(route.schema.summary for route in routes)),
        "responses": {"2XX": _success(routes), "default": _failure(routes)},
    }
    if names := re.findall(r"\{(\w+)(?::\w+)?\}", first.path):
        operation["parameters"] = [_parameter(name) for name in names]
    if body := _body([route.schema for route in routes]):
        operation["requestBody"] = body
    if with_keys and first.access != "public":
        operation["security"] = [{name: []} for name in _SECURITY]
    return operation


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _body(shapes: Sequence[RouteSchema]) -> dict[str, Any] | None:
    if any(shape.raw for shape in shapes):
        return {"required": True, "content": {"application/octet-stream": {}}}
    schemas = [shape.request for shape in shapes if shape.request is not None]
    if not schemas:
        return None
    media = "multipart/form-data" if any(shape.form for shape in shapes) else "application/json"
    return {"required": True, "content": {media: {"schema": _any_of(schemas)}}}


def _success(routes: Sequence[HttpRoute]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    complete = [route.schema.response for route in routes if route.schema.response is not None]
    if complete and routes[0].method != "HEAD":
        texts = all(schema == {"type": "string"} for schema in complete)
        content["text/plain" if texts else "application/json"] = {"schema": _any_of(complete)}
    for route in routes:
        if route.schema.stream is not None:
            content[route.schema.stream] = {}
    return {"description": "Success", **({"content": content} if content else {})}


def _failure(routes: Sequence[HttpRoute]) -> dict[str, Any]:
    """Describe the errors of each API, with an example in its format."""
    replies = [route.error_format.error(Invalid("the reason"), "req_0") for route in routes]
    examples = {
        route.dialect or "operator": {"value": reply.body} for route, reply in zip(routes, replies, strict=True)
    }
    known = [route.error_format.schema or {"type": "object", "required": ["error"]} for route in routes]
    media = {"schema": _any_of(known), "examples": examples}
    content = {} if routes[0].method == "HEAD" else {"content": {"application/json": media}}
    return {"description": "An error, in the format of the API", **content}


def _any_of(schemas: Sequence[Any]) -> Any:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
