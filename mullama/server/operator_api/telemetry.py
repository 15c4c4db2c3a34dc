"""The operator API's records: metrics of the last hour, usage, and API keys."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mullama.dialects.base import Reply
from mullama.runtime.base import Operator
from mullama.server.http.exchange import Exchange
from mullama.server.operator_api import requests
from mullama.server.operator_api.api import operator_route
from mullama.server.route_table import HttpRoute
from mullama.struct import Struct

Params = Mapping[str, str]


class TelemetryApi(Struct, frozen=True, kw_only=True):
    """The handlers, each a few lines over `Operator`."""

    operator: Operator

    def routes(self) -> list[HttpRoute]:
        """Return the routes, each with its class of access."""
        return [
            operator_route("GET", "/api/v1/usage", "read", self._usage),
            operator_route("GET", "/api/v1/metrics/history", "read", self._metrics_history),
            operator_route("GET", "/api/v1/keys", "admin", self._keys),
        ]

    async def _metrics_history(self, exchange: Exchange, _: Params) -> None:
        query = requests.read_metrics_query(exchange.query, time.time())
        await exchange.reply(Reply(body=self.operator.metrics_history(query)))

    async def _keys(self, exchange: Exchange, _: Params) -> None:
        requests.refuse_unknown(exchange.query, (), "the query")
        await exchange.reply(Reply(body={**await self.operator.key_report(), "own": exchange.caller.key}))

    async def _usage(self, exchange: Exchange, _: Params) -> None:
        now = time.time()
        query = requests.read_usage(exchange.query, now)
        rows: list[Any] = await self.operator.usage(query)
        body: dict[str, Any] = {
            "format": "mullama.usage/1",
            "since": query.since,
            "until": now,
            "by": list(query.by),
            "rows": rows,
        }
        await exchange.reply(Reply(body=body))
