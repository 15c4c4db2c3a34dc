"""The routes of the server: the endpoints of all dialects and of the operator API, found by method and path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Literal, get_args

from mullama.names import JSONValue
from mullama.server.http.exchange import ErrorFormat, Exchange
from mullama.struct import Struct

AccessClass = Literal["public", "any", "infer", "admin", "read", "files"]
"""The role that a route needs: `public` needs no key, `any` one of any role."""
Handler = Callable[[Exchange, Mapping[str, str]], Awaitable[None]]


class RouteSchema(Struct, frozen=True, kw_only=True):
    """Request and response of a route as JSON schemas, for the OpenAPI document."""

    summary: str = ""
    request: JSONValue = None
    response: JSONValue = None
    stream: str | None = None
    """The media type of a streamed response; without a `response` it is always streamed."""
    raw: bool = False
    """The request body is bytes."""
    form: bool = False
    """The request body is a form with a file."""


class HttpRoute(Struct, frozen=True, kw_only=True):
    """One method on one path."""

    method: str
    path: str
    """In Starlette's syntax: `{name}` matches one segment, `{name:path}` any number."""
    access: AccessClass
    handler: Handler
    error_format: ErrorFormat
    dialect: str | None = None
    """None for mullama's own API, which needs no enabled dialect."""
    when: Callable[[Mapping[str, str]], bool] | None = None
    """For a path that two dialects share: true when these request headers mean this route."""
    schema: RouteSchema = RouteSchema()
    answers_early: bool = False
    """True for a route that answers before the first manifest is applied. Every other route refuses with 503 then."""


class Path:
    """All routes of one path. `methods` has OPTIONS too, and HEAD wherever there is GET."""

    def __init__(self, path: str, routes: Iterable[HttpRoute]) -> None:
        self.path = path
        self.routes = tuple(routes)
        methods = {route.method for route in self.routes} | {"OPTIONS"}
        self.methods = tuple(sorted(methods | ({"HEAD"} if "GET" in methods else set())))

    def enabled(self, dialects: Collection[str]) -> Path:
        """Return the path without the routes of other dialects than these."""
        return Path(self.path, (r for r in self.routes if r.dialect is None or r.dialect in dialects))

    def pick(self, method: str, headers: Mapping[str, str]) -> HttpRoute | None:
        """Return the route for this method; GET serves HEAD where HEAD has no route of its own."""
        candidates = [r for r in self.routes if r.method == method]
        if not candidates and method == "HEAD":
            candidates = [r for r in self.routes if r.method == "GET"]
        matching = [r for r in candidates if r.when is not None and r.when(headers)]
        unconditional = [r for r in candidates if r.when is None]
        return next(iter(matching or unconditional or candidates), None)


class RouteTable:
    """Finds the path of a request. Paths without parameters precede, then those with the longer fixed part.

    Raises ValueError for a route without a class of access, so that no route is open by mistake.
    """

    def __init__(self, routes: Iterable[HttpRoute]) -> None:
        by_path: dict[str, list[HttpRoute]] = {}
        for route in routes:
            if route.access not in get_args(AccessClass):
                raise ValueError(f"{route.method} {route.path} has no class of access")
            by_path.setdefault(route.path, []).append(route)
        self._plain = {path: Path(path, found) for path, found in by_path.items() if "{" not in path}
        self._patterned = [Path(path, found) for path, found in by_path.items() if "{" in path]

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Path]]:
        """Compiled for the first request that needs them: most requests are for a path without parameters."""
        from starlette.routing import compile_path  # late: a thirtieth of the start of a server

        ordered = sorted(self._patterned, key=lambda one: -len(re.sub(r"\{[^}]*\}", "", one.path)))
        return [(compile_path(one.path)[0], one) for one in ordered]

    def find(self, method: str, path: str) -> tuple[Path, Mapping[str, str]] | None:
        """Return the first matching path that answers the method, else the first matching one, with its parameters.

        `/models/load` can so be an action of POST and, for GET, a value of `/models/{name}`.
        """
        plain = self._plain.get(path)
        if plain is not None and method in plain.methods:
            return plain, {}
        other: tuple[Path, Mapping[str, str]] | None = None if plain is None else (plain, {})
        for pattern, candidate in self._patterns:
            if match := pattern.match(path):
                if method in candidate.methods:
                    return candidate, match.groupdict()
                other = other or (candidate, match.groupdict())
        return other
