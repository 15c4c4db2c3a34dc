"""Which route serves a method and path: Starlette's router over all dialects and the operator's API."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from starlette import routing
from starlette.routing import Router

from mullama.names import JSONValue
from mullama.server.http.asgi import Receive, Scope, Send
from mullama.server.http.exchange import ErrorFormat, Exchange

Class = Literal["public", "infer", "admin", "read"]
Serve = Callable[[Exchange, Mapping[str, str]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSchema:
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
class HttpRoute:
    """One method on one path. `dialect` is None for the operator's API, which is always there.

    access is the class that the guard checks. when: for a path that two dialects share, whether these
    request headers mean this one. shape: what the API document is made of.
    """

    method: str
    path: str
    access: Class
    serve: Serve
    voice: ErrorFormat
    dialect: str | None = None
    when: Callable[[Mapping[str, str]], bool] | None = None
    shape: RouteSchema = RouteSchema()


class Path:
    """All routes of one path, as the endpoint that Starlette's router finds for it."""

    def __init__(self, path: str, routes: Iterable[HttpRoute]) -> None:
        self.path = path
        self.routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over to the application, which put itself and the exchange into the scope."""
        await scope[SERVE](self, scope[EXCHANGE], scope["path_params"])

    def narrowed(self, dialects: Collection[str]) -> Path:
        """Without the routes of dialects that are switched off."""
        return Path(self.path, (r for r in self.routes if r.dialect is None or r.dialect in dialects))

    @property
    def methods(self) -> tuple[str, ...]:
        said = {route.method for route in self.routes} | {"OPTIONS"}
        return tuple(sorted(said | ({"HEAD"} if "GET" in said else set())))

    def pick(self, method: str, headers: Mapping[str, str]) -> HttpRoute | None:
        """The route for this method; HEAD is served by GET where it has no route of its own."""
        of_method = [r for r in self.routes if r.method == method]
        if not of_method and method == "HEAD":
            of_method = [r for r in self.routes if r.method == "GET"]
        meant = [r for r in of_method if r.when is not None and r.when(headers)]
        plain = [r for r in of_method if r.when is None]
        return next(iter(meant or plain or of_method), None)


# Where a request's exchange, and what serves it, are found by a `Path`.
EXCHANGE, SERVE = "mullama.exchange", "mullama.serve"


class _ByMethod(routing.Route):
    """One path for its methods alone, so that `/models/load` may be an action of POST and a name that GET asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.path, endpoint=path, methods=path.methods)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Another method is refused by the application, in the words of the path's dialect."""
        await self.app(scope, receive, send)


def router(routes: Iterable[HttpRoute], nowhere: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Router:
    """Starlette's router over one `Path` for each path; what has a fixed part longer comes first.

    Deny by default: a route without a class of access is a mistake found when the server is made.
    """
    by_path: dict[str, list[HttpRoute]] = {}
    for route in routes:
        if route.access not in get_args(Class):
            raise ValueError(f"{route.method} {route.path} has no class of access")
        by_path.setdefault(route.path, []).append(route)
    ordered = sorted(by_path, key=lambda path: ("{" in path, -len(re.sub(r"\{[^}]*\}", "", path))))
    found = [_ByMethod(Path(path, by_path[path])) for path in ordered]
    return Router(routes=found, redirect_slashes=False, default=nowhere)
