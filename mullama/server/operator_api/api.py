"""The operator's API: health, metrics, and the stack as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from mullama.dialects.base import Reply
from mullama.errors import Conflict, Invalid, NotFound
from mullama.runtime.base import ApplyOptions, Operator, Service
from mullama.server.http.body import BodyBudget, read_json
from mullama.server.http.exchange import OPERATOR, Exchange, Rejection
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.operator_api import requests
from mullama.server.operator_api.schema import SHAPES
from mullama.server.routes import Class, HttpRoute
from mullama.server.streams import follow, report

Params = Mapping[str, str]

PUBLIC_PATHS = ("/livez", "/readyz", "/healthz", "/health", "/v1/health", "/metrics", "/openapi.json")
_STACK_LIMIT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """The handlers, each a few lines over `Operator`."""

    service: Service
    operator: Operator
    pool: BodyBudget
    inflight: Inflight
    bounds: Bounds
    document: Callable[[], dict[str, object]]

    def routes(self) -> list[HttpRoute]:
        table: tuple[tuple[str, str, Class, Callable[[Exchange, Params], Any]], ...] = (
            ("GET", "/", "public", self._root),
            ("GET", "/livez", "public", self._livez),
            ("GET", "/readyz", "public", self._readyz),
            ("GET", "/healthz", "public", self._healthz),
            ("GET", "/health", "public", self._healthz),
            ("GET", "/v1/health", "public", self._healthz),
            ("GET", "/openapi.json", "public", self._openapi),
            ("GET", "/metrics", "read", self._metrics),
            ("GET", "/api/v1/status", "read", self._status),
            ("GET", "/api/system/status", "read", self._summary),
            ("GET", "/status", "read", self._summary),
            ("GET", "/api/v1/stack", "read", self._stack),
            ("GET", "/api/v1/history", "read", self._history),
            ("GET", "/api/v1/events", "read", self._events),
            ("POST", "/api/v1/plan", "admin", self._plan),
            ("PUT", "/api/v1/stack", "admin", self._apply),
            ("POST", "/api/v1/reload", "admin", self._reload),
            ("POST", "/api/v1/undo", "admin", self._undo),
            ("POST", "/api/v1/shutdown", "admin", self._shutdown),
        )
        return [
            HttpRoute(
                method=method,
                path=path,
                access=access,
                serve=serve,
                voice=OPERATOR,
                shape=SHAPES[method, path],
            )
            for method, path, access, serve in table
        ]

    async def _root(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body="mullama is running"))

    async def _livez(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body={"status": "ok"}))

    async def _readyz(self, exchange: Exchange, _: Params) -> None:
        missing = self.operator.missing()
        if missing:
            body: dict[str, Any] = {"ready": False, "missing": list(missing)}
            await exchange.reply(Reply(status=503, body=body, headers={"retry-after": "1"}))
        else:
            await exchange.reply(Reply(body={"ready": True}))

    async def _healthz(self, exchange: Exchange, _: Params) -> None:
        """For people and load balancers: nothing in it that a stranger should not read."""
        state = self.operator.status()
        models = state.get("models", [])
        loaded = sum(1 for m in models if m.get("state") in ("ready", "loaded"))
        body: dict[str, Any] = {
            "status": "degraded" if state.get("state") == "degraded" else "ok",
            "state": state.get("state"),
            "models": {"declared": len(models), "loaded": loaded},
            "uptime": state.get("uptime"),
        }
        await exchange.reply(Reply(body=body))

    async def _openapi(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=cast(Any, self.document())))

    async def _metrics(self, exchange: Exchange, _: Params) -> None:
        if not self.service.access().manifest.observability.metrics:
            raise NotFound("metrics are switched off", hint="see observability.metrics")
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        await exchange.reply(Reply(body=self.operator.metrics(), headers=headers))

    async def _status(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=self.operator.status()))

    async def _summary(self, exchange: Exchange, _: Params) -> None:
        """The status in the short form that monitors look for."""
        state = self.operator.status()
        models = state.get("models", [])
        default = state.get("routes", {}).get("default")
        machine = state.get("machine", {})
        loaded = [m["name"] for m in models if m.get("memory")]
        body: dict[str, Any] = {
            "status": state.get("state"),
            "version": state.get("version"),
            "uptime_secs": int(state.get("uptime") or 0),
            "models_loaded": len(loaded),
            "models": loaded,
            "default_model": default,
            "http_endpoint": next((a for a in state.get("listen", ()) if not a.startswith("unix:")), None),
            "active_requests": sum(int(m.get("active") or 0) for m in models),
            "stats": {
                "active_requests": sum(int(m.get("active") or 0) for m in models),
                "gpu_available": bool(machine.get("gpus")),
                "memory_used_bytes": sum(int(m.get("memory") or 0) for m in models),
                "memory_total_bytes": int(machine.get("ram_total") or 0),
            },
        }
        await exchange.reply(Reply(body=body))

    async def _stack(self, exchange: Exchange, _: Params) -> None:
        stack = self.operator.stack()
        await exchange.reply(Reply(body=stack, headers={"etag": f'"{stack["revision"]}"'}))

    async def _history(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body={"generations": self.operator.history()}))

    async def _plan(self, exchange: Exchange, _: Params) -> None:
        body = await self._body(exchange, {"manifest", "origin", "options"})
        manifest, origin = requests.manifest(body), requests.origin(body.get("origin"))
        options = requests.options(body.get("options"))
        async with self.inflight.lifeline(exchange):
            plan = await self.operator.plan(manifest, origin, options)
        await exchange.reply(Reply(body=plan))

    async def _apply(self, exchange: Exchange, _: Params) -> None:
        body = await self._body(exchange, {"manifest", "origin", "options"})
        options = self._expected(exchange, requests.options(body.get("options")))
        lines = self.operator.apply(requests.manifest(body), requests.origin(body.get("origin")), options)
        await report(exchange, lines, self.inflight)

    def _expected(self, exchange: Exchange, options: ApplyOptions) -> ApplyOptions:
        """If-Match says which revision must be the applied one: checked now, and again by the operator."""
        wanted = exchange.headers.get("if-match", "*").strip().removeprefix("W/").strip('"')
        if wanted == "*":
            return options
        revision = self.operator.stack()["revision"]
        if wanted != revision:
            error = Conflict(
                f"the applied revision is {revision}, not {wanted[:80]}",
                hint="plan again against the stack as it is now",
            )
            raise Rejection(412, error)
        return replace(options, expect=wanted)

    async def _reload(self, exchange: Exchange, _: Params) -> None:
        await self._body(exchange, set())
        async with self.inflight.lifeline(exchange):
            outcome = await self.operator.reload("asked for by request")
        await exchange.reply(Reply(body=outcome))

    async def _undo(self, exchange: Exchange, _: Params) -> None:
        to = requests.generation(await self._body(exchange, {"to"}))
        await report(exchange, self.operator.undo(to), self.inflight)

    async def _shutdown(self, exchange: Exchange, _: Params) -> None:
        await self._body(exchange, set())
        exchange.close = True
        await exchange.reply(Reply(status=202, body={"stopping": True, "pid": os.getpid()}))
        self.operator.stop()

    async def _events(self, exchange: Exchange, _: Params) -> None:
        text = exchange.headers.get("last-event-id") or exchange.query.get("after", "0")
        if not text.isdigit():
            raise Invalid("after must be the number of an event", field="after")
        events = self.operator.follow(int(text))
        await follow(exchange, events, self.inflight, self.bounds)

    async def _body(self, exchange: Exchange, allowed: set[str]) -> dict[str, Any]:
        with self.pool.share() as share:
            body, _ = await read_json(exchange, share, limit=_STACK_LIMIT, bounds=self.bounds)
        tree = {} if body is None else body
        if not isinstance(tree, dict):
            raise Invalid("the body must be a JSON object")
        requests.only(tree, allowed, "the body")
        return tree
