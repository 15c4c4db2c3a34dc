"""The queue of requests that wait for a place, found by id and by model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from mullama.struct import Struct


class QueuedRequest(Struct, kw_only=True):
    id: int
    model: str
    priority: int
    since: float
    alone: bool = False
    order: int = 0
    """Its place in the order of arrival."""


class WaitingQueue:
    """The waiting requests. Iteration is in order of arrival, also within one model."""

    def __init__(self) -> None:
        self._by_id: dict[int, QueuedRequest] = {}
        self._by_model: dict[str, dict[int, QueuedRequest]] = {}
        self._count = 0
        self.alone = 0
        """Number of requests that must run alone."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[QueuedRequest]:
        return iter(self._by_id.values())

    @property
    def models(self) -> Collection[str]:
        """The models that requests wait for."""
        return self._by_model.keys()

    def of(self, model: str) -> Collection[QueuedRequest]:
        """Return the requests that wait for this model."""
        found = self._by_model.get(model)
        return found.values() if found else ()

    def oldest(self, model: str) -> QueuedRequest:
        """Return the first request of a model that one waits for."""
        return next(iter(self._by_model[model].values()))

    def add(self, request: QueuedRequest) -> None:
        self._count += 1
        request.order = self._count
        self._by_id[request.id] = request
        self._by_model.setdefault(request.model, {})[request.id] = request
        self.alone += request.alone

    def remove(self, id: int) -> QueuedRequest | None:
        """Remove a request and return it; None if it does not wait."""
        request = self._by_id.pop(id, None)
        if request is None:
            return None
        queue = self._by_model[request.model]
        del queue[id]
        if not queue:
            del self._by_model[request.model]
        self.alone -= request.alone
        return request

    def take(self, selected: Callable[[QueuedRequest], bool]) -> list[QueuedRequest]:
        """Remove the selected requests and return them."""
        found = [request for request in self if selected(request)]
        for request in found:
            self.remove(request.id)
        return found

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Give the requests of renamed models the new names."""
        for request in self:
            request.model = new_name(request.model)
        self._by_model = {}
        for request in self:
            self._by_model.setdefault(request.model, {})[request.id] = request
