"""Stored responses of the Responses API, in memory and bounded, each for the API key that made it."""

from __future__ import annotations

from collections import OrderedDict

from mullama.dialects.base import StoredResponse
from mullama.errors import NotFound
from mullama.runtime.base import Caller

_KEPT = 1000


class ResponseStore:
    """Keeps the responses that were used last."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._items: OrderedDict[tuple[str | None, str], StoredResponse] = OrderedDict()

    def put(self, response: StoredResponse, caller: Caller) -> None:
        self._items[(caller.key, response.id)] = response
        while len(self._items) > self._kept:
            self._items.popitem(last=False)

    def get(self, id: str, caller: Caller) -> StoredResponse:
        found = self._items.get((caller.key, id))
        if found is None:
            raise NotFound(f"response '{id}' not found", hint="the oldest responses are dropped", name=id)
        self._items.move_to_end((caller.key, id))
        return found

    def drop(self, id: str, caller: Caller) -> None:
        self.get(id, caller)
        del self._items[(caller.key, id)]
