"""The order in which a change reaches the hosts of a fleet. Pure.

A wave is a set of hosts that change at the same time, and it begins when the one before has ended:

1. `change`: a host gets its new models and the changed ones, and keeps those that leave it. At most `max_unavailable`
   hosts whose models change are in one wave, and never all hosts of a model that has several. Those of the canary come
   first, one by one.
2. `route`: all gateways send requests to the new places.
3. `remove`: the hosts unload what is elsewhere now.

With `max_surge`, a host whose models would pause while they load again hands them over first: another host gets a
further replica of the new revision, the gateways send the requests there, and the host unloads the model. It changes
then, and the further replica is removed at the end. These waves are `early`: all else stays as it is applied.

So a model that is served before and after the change is served after each wave. Where the old and the new models of a
host do not fit into its memory together, the phases run in rounds, each with the moves that have room by then. If none
has room, as when two full hosts exchange their models, the moves that are left run at once, and requests may wait:
`WaveOrder.pauses` names their models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

from mullama.struct import Struct, field, replace

WaveKind = Literal["change", "route", "remove"]
Pause = float | Literal["manual"]
ModelsByHost = Mapping[str, Collection[str]]


class FleetChange(Struct, frozen=True, kw_only=True):
    """The difference between the applied state of a fleet and the desired one, by the names of hosts."""

    before: ModelsByHost
    """The models that each host has; a renamed one under its new name."""
    after: ModelsByHost
    changed: ModelsByHost = field(default_factory=dict)
    """The models that stay on a host and change."""
    reloaded: ModelsByHost = field(default_factory=dict)
    """Those of `changed` that load again."""
    others: Collection[str] = ()
    """Hosts that change outside of their models and routes."""
    routed: Collection[str] = ()
    """Hosts whose routes change."""
    gateways: Collection[str] = ()
    """Hosts that forward requests for models of other hosts."""


class Wave(Struct, frozen=True, kw_only=True):
    """Hosts that change at the same time."""

    kind: WaveKind
    hosts: tuple[str, ...]
    models: Mapping[str, tuple[str, ...]]
    """The models that each of these hosts has after the wave."""
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The hosts to which gateways send the requests for each model after the wave."""
    early: bool = False
    """Of a surge: the hosts keep the applied revisions of their models, and all blocks but their routes."""
    canary: bool = False
    pause: Pause = 0.0
    """Time before the next wave in seconds, or `manual`."""


class WaveOrder(Struct, frozen=True, kw_only=True):
    """The waves of a change, in their order."""

    waves: tuple[Wave, ...] = ()
    pauses: tuple[str, ...] = ()
    """Models whose requests may wait, because their old and new places have no room at the same time."""
    blocked: tuple[str, ...] = ()
    """Models that would pause, which `max_unavailable: 0` does not allow: no host has room for a further replica."""


class Surge(Struct, frozen=True, kw_only=True):
    """The room for further replicas while models change."""

    most: int = 0
    """The largest number of further replicas of a model."""
    may_have: Callable[[str], Collection[str]] = lambda model: ()
    """Returns the hosts that may have a model."""
    beside: Callable[[str, frozenset[str], frozenset[str]], bool] = lambda host, have, models: False
    """Returns True if a host with `have` has room to load `models` of them again beside the old ones: none pauses."""


NO_SURGE = Surge()


def rollout(
    change: FleetChange,
    *,
    max_unavailable: int = 1,
    surge: Surge = NO_SURGE,
    canary: int = 0,
    pause: Pause = 0.0,
    fits: Callable[[str, frozenset[str]], bool] = lambda host, models: True,
) -> WaveOrder:
    """Return the waves of a change; none if nothing changes.

    max_unavailable, canary, pause: see `fleet.rollout`. A host that is as desired already, and has a model that
    changes elsewhere, counts as a canary of an earlier apply. fits: returns False for models that have no room on a
    host.
    """
    state, blocked = _State(change), set[str]()
    canaries = max(0, canary - len(_earlier_canaries(change)))
    waves: list[Wave] = []
    waiting: set[str] = set()
    disturbed = {host: frozenset(names) for host, names in change.changed.items() if names}
    others, routed = frozenset(change.others), frozenset(change.routed)
    while disturbed or others or routed or state.unfinished:
        added = state.additions(fits)
        if not (added or disturbed or others or routed or state.removable):
            added = state.missing()
            waiting |= {name for names in added.values() for name in names if state.serves(name)}
        groups = _groups({*added, *disturbed, *others}, disturbed, state.after_of, max(1, max_unavailable), canaries)
        first = min(canaries, len(groups) - 1)  # the last group has no others to try it for
        for number, hosts in enumerate(groups, 1):
            pausing = state.pausing(hosts, change.reloaded, surge) if disturbed else {}
            handed = state.hand_over(pausing, surge, fits, added)
            if max_unavailable < 1:
                blocked |= {name for host, names in pausing.items() for name in names - handed.get(host, frozenset())}
            waves.extend(state.early_waves(handed, change.gateways))
            state.add({host: {*added.get(host, ()), *handed.get(host, ())} for host in hosts})
            waves.append(state.wave("change", hosts, canary=number <= first))
            if number == first and pause:
                waves.extend(state.end_surge(change.gateways))
                waves[-1] = replace(waves[-1], pause=pause)
        state.route()
        if added or others or routed or state.removable or state.detoured:
            concerned = {*change.gateways, *added, *disturbed, *others, *routed, *state.removable}
            waves.append(state.wave("route", sorted(concerned)))
        if removed := state.remove():
            waves.append(state.wave("remove", removed))
        canaries, disturbed, others, routed = 0, {}, frozenset(), frozenset()
    return WaveOrder(waves=tuple(waves), pauses=tuple(sorted(waiting)), blocked=tuple(sorted(blocked)))


class _State:
    """The models of the hosts, and the routes of the gateways, between two waves."""

    def __init__(self, change: FleetChange) -> None:
        names = sorted({*change.before, *change.after})
        self._have = {host: set(change.before.get(host, ())) for host in names}
        self._after = {host: frozenset(change.after.get(host, ())) for host in names}
        self.before_of, self.after_of = _hosts_of(change.before), _hosts_of(change.after)
        self._routes = dict(self.before_of)
        self._further: dict[str, set[str]] = {}
        """The hosts with a further replica of a model, by the model."""
        self._new_further: dict[str, set[str]] = {}
        """The further replicas that no wave has brought yet, by the host."""
        self.detoured = False
        """True while requests go to further replicas."""

    @property
    def unfinished(self) -> bool:
        return any(have != self._after[host] for host, have in self._have.items())

    @property
    def removable(self) -> dict[str, frozenset[str]]:
        """The models that each host no longer needs: removed ones, and those that requests find elsewhere."""
        found: dict[str, frozenset[str]] = {}
        for host, have in self._have.items():
            gone = (name for name in have - self._after[host] if name not in self.after_of or self._is_moved(name))
            if names := frozenset(gone):
                found[host] = names
        return found

    def _is_moved(self, name: str) -> bool:
        return all(name in self._have[host] for host in self.after_of[name])

    def serves(self, name: str) -> bool:
        return name in self.before_of

    def missing(self) -> dict[str, tuple[str, ...]]:
        """Return the models that each host still lacks."""
        lacks = ((host, tuple(sorted(self._after[host] - have))) for host, have in self._have.items())
        return {host: names for host, names in lacks if names}

    def additions(self, fits: Callable[[str, frozenset[str]], bool]) -> dict[str, tuple[str, ...]]:
        """Return the models that each host lacks and has room for, beside those that it has."""
        found: dict[str, tuple[str, ...]] = {}
        for host, names in self.missing().items():
            have = frozenset(self._have[host])
            chosen: list[str] = []
            for name in names:
                if fits(host, have | {*chosen, name}):
                    chosen.append(name)
            if chosen:
                found[host] = tuple(chosen)
        return found

    def pausing(self, hosts: Collection[str], reloaded: ModelsByHost, surge: Surge) -> dict[str, frozenset[str]]:
        """Return the models of some hosts that pause when they load again."""
        found = {}
        for host in hosts:
            names = frozenset(reloaded.get(host, ())) & self._have.get(host, set())
            if names and not surge.beside(host, frozenset(self._have[host]), names):
                found[host] = names
        return found

    def hand_over(
        self, pausing: Mapping[str, frozenset[str]], surge: Surge, fits: Callable[[str, frozenset[str]], bool],
        added: ModelsByHost,
    ) -> dict[str, frozenset[str]]:  # fmt: skip
        """Add further replicas on hosts that do not change now, and return the models that they take over by host.

        added: the models that hosts get in this round, which need their room.
        """
        handed: dict[str, set[str]] = {}
        for name in sorted({name for names in pausing.values() for name in names}):
            leaving = sorted(host for host, names in pausing.items() if name in names)
            having = self._further.setdefault(name, set())
            free = sorted(
                (host for host in surge.may_have(name) if host in self._have and host not in pausing),
                key=lambda host: (len(self._have[host]), host),
            )
            for host in free:
                if len(having) >= min(surge.most, len(leaving)):
                    break
                known = name in self._have[host] or name in self._after[host]
                if not known and fits(host, frozenset({*self._have[host], *added.get(host, ()), name})):
                    having.add(host)
                    self._have[host].add(name)
                    self._new_further.setdefault(host, set()).add(name)
            for host in leaving[: len(having)]:
                handed.setdefault(host, set()).add(name)
        return {host: frozenset(names) for host, names in handed.items()}

    def early_waves(self, handed: ModelsByHost, gateways: Collection[str]) -> Iterator[Wave]:
        """Yield the waves that bring further replicas, send the requests to them, and unload the handed models."""
        if self._new_further:
            yield self.wave("change", sorted(self._new_further), early=True)
            self._new_further = {}
        if handed:
            self.route(handed)
            yield self.wave("route", sorted({*gateways, *handed}), early=True)
            for host, names in handed.items():
                self._have[host] -= set(names)
            yield self.wave("remove", sorted(handed), early=True)

    def end_surge(self, gateways: Collection[str]) -> Iterator[Wave]:
        """Yield the waves that send the requests to the changed hosts, and remove the further replicas."""
        having = self._end_further()
        if having:
            self.route()
            yield self.wave("route", sorted({*gateways, *having}), early=True)
            for host, names in having.items():
                self._have[host] -= names
            yield self.wave("remove", sorted(having), early=True)

    def _end_further(self) -> dict[str, set[str]]:
        """Forget the further replicas, and return them by host."""
        found: dict[str, set[str]] = {}
        for name, hosts in self._further.items():
            for host in hosts:
                found.setdefault(host, set()).add(name)
        self._further = {}
        return found

    def add(self, models: ModelsByHost) -> None:
        for host, names in models.items():
            self._have.setdefault(host, set()).update(names)

    def route(self, handed: ModelsByHost | None = None) -> None:
        """Send the requests for each model to its new places as far as they have it, else to the old ones.

        handed: the models of hosts that further replicas take over; without them, these get no requests.
        """
        handed = handed or {}
        self.detoured = bool(handed)
        routes = {}
        for name, hosts in self.after_of.items():
            ready = tuple(host for host in hosts if name in self._have[host] and name not in handed.get(host, ()))
            if handed:
                ready = (*ready, *sorted(self._further.get(name, ())))
            if ready := ready or self._routes.get(name, ()):
                routes[name] = ready
        self._routes = routes

    def remove(self) -> list[str]:
        """Remove what the hosts no longer need, and return these hosts."""
        gone = self.removable
        for host, names in gone.items():
            self._have[host] -= names
        return sorted(gone)

    def wave(self, kind: WaveKind, hosts: Sequence[str], *, canary: bool = False, early: bool = False) -> Wave:
        models = {host: tuple(sorted(self._have.get(host, ()))) for host in hosts}
        return Wave(kind=kind, hosts=tuple(hosts), models=models, routes=dict(self._routes), canary=canary, early=early)


def _hosts_of(models: ModelsByHost) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for host in sorted(models):
        for name in models[host]:
            found.setdefault(name, []).append(host)
    return {name: tuple(hosts) for name, hosts in found.items()}


def _earlier_canaries(change: FleetChange) -> list[str]:
    """Return the hosts that are as desired, and that show the new state of what changes on others."""
    new = {name for host, names in change.after.items() for name in set(names) - set(change.before.get(host, ()))}
    touched = new | {name for names in change.changed.values() for name in names}
    busy = {host for host in {*change.before, *change.after} if _changes(change, host)}
    return [h for h, names in change.after.items() if h not in busy and (change.others or touched & set(names))]


def _changes(change: FleetChange, host: str) -> bool:
    moved = set(change.before.get(host, ())) != set(change.after.get(host, ()))
    return moved or bool(change.changed.get(host)) or host in change.others


def _groups(
    hosts: Collection[str],
    disturbed: Mapping[str, frozenset[str]],
    hosts_of: Mapping[str, Collection[str]],
    most: int,
    canaries: int,
) -> list[list[str]]:
    """Return the hosts in groups that change together: single ones as canaries, then groups with few disturbed hosts.

    hosts_of: the hosts of each model after the change.
    """
    order = sorted(hosts, key=lambda host: (host not in disturbed, host))
    groups = [[host] for host in order[:canaries]]
    rest = order[canaries:]
    calm = [host for host in rest if host not in disturbed]
    open_groups = list(_disturbed_groups([host for host in rest if host in disturbed], disturbed, hosts_of, most))
    if not open_groups and calm:
        open_groups = [[]]
    if open_groups:
        open_groups[0] = sorted([*open_groups[0], *calm])
    return [*groups, *open_groups]


def _disturbed_groups(
    hosts: Sequence[str], disturbed: Mapping[str, frozenset[str]], hosts_of: Mapping[str, Collection[str]], most: int
) -> Iterator[list[str]]:
    """Yield groups of at most `most` hosts that have no complete set of the hosts of a model with several."""
    left = list(hosts)
    while left:
        group: list[str] = []
        taken: dict[str, int] = {}
        for host in left:
            names = disturbed[host]
            alone = any(1 < len(hosts_of.get(name, ())) <= taken.get(name, 0) + 1 for name in names)
            if len(group) < most and (not group or not alone):
                group.append(host)
                for name in names:
                    taken[name] = taken.get(name, 0) + 1
        left = [host for host in left if host not in group]
        yield group
