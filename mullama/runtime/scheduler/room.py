"""The memory and the places of groups that units take, and the closes that make room for one. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from mullama.runtime.scheduler.events import GroupBound, UnitKey
from mullama.runtime.scheduler.state import Phase, State, Unit, WorkerState
from mullama.struct import Struct, field


class Amounts(Struct, frozen=True):
    """Bytes on each device, and in main memory by the name ""."""

    places: Counter[str]

    @classmethod
    def of(cls, parts: Iterable[WorkerState | Unit]) -> Amounts:
        places: Counter[str] = Counter()
        for part in parts:
            if part.on:
                places.update(part.on)
            places[""] += part.bytes - sum(part.on.values())
        return cls(places)

    @property
    def total(self) -> int:
        return sum(self.places.values())

    def add(self, other: Amounts, times: int = 1) -> None:
        for place, size in other.places.items():
            self.places[place] += times * size

    def plus(self, other: Amounts) -> Amounts:
        total = Amounts(self.places.copy())
        total.add(other)
        return total


class Lack(Struct):
    """The lack that keeps units from opening."""

    places: set[str] = field(default_factory=set)
    """The devices whose bound is exceeded; "*" is the bound of all devices together."""
    groups: dict[str, GroupBound] = field(default_factory=dict)
    """The full groups by name."""

    def __bool__(self) -> bool:
        return bool(self.places or self.groups)

    def add(self, other: Lack) -> None:
        self.places |= other.places
        self.groups |= other.groups


def used(state: State) -> int:
    """Return the bytes in use on all devices together."""
    return sum(part.bytes for parts in (state.live_workers, state.live_units) for part in parts.values())


def short(state: State, taken: Amounts) -> dict[str, int]:
    """Return the places whose bound this memory exceeds, with the bytes above it; see `Lack.places`."""
    rules = state.rules
    over = {} if rules.budget is None else {"*": taken.total - rules.budget}
    over |= {place: taken.places[place] - bound for place, bound in rules.places.items()}
    return {place: count for place, count in over.items() if count > 0}


def bounds_of(state: State, key: UnitKey) -> Mapping[str, GroupBound]:
    """Return the groups of a unit by name."""
    names, groups_of = state.units[key].names, state.groups_of
    if len(names) == 1:  # the usual case, and most models are in no group or in one
        return {bound.name: bound for bound in groups_of.get(names[0], ())}
    return {bound.name: bound for name in names for bound in groups_of.get(name, ())}


def member(bound: GroupBound, names: tuple[str, ...]) -> str:
    """Return the name under which a unit counts in a group: the old and the new unit of a model have one place."""
    return names[0] if len(names) == 1 else min(name for name in names if name in bound.models)


def shares_group(state: State, key: UnitKey, lack: Lack) -> bool:
    """Return True for a unit that is in one of the full groups."""
    return bool(lack.groups) and not lack.groups.keys().isdisjoint(bounds_of(state, key))


def frees(state: State, key: UnitKey, lack: Lack) -> bool:
    """Return True for a unit whose close frees memory in one of the places, or a place in one of the groups."""
    if "*" in lack.places or shares_group(state, key, lack):
        return True
    if not lack.places:
        return False
    has = Amounts.of([state.units[key], state.workers[key.weights]]).places
    return any(has[place] > 0 for place in lack.places)


class Taken:
    """The memory and the places of groups that are taken now.

    One object serves a whole pass, because counting costs a look at every unit: `opened` and `closed` follow the units
    that the pass opens, or tries to do without.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        starting = state.starting()
        self.units = [*state.live_units, *starting]
        """The units that are not closed, or whose worker starts for them."""
        self._kept_free = frozenset(starting)
        kept_free = (state.units[key] for key in starting)
        self.memory = Amounts.of([*state.live_workers.values(), *state.live_units.values(), *kept_free])
        """The memory of all workers and units that are open, or are being opened or closed, and of the units for which
        a worker starts."""
        self._members: dict[str, defaultdict[str, int]] = {}
        self._units_of = Counter(key.weights for key in self.units)
        self._stopped: tuple[Phase, ...] = (Phase.COLD,)
        for key in self.units:
            self._join(key, 1)

    def copy(self) -> Taken:
        """Return an independent count of the same."""
        made = Taken.__new__(Taken)
        made._state, made.units, made._stopped = self._state, self.units, self._stopped
        made._kept_free = self._kept_free
        made.memory = Amounts(self.memory.places.copy())
        made._members = {name: members.copy() for name, members in self._members.items()}
        made._units_of = self._units_of.copy()
        return made

    def _join(self, key: UnitKey, count: int) -> None:
        names = self._state.units[key].names
        for name, bound in bounds_of(self._state, key).items():
            members = self._members.get(name)
            if members is None:
                members = self._members[name] = defaultdict(int)
            members[member(bound, names)] += count

    def need(self, key: UnitKey) -> Amounts:
        """Return the memory that opening the unit takes."""
        worker, unit = self._state.workers[key.weights], self._state.units[key]
        return Amounts.of([unit, worker] if worker.phase in self._stopped else [unit])

    def beside(self, key: UnitKey) -> Amounts:
        """Return the memory that is taken beside what is kept free for this unit."""
        beside = Amounts(self.memory.places.copy())
        if key in self._kept_free:
            beside.add(Amounts.of([self._state.units[key]]), -1)
        return beside

    def opened(self, key: UnitKey) -> None:
        """Count a unit that opens, and its worker if that is not open yet."""
        self.memory = self.beside(key).plus(self.need(key))
        if key not in self._kept_free:
            self._join(key, 1)
            self._units_of[key.weights] += 1

    def closed(self, key: UnitKey, count: int = 1, keep: str = "") -> None:
        """Count a unit as closed, and its worker with the last unit; with a count of -1, as open again.

        keep: weights whose worker stays.
        """
        before = self._units_of[key.weights]
        self._units_of[key.weights] -= count
        last = 0 in (before, before - count) and key.weights != keep
        unit, worker = self._state.units[key], self._state.workers[key.weights]
        self.memory.add(Amounts.of([unit, worker] if last else [unit]), -count)
        self._join(key, -count)

    def end_closing(self) -> None:
        """Count the units that are being closed as closed, and the workers that stop as stopped."""
        self._stopped = (Phase.COLD, Phase.CLOSING)
        for key in self.units:
            if self._state.units[key].phase is Phase.CLOSING:
                self.closed(key)
        self.memory.add(Amounts.of(w for w in self._state.live_workers.values() if w.phase is Phase.CLOSING), -1)

    def lack(self, key: UnitKey) -> Lack:
        """Return the lack that keeps a unit from opening; an empty one if it fits.

        A place that is short already, such as after a lowered budget, does not keep out a unit that needs none of it.
        """
        lack = Lack(groups=self._full_groups(key))
        if self._state.rules.budget is not None or self._state.rules.places:
            needed = self.need(key)
            exceeded = short(self._state, self.beside(key).plus(needed))
            lack.places = {place for place in exceeded if place == "*" or needed.places[place] > 0}
        return lack

    def _full_groups(self, key: UnitKey) -> dict[str, GroupBound]:
        """Return the groups that have no place for the unit."""
        names = self._state.units[key].names
        full: dict[str, GroupBound] = {}
        for name, bound in bounds_of(self._state, key).items():
            own = member(bound, names)
            if sum(n > 0 and m != own for m, n in self._members.get(name, {}).items()) >= bound.most:
                full[name] = bound
        return full

    def closes_for(self, key: UnitKey, candidates: list[UnitKey]) -> list[UnitKey]:
        """Return the candidates whose close makes the unit fit: the first ones, without those that are not needed.

        Empty if all of them are not enough, because to close them is no use then.
        """
        closes: list[UnitKey] = []
        for candidate in candidates:
            self.closed(candidate, keep=key.weights)
            closes.append(candidate)
            if enough := not self.lack(key):
                break
        else:
            enough = False
        for candidate in reversed(closes[:-1] if enough else []):
            self.closed(candidate, -1, key.weights)
            if self.lack(key):
                self.closed(candidate, keep=key.weights)
            else:
                closes.remove(candidate)
        for candidate in closes:
            self.closed(candidate, -1, key.weights)
        return closes if enough else []


def over_budget(state: State) -> bool:
    """Return True when more is in memory than the budget allows, and nothing is being closed."""
    rules = state.rules
    if rules.budget is None and not rules.places:
        return False
    closing = any(worker.phase is Phase.CLOSING for worker in state.live_workers.values())
    if closing or any(unit.phase is Phase.CLOSING for unit in state.live_units.values()):
        return False
    if not rules.places:  # usual, and looked at after every event
        kept_free = sum(state.units[key].bytes for key in state.starting())
        return rules.budget is not None and used(state) + kept_free > rules.budget
    return bool(short(state, Taken(state).memory))
