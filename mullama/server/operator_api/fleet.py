"""The operator API's part for fleets: all hosts at once, the controller's lease, and its record of the rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.codec import to_tree
from mullama.dialects.base import Reply
from mullama.runtime.base import Operator
from mullama.server.http.body import BodyBudget
from mullama.server.http.exchange import Exchange
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.operator_api import requests
from mullama.server.operator_api.api import operator_route, read_object
from mullama.server.route_table import HttpRoute
from mullama.struct import Struct

Params = Mapping[str, str]


class FleetApi(Struct, frozen=True, kw_only=True):
    """The handlers, each a few lines over `Operator`."""

    operator: Operator
    pool: BodyBudget
    inflight: Inflight
    bounds: Bounds

    def routes(self) -> list[HttpRoute]:
        """Return the routes, each with its class of access."""
        return [
            operator_route("GET", "/api/v1/fleet", "read", self._fleet),
            operator_route("GET", "/api/v1/fleet/rollout", "read", self._rollout),
            operator_route("PUT", "/api/v1/fleet/rollout", "admin", self._leave_record),
            operator_route("GET", "/api/v1/fleet/lease", "read", self._lease),
            operator_route("PUT", "/api/v1/fleet/lease", "admin", self._take),
            operator_route("DELETE", "/api/v1/fleet/lease", "admin", self._release),
        ]

    async def _fleet(self, exchange: Exchange, _: Params) -> None:
        requests.refuse_unknown(exchange.query, (), "the query")
        async with self.inflight.track(exchange):
            view = await self.operator.fleet()
        await exchange.reply(Reply(body=view))

    async def _rollout(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=self._record()))

    async def _leave_record(self, exchange: Exchange, _: Params) -> None:
        record = requests.read_rollout(await read_object(exchange, self.pool, self.bounds, requests.ROLLOUT_FIELDS))
        self.operator.leases.require(record.fence)
        await self.operator.rollouts.leave(record)
        await exchange.reply(Reply(body=self._record()))

    def _record(self) -> dict[str, Any]:
        record = self.operator.rollouts.record
        return {"rollout": None if record is None else to_tree(record)}

    async def _lease(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=self.operator.leases.tree()))

    async def _take(self, exchange: Exchange, _: Params) -> None:
        body = await read_object(exchange, self.pool, self.bounds, {"holder", "fleet", "seconds", "fence"})
        await exchange.reply(Reply(body=await self.operator.leases.take(requests.read_lease(body))))

    async def _release(self, exchange: Exchange, _: Params) -> None:
        body = await read_object(exchange, self.pool, self.bounds, {"holder"})
        await exchange.reply(Reply(body=await self.operator.leases.release(requests.read_holder(body))))
