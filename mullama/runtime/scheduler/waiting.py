"""The queue of requests that wait for a place, found by id and by model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from mullama.struct import Struct


class QueuedRequest(Struct, kw_only=True):
    id: int
    model: str
    priority: int
    since: float
    """When it arrived."""
    loading: float = 0.0
    """Seconds of its wait in which its model loaded or was replaced; they do not count as time in the queue."""
    alone: bool = False
    falls_back: bool = False
    order: int = 0
    """Its place in the order of arrival."""


class WaitingQueue:
    """The waiting requests. Iteration is in order of arrival, also within one model."""

    def __init__(self) -> None:
        self._by_id: dict[int, QueuedRequest] = {}
        self._by_model: dict[str, dict[int, QueuedRequest]] = {}
        self._count = 0
        self._loads: dict[str, float] = {}  # models that load or are replaced, and since when requests wait for that
        self.changed: set[str] = set()
        """The models whose first request or whose load ended since the last look at deadlines; see `passes.wake`."""
        self.alone = 0
        """Number of requests that must run alone."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[QueuedRequest]:
        return iter(self._by_id.values())

    @property
    def loading(self) -> Collection[str]:
        """The models of which `note_load` noted that they load."""
        return self._loads.keys()

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
        queue = self._by_model.setdefault(request.model, {})
        queue[request.id] = request
        if len(queue) == 1:
            self.changed.add(request.model)
        self.alone += request.alone

    def remove(self, id: int) -> QueuedRequest | None:
        """Remove a request and return it; None if it does not wait."""
        request = self._by_id.pop(id, None)
        if request is None:
            return None
        queue = self._by_model[request.model]
        if next(iter(queue)) == id:
            self.changed.add(request.model)
        del queue[id]
        if not queue:
            del self._by_model[request.model]
            self._loads.pop(request.model, None)
        self.alone -= request.alone
        return request

    def take(self, selected: Callable[[QueuedRequest], bool]) -> list[QueuedRequest]:
        """Remove the selected requests and return them."""
        found = [request for request in self if selected(request)]
        for request in found:
            self.remove(request.id)
        return found

    def note_load(self, model: str, now: float, *, loads: bool) -> None:
        """Note if a model that requests wait for loads or is replaced now."""
        if loads:
            self._loads.setdefault(model, now)
        elif (begun := self._loads.pop(model, None)) is not None:
            self.changed.add(model)
            for request in self.of(model):
                request.loading += now - max(begun, request.since)

    def rename(self, new_name: Callable[[str], str]) -> None:
        """Give the requests of renamed models the new names."""
        for request in self:
            request.model = new_name(request.model)
        self._by_model = {}
        self._loads = {new_name(model): begun for model, begun in self._loads.items()}
        for request in self:
            self._by_model.setdefault(request.model, {})[request.id] = request
