"""The operator API: health, metrics, status, plan and apply, history, events."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from mullama.dialects.base import Reply
from mullama.errors import Conflict, Invalid, NotFound, masked_tree
from mullama.offload import compute
from mullama.runtime.base import UNDO, ApplyOptions, Operator, Service, TextEdit
from mullama.server.http.body import BodyBudget, parse_body, read_body
from mullama.server.http.exchange import OPERATOR, Exchange, Rejection
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.operator_api import requests
from mullama.server.operator_api.schema import SCHEMAS
from mullama.server.route_table import AccessClass, Handler, HttpRoute
from mullama.server.streams import follow, report
from mullama.struct import Struct, replace

Params = Mapping[str, str]

PUBLIC_PATHS = ("/livez", "/readyz", "/healthz", "/health", "/v1/health", "/metrics", "/openapi.json", "/ui")
_BODY_LIMIT = 8 * 1024 * 1024  # bytes: a manifest with its templates


def operator_route(method: str, path: str, access: AccessClass, handler: Handler) -> HttpRoute:
    """Return a route of the operator API with its schema."""
    return HttpRoute(
        method=method,
        path=path,
        access=access,
        handler=handler,
        error_format=OPERATOR,
        schema=SCHEMAS[method, path],
        answers_early=True,
    )


class OperatorApi(Struct, frozen=True, kw_only=True):
    """The handlers of the operator API, each a few lines over `Operator`."""

    service: Service
    operator: Operator
    pool: BodyBudget
    inflight: Inflight
    bounds: Bounds
    document: Callable[[], dict[str, object]]

    def routes(self) -> list[HttpRoute]:
        """Return the routes, each with its class of access."""
        table: tuple[tuple[str, str, AccessClass, Handler], ...] = (
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
            ("GET", "/api/v1/history/diff", "read", self._compare_revisions),
            ("GET", "/api/v1/events", "read", self._events),
            ("GET", "/api/v1/live", "read", self._live),
            ("GET", "/api/v1/models/{name:path}", "read", self._model),
            ("GET", "/api/v1/requests", "admin", self._captures),
            ("GET", "/api/v1/requests/events", "admin", self._follow_captures),
            ("GET", "/api/v1/requests/{id}", "admin", self._capture),
            ("GET", "/api/v1/manifest", "admin", self._manifest_text),
            ("POST", "/api/v1/manifest/plan", "admin", self._plan_text),
            ("PUT", "/api/v1/manifest", "admin", self._save_text),
            ("POST", "/api/v1/plan", "read", self._plan),
            ("PUT", "/api/v1/stack", "admin", self._apply),
            ("GET", "/api/v1/drift", "read", self._drift),
            ("POST", "/api/v1/refresh", "admin", self._refresh),
            ("POST", "/api/v1/reload", "admin", self._reload),
            ("GET", "/api/v1/undo", "read", self._plan_undo),
            ("POST", "/api/v1/undo", "admin", self._undo),
            ("POST", "/api/v1/sync", "public", self._sync),
            ("POST", "/api/v1/shutdown", "admin", self._shutdown),
        )
        return [operator_route(*row) for row in table]

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
        """State for load balancers, without details, because it is public; 503 while no request is answered.

        `error` is llama-server's answer, for launchers that wait for it.
        """
        state = self.operator.status()
        models = state.get("models", [])
        loaded = sum(1 for m in models if m.get("state") in ("ready", "loaded"))
        body: dict[str, Any] = {
            "status": "degraded" if state.get("state") == "degraded" else "ok",
            "state": state.get("state"),
            "models": {"declared": len(models), "loaded": loaded},
            "uptime": state.get("uptime"),
        }
        if state.get("state") not in ("starting", "stopping"):
            await exchange.reply(Reply(body=body))
            return
        body["status"] = state["state"]
        message = "Loading model" if state["state"] == "starting" else "the server is stopping"
        body["error"] = {"code": 503, "message": message, "type": "unavailable_error"}
        await exchange.reply(Reply(status=503, body=body, headers={"retry-after": "1"}))

    async def _openapi(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=cast(Any, self.document())))

    async def _metrics(self, exchange: Exchange, _: Params) -> None:
        if not self.service.access().manifest.observability.metrics:
            raise NotFound("metrics are switched off", hint="see observability.metrics")
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        headers["process-start-time-unix"] = str(self.operator.started)
        text = self.operator.metrics(exchange.query.get("model", ""))
        await exchange.reply(Reply(body=text, headers=headers))

    async def _status(self, exchange: Exchange, _: Params) -> None:
        await self.operator.look_at_files()
        await exchange.reply(Reply(body=self.operator.status()))

    async def _summary(self, exchange: Exchange, _: Params) -> None:
        """The status in the short form that monitors of other servers read."""
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
                "memory_used_bytes": int((state.get("memory") or {}).get("used") or 0),
                "memory_total_bytes": int(machine.get("ram_total") or 0),
            },
        }
        await exchange.reply(Reply(body=body))

    async def _stack(self, exchange: Exchange, _: Params) -> None:
        stack = self.operator.stack()
        if exchange.listener.kind != "control":  # commands on this machine need the complete addresses
            stack = masked_tree(stack)
        await exchange.reply(Reply(body=stack, headers={"etag": f'"{stack["revision"]}"'}))

    async def _history(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body={"generations": self.operator.history()}))

    async def _model(self, exchange: Exchange, params: Params) -> None:
        paths = "admin" in exchange.caller.roles
        await exchange.reply(Reply(body=await self.operator.model(params["name"], paths=paths)))

    async def _compare_revisions(self, exchange: Exchange, _: Params) -> None:
        before, after = requests.read_revisions(exchange.query)
        await exchange.reply(Reply(body=await self.operator.compare_revisions(before, after)))

    async def _captures(self, exchange: Exchange, _: Params) -> None:
        chosen = requests.read_filter(exchange.query)
        found = [row for row in self.operator.captures() if all(row[key] == value for key, value in chosen.items())]
        await exchange.reply(Reply(body={"format": "mullama.requests/1", "requests": found}))

    async def _capture(self, exchange: Exchange, params: Params) -> None:
        text = params["id"]
        if not (text.isascii() and text.isdecimal()):
            raise Invalid("the id of a capture is a number", field="id")
        await exchange.reply(Reply(body=self.operator.capture(int(text))))

    async def _follow_captures(self, exchange: Exchange, _: Params) -> None:
        await follow(exchange, self.operator.follow_captures(_after(exchange)), self.inflight, self.bounds)

    async def _plan(self, exchange: Exchange, _: Params) -> None:
        body = await self._body(exchange, {"manifest", "origin", "options"})
        manifest, origin = requests.read_manifest(body), requests.read_origin(body.get("origin"))
        options = requests.read_options(body.get("options"))
        async with self.inflight.track(exchange):
            plan = await self.operator.plan(manifest, origin, options)
        await exchange.reply(Reply(body=plan))

    async def _apply(self, exchange: Exchange, _: Params) -> None:
        body = await self._body(exchange, {"manifest", "origin", "options"})
        options = self._with_precondition(exchange, requests.read_options(body.get("options")))
        options = replace(options, by=options.by or exchange.caller.key or "")
        lines = self.operator.apply(requests.read_manifest(body), requests.read_origin(body.get("origin")), options)
        await report(exchange, lines, self.inflight)

    async def _manifest_text(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=await self.operator.manifest_text()))

    async def _plan_text(self, exchange: Exchange, _: Params) -> None:
        text, profiles = requests.read_text(await self._body(exchange, {"text", "profiles"}))
        async with self.inflight.track(exchange):
            answer = await self.operator.plan_text(text, profiles)
        await exchange.reply(Reply(body=answer))

    async def _save_text(self, exchange: Exchange, _: Params) -> None:
        body = await self._body(exchange, {"text", "digest", "profiles", "allow_empty"})
        (text, profiles), digest = requests.read_text(body), requests.read_digest(body)
        edit = TextEdit(text=text, digest=digest, profiles=profiles)
        options = requests.read_options({"allow_empty": body.get("allow_empty", False)})
        options = self._with_precondition(exchange, replace(options, by=exchange.caller.key or "page"))
        await report(exchange, self.operator.save_text(edit, options), self.inflight)

    def _with_precondition(self, exchange: Exchange, options: ApplyOptions) -> ApplyOptions:
        """Add the revision of If-Match to the options.

        It is checked here for a 412, and the fence for a 409; the operator checks both again under its lock.
        """
        self.operator.leases.require(options.fence)
        expected = exchange.headers.get("if-match", "*").strip().removeprefix("W/").strip('"')
        if expected == "*":
            return options
        revision = self.operator.stack()["revision"]
        if expected != revision:
            error = Conflict(
                f"the applied revision is {revision}, not {expected[:80]}",
                hint="plan again against the applied revision",
            )
            raise Rejection(412, error)
        return replace(options, expect=expected)

    async def _drift(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=await self.operator.drift()))

    async def _refresh(self, exchange: Exchange, _: Params) -> None:
        await self._body(exchange, set())
        async with self.inflight.track(exchange):
            plan = await self.operator.refresh()
        await exchange.reply(Reply(body=plan))

    async def _reload(self, exchange: Exchange, _: Params) -> None:
        await self._body(exchange, set())
        async with self.inflight.track(exchange):
            outcome = await self.operator.reload("requested over HTTP")
        await exchange.reply(Reply(body=outcome))

    async def _sync(self, exchange: Exchange, _: Params) -> None:
        with self.pool.share() as share:
            raw = await read_body(exchange, share, limit=_BODY_LIMIT, bounds=self.bounds)
            self.operator.git_notice(raw, exchange.headers)
        await exchange.reply(Reply(status=202, body={"checking": True}))

    async def _plan_undo(self, exchange: Exchange, _: Params) -> None:
        text = exchange.query.get("to")
        if text is not None and not text.isdigit():
            raise Invalid("to must be the number of a revision", field="to")
        await exchange.reply(Reply(body=await self.operator.plan_undo(int(text) if text else None)))

    async def _undo(self, exchange: Exchange, _: Params) -> None:
        body = await self._body(exchange, {"to", "by", "fence", "fleet"})
        by, fence = requests.read_author(body, exchange.caller.key), requests.read_fence(body)
        options = self._with_precondition(exchange, replace(UNDO, by=by, fence=fence))
        to, fleet = requests.read_generation(body), requests.read_step_of_fleet(body)
        await report(exchange, self.operator.undo(to, options, fleet), self.inflight)

    async def _shutdown(self, exchange: Exchange, _: Params) -> None:
        await self._body(exchange, set())
        exchange.close = True
        await exchange.reply(Reply(status=202, body={"stopping": True, "pid": os.getpid()}))
        self.operator.stop()

    async def _events(self, exchange: Exchange, _: Params) -> None:
        await follow(exchange, self.operator.follow(_after(exchange)), self.inflight, self.bounds)

    async def _live(self, exchange: Exchange, _: Params) -> None:
        await follow(exchange, self.operator.live(), self.inflight, self.bounds)

    async def _body(self, exchange: Exchange, allowed: set[str]) -> dict[str, Any]:
        return await read_object(exchange, self.pool, self.bounds, allowed)


async def read_object(exchange: Exchange, pool: BodyBudget, bounds: Bounds, allowed: set[str]) -> dict[str, Any]:
    """Return the object of a body; raise `Invalid` for another value, and for a key that is not allowed."""
    with pool.share() as share:
        raw = await read_body(exchange, share, limit=_BODY_LIMIT, bounds=bounds)
        body = await compute(len(raw), parse_body, raw, bounds.depth)
    tree = {} if body is None else body
    if not isinstance(tree, dict):
        raise Invalid("the body must be a JSON object")
    requests.refuse_unknown(tree, allowed, "the body")
    return tree


def _after(exchange: Exchange) -> int:
    """Return the id after which a follower reads."""
    text = exchange.headers.get("last-event-id") or exchange.query.get("after", "0")
    if not text.isdigit():
        raise Invalid("after must be the number of an event", field="after")
    return int(text)
