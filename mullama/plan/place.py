"""The placement of models on the hosts of a fleet. Pure and deterministic.

1. A replica stays on its host if that may have it and has room. Of too many replicas, those on the fullest hosts go.
2. A host that is too full gives away as few replicas as possible.
3. Each missing replica gets a host with room, the largest first: the emptiest host (`spread`) or the fullest (`pack`).
4. For a replica that finds no room, one other replica moves away; if that does not help, all are placed anew, the
   largest first, on the fullest hosts. The problem is NP-hard (bin packing), so a placement may exist and not be found.

The result does not depend on the order of the arguments.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf
from typing import Literal

from mullama.struct import Struct, field
from mullama.units import size

Strategy = Literal["spread", "pack"]

_NAMED = 6  # hosts in one message


class HostRoom(Struct, frozen=True, kw_only=True):
    """A host and its memory."""

    name: str
    memory: int | None
    """Bytes that all models may use, on all devices together; None if the host does not report it."""
    kind: str = ""
    """Hosts of one kind need the same memory for a model."""


class MemoryDemand(Struct, frozen=True):
    """The memory of a model on one kind of host."""

    parts: tuple[tuple[str, int], ...] = ()
    """(key, bytes) of the weights and of the context; parts with one key count once on a host. Empty if unknown."""
    fault: str = ""
    """The reason why this kind of host cannot have the model, as a clause; "" if it can."""

    @property
    def total(self) -> int:
        return sum(count for _, count in self.parts)

    @property
    def context(self) -> int:
        """The bytes of the context; all, where the parts are not known."""
        return sum(count for _, count in self.parts[1:]) if len(self.parts) > 1 else self.total


class PlacedModel(Struct, frozen=True, kw_only=True):
    """A model that wants hosts."""

    name: str
    hosts: tuple[str, ...]
    """The hosts that may have it."""
    replicas: int = 1
    stays: bool = True
    """False for a model that is unloaded while it is idle: a host needs room for the largest of these."""
    need: Mapping[str, MemoryDemand] = field(default_factory=dict)
    """Its memory by the kind of host; nothing is known of other kinds."""


class Unplaced(Struct, frozen=True, kw_only=True):
    """A model with fewer hosts than replicas."""

    model: str
    reason: str
    """A sentence with the numbers."""


class FleetPlacement(Struct, frozen=True, kw_only=True):
    """The hosts of each model, by name."""

    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The hosts of each model, in alphabetical order."""
    unplaced: tuple[Unplaced, ...] = ()


def place(
    models: Iterable[PlacedModel],
    rooms: Iterable[HostRoom],
    current: Mapping[str, Iterable[str]],
    strategy: Strategy = "spread",
) -> FleetPlacement:
    """Return the hosts of each model. current: the hosts that have each model now; others than `rooms` are ignored."""
    wanted = sorted(models, key=lambda model: model.name)
    space = sorted(rooms, key=lambda room: room.name)
    work = _Work(space, strategy)
    missing = _keep(work, wanted, current)
    if left := _fill(work, missing):
        left = [model for model in left if not _make_room(work, model)]
    if left:
        anew = _Work(space, "pack")
        if not _fill(anew, [model for model in wanted for _ in range(model.replicas)], current):
            return anew.result(wanted, ())
    short = dict.fromkeys(model.name for model in left)
    reasons = {model.name: work.reason(model) for model in wanted if model.name in short}
    return work.result(wanted, [Unplaced(model=name, reason=reason) for name, reason in reasons.items()])


def fitting(models: Iterable[PlacedModel], rooms: Iterable[HostRoom]) -> Callable[[str, Collection[str]], bool]:
    """Return a function that tells whether models have room on a host together. Unknown ones need none."""
    known, hosts = {model.name: model for model in models}, {room.name: room for room in rooms}

    def fits(host: str, names: Collection[str]) -> bool:
        filled = _Filled(hosts[host])
        for name in sorted(names):
            if name in known:
                filled.put(known[name])
        return filled.free >= 0

    return fits


def beside(
    models: Iterable[PlacedModel], rooms: Iterable[HostRoom]
) -> Callable[[str, Collection[str], Collection[str], Collection[str]], bool]:
    """Return a function that tells whether a host with models has room to load some of them again beside the old ones.

    Its arguments are the host, its models, those that load again, and those of them that keep their weights and get a
    context alone. It returns False where the memory of one of these is not known.
    """
    known, hosts = {model.name: model for model in models}, {room.name: room for room in rooms}

    def has_room(host: str, have: Collection[str], again: Collection[str], contexts: Collection[str]) -> bool:
        filled = _Filled(hosts[host])
        for name in sorted(have):
            if name in known:
                filled.put(known[name])
        needs = {name: filled.demand(known[name]) if name in known else _UNKNOWN for name in again}
        wanted = sum(need.context if name in contexts else need.total for name, need in needs.items())
        return all(need.parts for need in needs.values()) and filled.free >= wanted

    return has_room


class _Filled:
    """A host with the replicas that are placed on it."""

    def __init__(self, room: HostRoom) -> None:
        self.name, self.memory, self.kind = room.name, room.memory, room.kind
        self.models: dict[str, PlacedModel] = {}
        self.used = 0
        self._parts: dict[str, dict[str, int]] = {}  # of the models that stay
        self._brief: dict[str, int] = {}
        self._largest_brief = 0

    @property
    def load(self) -> float:
        """The share of the memory that is used; the bytes on a host of unknown memory."""
        return self.used / self.memory if self.memory else float(self.used)

    @property
    def free(self) -> float:
        return inf if self.memory is None else self.memory - self.used

    def demand(self, model: PlacedModel) -> MemoryDemand:
        return model.need.get(self.kind, _UNKNOWN)

    def may_have(self, model: PlacedModel) -> bool:
        return model.name not in self.models and not self.demand(model).fault

    def added(self, model: PlacedModel) -> int:
        """Return the bytes that a model would add."""
        demand = self.demand(model)
        if not model.stays:
            return max(0, demand.total - self._largest_brief)
        shared = ((count, self._parts[key]) for key, count in demand.parts if key in self._parts)
        return demand.total - sum(min(count, max(holders.values())) for count, holders in shared)

    def fits(self, model: PlacedModel) -> bool:
        return self.memory is None or self.used + self.added(model) <= self.memory

    def put(self, model: PlacedModel) -> None:
        self.used += self.added(model)
        self.models[model.name] = model
        demand = self.demand(model)
        if model.stays:
            for key, count in demand.parts:
                self._parts.setdefault(key, {})[model.name] = count
        else:
            self._brief[model.name] = demand.total
            self._largest_brief = max(self._largest_brief, demand.total)

    def take(self, model: PlacedModel) -> None:
        del self.models[model.name]
        if model.stays:
            for key, _ in self.demand(model).parts:
                del self._parts[key][model.name]
                if not self._parts[key]:
                    del self._parts[key]
        else:
            del self._brief[model.name]
            self._largest_brief = max(self._brief.values(), default=0)
        self.used -= self.added(model)


_UNKNOWN = MemoryDemand()


class _Work:
    """The hosts while models are placed, in the order in which they are preferred."""

    def __init__(self, rooms: Sequence[HostRoom], strategy: Strategy) -> None:
        self.hosts = {room.name: _Filled(room) for room in rooms}
        self._spread = strategy == "spread"
        self._order = sorted(map(self._key, self.hosts.values()))
        self._holders: dict[str, set[str]] = {}
        """The hosts that have each part of models that stay."""
        self._allowed: dict[int, frozenset[str]] = {}

    def put(self, host: _Filled, model: PlacedModel) -> None:
        self._change(host, model, host.put)
        for key, _ in host.demand(model).parts if model.stays else ():
            self._holders.setdefault(key, set()).add(host.name)

    def take(self, host: _Filled, model: PlacedModel) -> None:
        self._change(host, model, host.take)

    def _change(self, host: _Filled, model: PlacedModel, change: Callable[[PlacedModel], None]) -> None:
        del self._order[bisect_left(self._order, self._key(host))]
        change(model)
        insort(self._order, self._key(host))

    def _key(self, host: _Filled) -> tuple[float, float, str]:
        """Return the place of a host in the order: of unknown memory last, and then by name."""
        if self._spread:
            return (inf if host.memory is None else host.load, len(host.models), host.name)
        return (host.free, host.used, host.name)

    def candidates(self, model: PlacedModel) -> Iterator[_Filled]:
        """Yield the hosts that may have a further replica."""
        hosts = (self.hosts[name] for name in model.hosts if name in self.hosts)
        return (host for host in hosts if host.may_have(model))

    def best(self, model: PlacedModel, prefer: Iterable[str] = ()) -> _Filled | None:
        """Return the first host with room in the order; None if no host has room. prefer: hosts that come first."""
        allowed = self.allowed(model)
        preferred = (self.hosts[name] for name in prefer if name in allowed and name in self.hosts)
        if (found := self._first(preferred, model)) is not None:
            return found
        if len(allowed) * 4 < len(self.hosts):  # it is faster to look at each
            return self._first(self.candidates(model), model)
        ordered = (self.hosts[name] for _, _, name in self._from(model) if name in allowed)
        return next((host for host in ordered if host.may_have(model) and host.fits(model)), None)

    def _first(self, hosts: Iterable[_Filled], model: PlacedModel) -> _Filled | None:
        fitting = (host for host in hosts if host.may_have(model) and host.fits(model))
        return min(fitting, key=self._key, default=None)

    def allowed(self, model: PlacedModel) -> frozenset[str]:
        """Return the hosts that may have a model. Many models share one tuple, whose hash takes long."""
        found = self._allowed.get(id(model.hosts))
        if found is None:
            found = self._allowed[id(model.hosts)] = frozenset(model.hosts)
        return found

    def _from(self, model: PlacedModel) -> Iterator[tuple[float, float, str]]:
        """Yield the order without hosts that surely lack room."""
        if self._spread or not model.stays:
            yield from self._order
            return
        # A host with a part of the model has room with fewer free bytes.
        least = min((demand.total for demand in model.need.values()), default=0)
        first = bisect_left(self._order, (least,))
        holders = {name for key in _keys(model) for name in self._holders.get(key, ())}
        yield from sorted(key for key in map(self._key, map(self.hosts.__getitem__, holders)) if key[0] < least)
        yield from islice(self._order, first, None)

    def reason(self, model: PlacedModel) -> str:
        """Return why a model has too few hosts."""
        demands = (host.demand(model) for host in self.hosts.values() if host.name in model.hosts)
        needs = [demand.total for demand in demands if not demand.fault]
        need = size(min(needs), digits=1) if needs else "a host"
        clauses = [self._clause(self.hosts[name], model) for name in sorted(model.hosts) if name in self.hosts]
        more = f" and {len(clauses) - _NAMED} more hosts" if len(clauses) > _NAMED else ""
        where = "; ".join(clauses[:_NAMED]) or "none of those that may have it answers"
        copies = "" if model.replicas == 1 else f" on each of {model.replicas} hosts"
        return f"{model.name} needs {need}{copies}: {where}{more}"

    @staticmethod
    def _clause(host: _Filled, model: PlacedModel) -> str:
        if fault := host.demand(model).fault:
            return f"{host.name}: {fault}"
        if model.name in host.models:
            return f"{host.name} has it"
        assert host.memory is not None  # it has room otherwise
        free = size(max(0, host.memory - host.used), digits=1)
        return f"{host.name} has {free} of {size(host.memory, digits=1)} left"

    def result(self, models: Iterable[PlacedModel], unplaced: Iterable[Unplaced]) -> FleetPlacement:
        found: dict[str, list[str]] = {model.name: [] for model in models}
        for host in self.hosts.values():
            for name in host.models:
                found[name].append(host.name)
        hosts = {name: tuple(names) for name, names in found.items()}
        return FleetPlacement(hosts=hosts, unplaced=tuple(unplaced))


def _keys(model: PlacedModel) -> Iterator[str]:
    return (key for demand in model.need.values() for key, _ in demand.parts)


def _keep(work: _Work, wanted: Sequence[PlacedModel], current: Mapping[str, Iterable[str]]) -> list[PlacedModel]:
    """Place the replicas that can stay, and return a model for each replica that is missing."""
    for model in wanted:
        allowed = work.allowed(model)
        for host in (
            work.hosts[name] for name in current.get(model.name, ()) if name in allowed and name in work.hosts
        ):
            if host.may_have(model):
                work.put(host, model)
    for model in wanted:
        having = [work.hosts[name] for name in current.get(model.name, ()) if name in work.hosts]
        having = [host for host in having if model.name in host.models]
        surplus = max(0, len(having) - model.replicas)
        for host in sorted(having, key=lambda host: (-host.load, host.name))[:surplus]:
            work.take(host, model)
    for host in work.hosts.values():
        while host.free < 0:
            work.take(host, _smallest_that_helps(host))
    have = Counter(name for host in work.hosts.values() for name in host.models)
    return [model for model in wanted for _ in range(model.replicas - have[model.name])]


def _smallest_that_helps(host: _Filled) -> PlacedModel:
    """Return the smallest model whose removal is enough, else the one that frees most."""
    free, full = [], host.used
    for model in sorted(host.models.values(), key=lambda model: model.name):
        host.take(model)
        free.append((full - host.used, model))
        host.put(model)
    enough = [pair for pair in free if pair[0] >= -host.free]
    return min(enough, key=_freed)[1] if enough else max(free, key=_freed)[1]


def _freed(pair: tuple[int, PlacedModel]) -> int:
    return pair[0]


def _fill(
    work: _Work, replicas: Iterable[PlacedModel], prefer: Mapping[str, Iterable[str]] | None = None
) -> list[PlacedModel]:
    """Place replicas, the largest first, and return those that find no room."""
    left = []
    for model in sorted(replicas, key=lambda model: (-_largest(model), len(model.hosts), model.name)):
        host = work.best(model, () if prefer is None else prefer.get(model.name, ()))
        if host is None:
            left.append(model)
        else:
            work.put(host, model)
    return left


def _largest(model: PlacedModel) -> int:
    return max((demand.total for demand in model.need.values()), default=0)


def _make_room(work: _Work, model: PlacedModel) -> bool:
    """Place a replica by one move of another one: the smallest that helps. Return False if no move helps."""
    for host in sorted(work.candidates(model), key=lambda host: (host.load, host.name)):
        others = sorted(host.models.values(), key=lambda other: (host.demand(other).total, other.name))
        for other in others:
            work.take(host, other)
            if host.fits(model):
                work.put(host, model)
                if (goal := work.best(other)) is not None:
                    work.put(goal, other)
                    return True
                work.take(host, model)
            work.put(host, other)
    return False
