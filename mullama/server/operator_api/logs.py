"""The log of the server and of its workers over HTTP, for administrators."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from mullama.dialects.base import Reply
from mullama.errors import Invalid
from mullama.runtime.base import Operator
from mullama.server.http.exchange import Exchange
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight
from mullama.server.log_book import LogBook
from mullama.server.operator_api import requests
from mullama.server.operator_api.api import operator_route
from mullama.server.route_table import HttpRoute
from mullama.server.streams import follow
from mullama.struct import Struct

Params = Mapping[str, str]


class LogApi(Struct, frozen=True, kw_only=True):
    """The handlers over the kept lines."""

    operator: Operator
    book: LogBook
    inflight: Inflight
    bounds: Bounds

    def routes(self) -> list[HttpRoute]:
        """Return the routes, each with its class of access."""
        return [
            operator_route("GET", "/api/v1/logs", "admin", self._read),
            operator_route("GET", "/api/v1/logs/events", "admin", self._follow),
            operator_route("GET", "/api/v1/logs/worker/{name:path}", "admin", self._worker),
        ]

    async def _read(self, exchange: Exchange, _: Params) -> None:
        wanted, most = requests.read_log_query(exchange.query, time.time())
        last = self.book.last  # before the lines, so that a follower after it misses none
        lines = await asyncio.to_thread(self.book.read, wanted, most)
        await exchange.reply(Reply(body={"format": "mullama.logs/1", "last": last, "lines": lines}))

    async def _follow(self, exchange: Exchange, _: Params) -> None:
        """Follow from now on; `?after=` and Last-Event-ID begin behind that line."""
        query = dict(exchange.query)
        text = exchange.headers.get("last-event-id") or query.pop("after", str(self.book.last))
        query.pop("after", None)
        if not (text.isascii() and text.isdecimal()):
            raise Invalid("after must be the id of a line", field="after")
        wanted, _most = requests.read_log_query(query, time.time())
        await follow(exchange, self.book.follow(wanted, int(text)), self.inflight, self.bounds)

    async def _worker(self, exchange: Exchange, params: Params) -> None:
        await exchange.reply(Reply(body=await self.operator.worker_log(params["name"])))
