"""The operator API's way to new models: the hub, and entries for the text of a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.dialects.base import Reply
from mullama.offload import compute
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


class DiscoveryApi(Struct, frozen=True, kw_only=True):
    """The handlers. They are for administrators: the server asks the hub with its own token."""

    operator: Operator
    pool: BodyBudget
    inflight: Inflight
    bounds: Bounds

    def routes(self) -> list[HttpRoute]:
        """Return the routes, each with its class of access."""
        return [
            operator_route("GET", "/api/v1/hub/search", "admin", self._search),
            operator_route("GET", "/api/v1/hub/repository", "admin", self._repository),
            operator_route("POST", "/api/v1/manifest/entry", "admin", self._entry),
        ]

    async def _search(self, exchange: Exchange, _: Params) -> None:
        query, limit, every = requests.read_search(exchange.query)
        async with self.inflight.track(exchange):
            found = await self.operator.search_hub(query, limit=limit, every=every)
        body: dict[str, Any] = {"format": "mullama.search/1", "results": found}
        await exchange.reply(Reply(body=body))

    async def _repository(self, exchange: Exchange, _: Params) -> None:
        source, context, profile = requests.read_advice_query(exchange.query)
        async with self.inflight.track(exchange):
            found = await self.operator.hub_advice(source, context=context, profile=profile)
        await exchange.reply(Reply(body=found))

    async def _entry(self, exchange: Exchange, _: Params) -> None:
        from mullama.manifest.load.insertion import insert_entry

        body = await read_object(exchange, self.pool, self.bounds, {"text", "path", "value"})
        text, path, value = requests.read_entry(body)
        await exchange.reply(Reply(body={"text": await compute(len(text), insert_entry, text, path, value)}))
