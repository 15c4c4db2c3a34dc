"""The HTTP application: every request passes host, origin, route and key before its handler."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping

import mullama
from mullama.dialects import speaker
from mullama.dialects.base import Dialect, Reply
from mullama.errors import Denied, Internal, Invalid, MullamaError, NotFound
from mullama.runtime.base import Access, Caller, Operator, Service
from mullama.server import guard, log
from mullama.server.endpoints import Endpoints
from mullama.server.http.asgi import Receive, Scope, Send
from mullama.server.http.body import BodyBudget
from mullama.server.http.exchange import OPERATOR, ClientDisconnected, ErrorFormat, Exchange, Rejection
from mullama.server.http.limits import DEFAULT, Bounds
from mullama.server.inflight import Inflight
from mullama.server.keys import Failures, find_key, may
from mullama.server.openapi import document
from mullama.server.operator_api import api as operator_api
from mullama.server.routes import EXCHANGE, SERVE, HttpRoute, Path, router

_log = logging.getLogger(__name__)


def create_app(
    service: Service,
    operator: Operator,
    dialects: Mapping[str, Dialect],
    bounds: Bounds = DEFAULT,
    version: str = mullama.__version__,
) -> App:
    """The application over one runtime. `dialects` are keyed by the manifest's names for them."""
    return App(service, operator, dialects, bounds, version)


class App:
    """An ASGI application; `interrupt` ends what is still running when a drain is over."""

    def __init__(
        self,
        service: Service,
        operator: Operator,
        dialects: Mapping[str, Dialect],
        bounds: Bounds,
        version: str,
    ) -> None:
        self._service = service
        self._dialects = dialects
        self._failures = Failures(bounds.failed_keys, time.monotonic)
        self.inflight = Inflight()
        pool = BodyBudget(bounds.body_pool)
        endpoints = Endpoints(service=service, pool=pool, inflight=self.inflight, bounds=bounds, version=version)
        own = operator_api.Ops(
            service=service,
            operator=operator,
            pool=pool,
            inflight=self.inflight,
            bounds=bounds,
            document=self.document,
        )
        self.routes = (*endpoints.routes(dialects), *own.routes())
        self._router = router(self.routes, self._nowhere)
        self._version = version
        # Clients of OpenAI's API are pointed at any path; whoever gets one wrong is most likely one.
        self._speakers = sorted(dialects.values(), key=lambda d: d.name != "openai")

    def document(self) -> dict[str, object]:
        """The OpenAPI document of what is served now."""
        access = self._service.access()
        dialects = access.manifest.server.dialects
        served = [r for r in self.routes if r.dialect is None or r.dialect in dialects]
        return document(served, bool(access.keys), self._version)

    def interrupt(self, error: MullamaError) -> None:
        """End every request in progress with this error, said in its own dialect."""
        self.inflight.interrupt(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        exchange = Exchange(scope, receive, send, id=secrets.token_hex(16), voice=OPERATOR)
        exchange.voice = self._voice(exchange)
        access = self._service.access()
        exchange.notes.generation = access.generation
        try:
            await self._answer(exchange, access, receive, send)
        finally:
            log.request(exchange)

    async def _answer(self, exchange: Exchange, access: Access, receive: Receive, send: Send) -> None:
        """Every failure that is still sayable becomes an answer; nothing else leaves here."""
        try:
            await self._serve(exchange, access, receive, send)
        except ClientDisconnected:
            exchange.notes.gone = True
        except Rejection as rejection:
            await exchange.reject(rejection)
        except MullamaError as error:
            await exchange.fail(error)
        except Exception as error:
            _log.error("request %s failed", exchange.request_id, exc_info=error)
            if exchange.begun:
                raise
            hint = f"the server's log tells more about request {exchange.request_id}"
            await exchange.fail(Internal("an internal error", hint=hint))

    async def _serve(self, exchange: Exchange, access: Access, receive: Receive, send: Send) -> None:
        self._admit(exchange, access)
        if guard.is_preflight(exchange):
            headers = guard.preflight_headers(exchange.headers)
            await exchange.reply(Reply(status=204, headers=headers))
            return
        exchange.scope[EXCHANGE], exchange.scope[SERVE] = exchange, self._at
        await self._router(exchange.scope, receive, send)

    async def _nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise _nothing_at(scope["path"])

    async def _at(self, path: Path, exchange: Exchange, params: Mapping[str, str]) -> None:
        """Serve a path that exists, if a dialect that is switched on has it."""
        access = self._service.access()
        found = path.narrowed(access.manifest.server.dialects)
        if not found.routes:
            raise _nothing_at(exchange.path)
        if exchange.method == "OPTIONS":
            await exchange.reply(Reply(status=204, headers={"allow": ", ".join(found.methods)}))
            return
        route = found.pick(exchange.method, exchange.headers)
        if route is None:
            raise _not_allowed(exchange, found)
        exchange.voice = route.voice
        exchange.notes.dialect = route.dialect or "mullama"
        exchange.notes.route = route.path
        exchange.caller = self._identify(exchange, access, route)
        await route.serve(exchange, params)

    def _admit(self, exchange: Exchange, access: Access) -> None:
        """What is checked of every request, before anything else is looked at."""
        refusal = (exchange.scope.get("state") or {}).get("refusal")
        if isinstance(refusal, Rejection):
            raise refusal
        settings = access.manifest.server
        local = exchange.scope.get("server")
        guard.check_host(
            exchange.headers.get("host"),
            exchange.listener,
            str(local[0]) if local else None,
            settings.allowed_hosts,
        )
        origin = guard.check_origin(exchange.headers, settings.cors)
        if origin is not None:
            exchange.extra |= guard.cors_headers(origin)
        if any(ord(c) < 32 or ord(c) == 127 for c in exchange.path):
            raise Rejection(400, Invalid("the path holds a control character"), close=True)

    def _identify(self, exchange: Exchange, access: Access, route: HttpRoute) -> Caller:
        """Who asks, once it is clear that they may; the control socket belongs to the operator."""
        dialect = route.dialect or "mullama"
        if not access.keys or exchange.listener.kind == "control":
            return Caller(dialect=dialect, request_id=exchange.request_id)
        if route.access == "public":
            return Caller(dialect=dialect, request_id=exchange.request_id, models=(), roles=())
        try:
            key = find_key(exchange.headers, access.keys, exchange.client, self._failures)
        except Denied:
            exchange.extra["www-authenticate"] = 'Bearer realm="mullama"'
            raise
        exchange.notes.key = key.name
        if not may(key.roles, route.access):
            raise Denied(
                f"the key {key.name!r} has no right to {exchange.method} {route.path}",
                hint=f"it takes a key with the role {route.access}",
                authenticated=True,
            )
        return Caller(
            dialect=dialect,
            request_id=exchange.request_id,
            key=key.name,
            models=key.models,
            roles=key.roles,
            priority=key.priority,
        )

    def _voice(self, exchange: Exchange) -> ErrorFormat:
        """How the API that this path belongs to says an error, also where nothing is served."""
        path = exchange.path
        if path.startswith("/api/v1/") or path in operator_api.PUBLIC_PATHS or not self._speakers:
            return OPERATOR
        dialect = speaker(path, exchange.headers, self._speakers)
        return ErrorFormat(error=dialect.error, id_header=dialect.id_header)


def _nothing_at(path: str) -> NotFound:
    return NotFound(f"there is nothing at {path[:200]!r}", hint="/openapi.json lists what is served")


def _not_allowed(exchange: Exchange, found: Path) -> Rejection:
    exchange.voice = found.routes[0].voice
    error = Invalid(
        f"{exchange.method} is not served at {exchange.path[:200]!r}",
        hint=f"use {' or '.join(m for m in found.methods if m != 'OPTIONS')}",
    )
    return Rejection(405, error, headers={"allow": ", ".join(found.methods)})
