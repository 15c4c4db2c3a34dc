"""The OpenAPI document of what is served, made from the routes themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from mullama.errors import Invalid
from mullama.server.routes import HttpRoute, RouteSchema

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_TAGS = {
    "ollama": "What clients of Ollama call",
    "openai": "What clients of OpenAI call, and llama-server's own endpoints",
    "anthropic": "What clients of Anthropic call",
    "operator": "What mullama's own commands call",
}


def document(routes: Iterable[HttpRoute], with_keys: bool, version: str) -> dict[str, Any]:
    """OpenAPI 3.1. Routes of one method and path, which dialects share, become one operation."""
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
    operation: dict[str, Any] = {
        "tags": [route.dialect or "operator" for route in routes],
        "operationId": f"{first.method.lower()}{re.sub(r'[^0-9A-Za-z]+', '_', first.path)}".rstrip("_"),
        "summary": " / ".join(dict.fromkeys(route.shape.summary for route in routes)),
        "responses": {"2XX": _success(routes), "default": _failure(routes)},
    }
    if names := re.findall(r"\{(\w+)(?::\w+)?\}", first.path):
        operation["parameters"] = [_parameter(name) for name in names]
    if body := _body([route.shape for route in routes]):
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
    return {"required": True, "content": {"application/json": {"schema": _any_of(schemas)}}}


def _success(routes: Sequence[HttpRoute]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    whole = [route.shape.response for route in routes if route.shape.response is not None]
    if whole and routes[0].method != "HEAD":
        texts = all(schema == {"type": "string"} for schema in whole)
        content["text/plain" if texts else "application/json"] = {"schema": _any_of(whole)}
    for route in routes:
        if route.shape.stream is not None:
            content[route.shape.stream] = {}
    return {"description": "The answer", **({"content": content} if content else {})}


def _failure(routes: Sequence[HttpRoute]) -> dict[str, Any]:
    """The error's form as the API gives it, and an error that it made itself."""
    replies = [route.voice.error(Invalid("what is wrong"), "req_0") for route in routes]
    examples = {
        route.dialect or "operator": {"value": reply.body} for route, reply in zip(routes, replies, strict=True)
    }
    known = [route.voice.schema or {"type": "object", "required": ["error"]} for route in routes]
    media = {"schema": _any_of(known), "examples": examples}
    content = {} if routes[0].method == "HEAD" else {"content": {"application/json": media}}
    return {"description": "An error, in the words of the API that was called", **content}


def _any_of(schemas: Sequence[Any]) -> Any:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
