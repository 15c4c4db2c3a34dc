"""The OpenAPI document of what is served, made from the routes themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def document(routes: Iterable[object], enabled: Collection[str], version: str) -> dict[str, object]:
    return {"openapi": "3.1.0", "info": {"title": "mullama", "version": version}, "paths": {}}
