"""Which route serves a method and path: one table over all dialects and the operator's API."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from mullama.names import JSONValue
from mullama.server.exchange import Exchange, Voice

Class = Literal["public", "infer", "admin", "read"]
Serve = Callable[[Exchange, Mapping[str, str]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a route takes and gives, as JSON schemas, for the API document.

    stream: the media type of the answer when it comes in pieces; with `response` None it always does.
    raw: the body is bytes.
    """

    summary: str = ""
    request: JSONValue = None
    response: JSONValue = None
    stream: str | None = None
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path. `dialect` is None for the operator's API, which is always there.

    access is the class that the guard checks. when: for a path that two dialects share, whether these
    request headers mean this one. shape: what the API document is made of.
    """

    method: str
    path: str
    access: Class
    serve: Serve
    voice: Voice
    dialect: str | None = None
    when: Callable[[Mapping[str, str]], bool] | None = None
    shape: Shape = Shape()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All routes of the path that was asked for, and what its variable parts hold."""

    routes: tuple[Route, ...]
    params: Mapping[str, str]

    def narrowed(self, dialects: Collection[str]) -> Found:
        """Without the routes of dialects that are switched off."""
        kept = tuple(r for r in self.routes if r.dialect is None or r.dialect in dialects)
        return Found(routes=kept, params=self.params)

    @property
    def methods(self) -> tuple[str, ...]:
        said = {route.method for route in self.routes} | {"OPTIONS"}
        return tuple(sorted(said | ({"HEAD"} if "GET" in said else set())))

    def pick(self, method: str, headers: Mapping[str, str]) -> Route | None:
        """The route for this method; HEAD is served by GET where it has no route of its own."""
        of_method = [r for r in self.routes if r.method == method]
        if not of_method and method == "HEAD":
            of_method = [r for r in self.routes if r.method == "GET"]
        meant = [r for r in of_method if r.when is not None and r.when(headers)]
        plain = [r for r in of_method if r.when is None]
        return next(iter(meant or plain or of_method), None)


class Table:
    """Deny by default: a route without a class of access is a mistake found when the server is made."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        by_path: dict[str, list[Route]] = {}
        for route in self.routes:
            if route.access not in get_args(Class):
                raise ValueError(f"{route.method} {route.path} has no class of access")
            by_path.setdefault(route.path, []).append(route)
        self._fixed = {path: tuple(r) for path, r in by_path.items() if "{" not in path}
        variable = sorted((p for p in by_path if "{" in p), key=_literal, reverse=True)
        self._variable = [(_pattern(path), tuple(by_path[path])) for path in variable]

    def find(self, path: str) -> Found | None:
        fixed = self._fixed.get(path)
        if fixed is not None:
            return Found(routes=fixed, params={})
        for pattern, routes in self._variable:
            if match := pattern.fullmatch(path):
                return Found(routes=routes, params=match.groupdict())
        return None


def _literal(path: str) -> int:
    """How much of a path is fixed: the longest fixed part wins where several match."""
    return len(re.sub(r"\{[^}]*\}", "", path))


def _pattern(path: str) -> re.Pattern[str]:
    """`{name}` is one part of a path, `{name:path}` all that is left of it."""
    pieces = re.split(r"\{(\w+)(:path)?\}", path)  # fixed, name, kind, fixed, name, kind, …, fixed
    made = re.escape(pieces[0])
    for name, kind, fixed in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        made += f"(?P<{name}>{'.*' if kind else '[^/]+'})" + re.escape(fixed)
    return re.compile(made)
