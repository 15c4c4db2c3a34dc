"""The HTTP application: each request passes the checks of host, origin, path and key before its handler."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Collection, Mapping
from functools import partial

import mullama
from mullama.dialects import dialect_for
from mullama.dialects.base import Dialect, Reply
from mullama.errors import Denied, Internal, Invalid, MullamaError, NotFound, Unavailable
from mullama.names import HUB_ENDPOINT_HEADER, HUB_TOKEN_HEADER
from mullama.runtime.base import Access, Caller, Operator, Service, Tracer
from mullama.runtime.peers.hops import HOPS, hops_of
from mullama.server import guard, log, outside
from mullama.server.background_runs import BackgroundRuns
from mullama.server.endpoints import Endpoints
from mullama.server.http.body import BodyBudget
from mullama.server.http.exchange import (
    OPERATOR,
    ClientDisconnected,
    ErrorFormat,
    Exchange,
    Receive,
    Rejection,
    Scope,
    Send,
)
from mullama.server.http.limits import DEFAULT, Bounds
from mullama.server.inflight import Inflight
from mullama.server.keys import Failures, find_key, key_of_digest, may
from mullama.server.log_book import LogBook
from mullama.server.mcp_route import McpRoute
from mullama.server.openapi import document
from mullama.server.operator_api import api as operator_api
from mullama.server.operator_api.blobs import BlobApi
from mullama.server.operator_api.discovery import DiscoveryApi
from mullama.server.operator_api.fleet import FleetApi
from mullama.server.operator_api.logs import LogApi
from mullama.server.operator_api.telemetry import TelemetryApi
from mullama.server.route_table import HttpRoute, Path, RouteTable
from mullama.server.sessions import Sessions
from mullama.server.stored_answers import StoredAnswers
from mullama.server.stream_keeper import StreamKeeper
from mullama.server.tracing import context_of, span_of
from mullama.server.web_page import WebPage
from mullama.sources.settings import HubSettings, Requester, requester
from mullama.trace_context import RequestTrace, begin
from mullama.web import DIST

_log = logging.getLogger(__name__)


def create_app(
    service: Service,
    operator: Operator,
    dialects: Mapping[str, Dialect],
    bounds: Bounds = DEFAULT,
    version: str = mullama.__version__,
    kept: StreamKeeper | None = None,
    tracer: Tracer | None = None,
    log_book: LogBook | None = None,
) -> App:
    """Return the application over one runtime.

    dialects: by their names in the manifest. kept: the streams that clients may take up again. tracer: takes the spans
    of requests; None for no export. log_book: has the kept lines; None for an empty one.
    """
    if kept is None:
        kept = StreamKeeper(lambda: service.access().manifest.server.resumable, {})
    return App(service, operator, dialects, bounds, version, kept, tracer, log_book or LogBook())


class App:
    """The ASGI application: makes an `Exchange` of each request, finds its route, and answers every error."""

    def __init__(
        self,
        service: Service,
        operator: Operator,
        dialects: Mapping[str, Dialect],
        bounds: Bounds,
        version: str,
        kept: StreamKeeper,
        tracer: Tracer | None,
        log_book: LogBook,
    ) -> None:
        self._service = service
        self._failures = Failures(bounds.failed_keys, time.monotonic)
        self.inflight, self.log_book = Inflight(), log_book
        self._memory = pool = BodyBudget(bounds.body_pool)
        self._runs, self._kept, self._tracer = BackgroundRuns(), kept, tracer
        self.sessions = Sessions(service=service, pool=pool, inflight=self.inflight, bounds=bounds)
        endpoints = Endpoints(
            service=service,
            pool=pool,
            forms=BodyBudget(bounds.form_pool, "the files of the forms in progress use all disk space"),
            inflight=self.inflight,
            bounds=bounds,
            version=version,
            sessions=self.sessions,
            stored=StoredAnswers(service=service, runs=self._runs, inflight=self.inflight, bounds=bounds),
            kept=kept,
        )
        own = operator_api.OperatorApi(
            service=service,
            operator=operator,
            pool=pool,
            inflight=self.inflight,
            bounds=bounds,
            document=self.document,
        )
        telemetry = TelemetryApi(operator=operator)
        logs = LogApi(operator=operator, book=log_book, inflight=self.inflight, bounds=bounds)
        discovery = DiscoveryApi(operator=operator, pool=pool, inflight=self.inflight, bounds=bounds)
        blobs = BlobApi(operator=operator, inflight=self.inflight)
        fleet = FleetApi(operator=operator, pool=pool, inflight=self.inflight, bounds=bounds)
        self._mcp = McpRoute(app=self, service=service, pool=pool, inflight=self.inflight, bounds=bounds)
        parts = (own, telemetry, logs, discovery, blobs, fleet, WebPage(service, DIST), self._mcp)
        self.routes = (*endpoints.routes(dialects), *(route for part in parts for route in part.routes()))
        self._table = RouteTable(self.routes)
        self._version = version
        # A path that no dialect claims is answered in OpenAI's form: its clients are pointed at arbitrary base paths.
        self._speakers = sorted(dialects.values(), key=lambda d: d.name != "openai")

    def document(self) -> dict[str, object]:
        """Return the OpenAPI document of the routes that are enabled now."""
        access = self._service.access()
        dialects = access.manifest.server.dialects
        enabled = [r for r in self.routes if r.dialect is None or r.dialect in dialects]
        return document(enabled, bool(access.keys), self._version)

    @property
    def followers(self) -> Collection[asyncio.Task[None]]:
        """The requests that have no end of their own."""
        return self.inflight.followers

    def interrupt(self, error: MullamaError) -> None:
        """End every request in progress with this error, in the format of its dialect."""
        self.inflight.interrupt(error)

    async def close(self, drain_seconds: float) -> None:
        """End the work that no request waits for; it may complete within this time."""
        await asyncio.gather(self._runs.close(drain_seconds), self._kept.close(drain_seconds), self._mcp.close())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        exchange = Exchange(scope, receive, send, id=secrets.token_hex(16), error_format=OPERATOR)
        exchange.error_format = self._error_format(exchange)
        access = self._service.access()
        exchange.notes.generation = access.generation
        trace = self._trace(exchange)
        try:
            await self._dispatch(exchange, access)
        except ClientDisconnected:
            exchange.notes.disconnected = True
        except Rejection as rejection:
            await exchange.reject(rejection)
        except MullamaError as error:
            await exchange.fail(error)
        except Exception as error:
            _log.error("request %s failed", exchange.request_id, exc_info=error)
            if exchange.response_started:
                raise
            hint = f"the server's log has the details of request {exchange.request_id}"
            await exchange.fail(Internal("an internal error", hint=hint))
        finally:
            log.request(exchange)
            if trace is not None:
                self._end_trace(trace, exchange)

    def _trace(self, exchange: Exchange) -> RequestTrace | None:
        """Continue or begin a trace, and name the span of the request in the response."""
        exchange.trace = context_of(exchange, self._tracer)
        if exchange.trace is None:
            return None
        exchange.extra["traceresponse"] = exchange.trace.parent
        return begin(exchange.trace)

    def _end_trace(self, trace: RequestTrace, exchange: Exchange) -> None:
        context, tracer = exchange.trace, self._tracer
        trace.end()
        if context is None or not context.sampled or tracer is None or not tracer.active:
            return
        if (span := span_of(exchange, context)) is not None:
            tracer.add(span)

    async def _dispatch(self, exchange: Exchange, access: Access) -> None:
        """Check the request, find its route, and run the route's handler."""
        self._check(exchange, access)
        if guard.is_preflight(exchange):
            exchange.extra |= guard.preflight_headers(exchange.headers)
            await exchange.reply(Reply(status=204))
            return
        found = self._table.find(exchange.method, exchange.path)
        if found is None:
            raise _no_such_path(exchange.path)
        path, params = found[0].enabled(access.manifest.server.dialects), found[1]
        if not path.routes:
            raise _no_such_path(exchange.path)
        if exchange.method == "OPTIONS":
            await exchange.reply(Reply(status=204, headers={"allow": ", ".join(path.methods)}))
            return
        route = path.pick(exchange.method, exchange.headers)
        if route is None:
            raise _method_not_allowed(exchange, path)
        exchange.error_format = route.error_format
        exchange.notes.dialect = route.dialect or "mullama"
        exchange.notes.route = route.path
        exchange.caller = self._authenticate(exchange, access, route)
        exchange.authorized = partial(self._is_authorized, exchange, route)
        requester.set(_requester(exchange))
        if access.generation == 0 and not route.answers_early:
            raise _starting()
        await route.handler(exchange, params)

    def _check(self, exchange: Exchange, access: Access) -> None:
        """Raise for a request that the protocol refused, a foreign host or origin, or a malformed path."""
        settings = access.manifest.server
        exchange.extra |= guard.cors_headers(exchange.headers, settings.cors)
        refusal = (exchange.scope.get("state") or {}).get("refusal")
        if isinstance(refusal, Rejection):
            raise refusal
        local = exchange.scope.get("server")
        names = exchange.listener, str(local[0]) if local else None, settings.allowed_hosts
        guard.check_host(exchange.headers.get("host"), *names)
        guard.check_origin(exchange.headers, settings.cors, own=guard.is_own_page(exchange.headers, *names))
        if any(ord(c) < 32 or ord(c) == 127 for c in exchange.path):
            raise Rejection(400, Invalid("the path holds a control character"), close=True)

    def _authenticate(self, exchange: Exchange, access: Access, route: HttpRoute) -> Caller:
        """Return the caller, or raise `Denied`. The control socket has all rights."""
        dialect, hops = route.dialect or "mullama", hops_of(exchange.headers.get(HOPS))
        if not access.keys or exchange.listener.kind == "control":
            return Caller(
                dialect=dialect, request_id=exchange.request_id, trace=exchange.trace, memory=self._memory, hops=hops
            )
        if route.access == "public":
            return Caller(dialect=dialect, request_id=exchange.request_id, models=(), roles=())
        try:
            key = find_key(exchange.headers, access.keys, exchange.client, self._failures, route.access)
        except Denied:
            exchange.extra["www-authenticate"] = 'Bearer realm="mullama"'
            raise
        exchange.notes.key, exchange.key_digest = key.name, key.sha256
        if not may(key.roles, route.access):
            raise Denied(
                f"the key {key.name!r} may not use {exchange.method} {route.path.replace(':path', '')}",
                hint=f"use a key with the role {route.access}",
                authenticated=True,
            )
        return Caller(
            dialect=dialect,
            request_id=exchange.request_id,
            key=key.name,
            models=key.models,
            roles=key.roles,
            priority=key.priority,
            trace=exchange.trace,
            hops=hops,
            memory=self._memory,
        )

    def _is_authorized(self, exchange: Exchange, route: HttpRoute) -> bool:
        """Return whether the key that a request began with has the rights for its route now."""
        keys = self._service.access().keys
        if not keys or exchange.listener.kind == "control" or route.access == "public":
            return True
        key = key_of_digest(exchange.key_digest, keys)
        return key is not None and may(key.roles, route.access)

    def _error_format(self, exchange: Exchange) -> ErrorFormat:
        """Return the error format of the API that this path belongs to, for paths without a route too."""
        path = exchange.path
        if path.startswith(("/api/v1/", "/ui/")) or path in operator_api.PUBLIC_PATHS or not self._speakers:
            return OPERATOR
        dialect = dialect_for(path, exchange.headers, self._speakers)
        return ErrorFormat(error=dialect.error, id_header=dialect.id_header)


def _starting() -> Unavailable:
    """Return the refusal before the first manifest is applied, when no model and no route has a name yet."""
    return Unavailable("the server is starting: its models are being loaded", hint="try again later", retry_after=1.0)


def _no_such_path(path: str) -> NotFound:
    hint = outside.reason(path) or "/openapi.json lists the endpoints"
    return NotFound(f"there is nothing at {path[:200]!r}", hint=hint)


def _method_not_allowed(exchange: Exchange, path: Path) -> Rejection:
    exchange.error_format = path.routes[0].error_format
    error = Invalid(
        f"{exchange.method} is not served at {exchange.path[:200]!r}",
        hint=f"use {' or '.join(m for m in path.methods if m != 'OPTIONS')}",
    )
    return Rejection(405, error, headers={"allow": ", ".join(path.methods)})


def _requester(exchange: Exchange) -> Requester:
    """Return the author of a request. Only commands over the control socket have a shell whose settings count."""
    if exchange.listener.kind != "control":
        return Requester(public_only=True)
    token, endpoint = (exchange.headers.get(name, "") for name in (HUB_TOKEN_HEADER, HUB_ENDPOINT_HEADER))
    looked = "HF_TOKEN of the command" if token else ""
    return Requester(hub=HubSettings(endpoint=endpoint, token=token, token_from=looked))
