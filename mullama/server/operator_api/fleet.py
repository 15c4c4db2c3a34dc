"""The operator API's part for fleets: the lease of the controller that changes this host."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.dialects.base import Reply
from mullama.runtime.base import Operator
from mullama.server.http.body import BodyBudget
from mullama.server.http.exchange import Exchange
from mullama.server.http.limits import Bounds
from mullama.server.operator_api import requests
from mullama.server.operator_api.api import operator_route, read_object
from mullama.server.route_table import HttpRoute
from mullama.struct import Struct

Params = Mapping[str, str]


class FleetApi(Struct, frozen=True, kw_only=True):
    """The handlers, each a few lines over `Operator`."""

    operator: Operator
    pool: BodyBudget
    bounds: Bounds

    def routes(self) -> list[HttpRoute]:
        """Return the routes, each with its class of access."""
        return [
            operator_route("GET", "/api/v1/fleet/lease", "read", self._lease),
            operator_route("PUT", "/api/v1/fleet/lease", "admin", self._take),
            operator_route("DELETE", "/api/v1/fleet/lease", "admin", self._release),
        ]

    async def _lease(self, exchange: Exchange, _: Params) -> None:
        await exchange.reply(Reply(body=self.operator.leases.tree()))

    async def _take(self, exchange: Exchange, _: Params) -> None:
        body = await read_object(exchange, self.pool, self.bounds, {"holder", "fleet", "seconds", "fence"})
        await exchange.reply(Reply(body=await self.operator.leases.take(requests.read_lease(body))))

    async def _release(self, exchange: Exchange, _: Params) -> None:
        body = await read_object(exchange, self.pool, self.bounds, {"holder"})
        await exchange.reply(Reply(body=await self.operator.leases.release(requests.read_holder(body))))
