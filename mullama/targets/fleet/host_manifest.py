"""The manifest of one host of a fleet. Pure.

A host gets its models, the shared blocks, and, as a gateway, a route for each model of the other hosts under its own
name: so every gateway answers for every model. The blocks of the host itself stay: its addresses and certificate,
and its keys and hardware where the manifest of the fleet has none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache

from mullama.manifest.checks.fleet import gateways_of, lenders_of, present_hosts
from mullama.manifest.spec import (
    Auth,
    Fleet,
    Group,
    Hardware,
    Key,
    Manifest,
    ManifestLock,
    Model,
    Moved,
    Peer,
    Route,
    RouteTarget,
    Search,
    Server,
)
from mullama.manifest.spec.readers import EVERY_ERROR, PEER_SIGN
from mullama.plan.observed import Machine
from mullama.plan.targets import with_pins
from mullama.struct import Struct, field
from mullama.targets.fleet.lenders import (
    hardware_of,
    named_addresses,
    with_addresses,
    with_old_lenders,
    with_own_devices,
)

_MOST_WEIGHT = 1_000_000
_MOST_TARGETS = 64  # of a route


class HostBlocks(Struct, frozen=True, kw_only=True):
    """The blocks of a host that are its own."""

    server: Server = field(default_factory=Server)
    auth: Auth = field(default_factory=Auth)
    hardware: Hardware = field(default_factory=Hardware)
    devices: tuple[str, ...] = ()
    """The names of the devices of the host itself."""
    lenders: frozenset[str] = frozenset()
    """The addresses whose devices its applied models name."""


def own_blocks(applied: Manifest, machine: Machine | None = None) -> HostBlocks:
    """Return the blocks that a host keeps, from its applied manifest."""
    devices = tuple(device.name for device in machine.gpus if not device.host) if machine is not None else ()
    return HostBlocks(
        server=applied.server, auth=applied.auth, hardware=applied.hardware, devices=devices,
        lenders=named_addresses(applied.models.values()),
    )  # fmt: skip


def host_manifest(fleet: Manifest, places: Mapping[str, Sequence[str]], host: str, own: HostBlocks) -> Manifest:
    """Return the manifest of a host. places: the hosts of each model.

    Every text that a host manifest refers to (paths, variables) is that of the fleet, and means a file and a variable
    of the host.
    """
    gateway = host in gateways_of(fleet.fleet)
    declared = {name: model for name, model in fleet.models.items() if host in places.get(name, ())}
    base = fleet.hardware if fleet.hardware != Hardware() else own.hardware
    hardware = hardware_of(base, fleet.fleet, declared.values(), own.lenders)
    models = {name: with_addresses(of_one_host(model), fleet.fleet) for name, model in declared.items()}
    if any(lenders_of(model, fleet.fleet) for model in declared.values()):  # for the models that name them alone
        models = {name: with_own_devices(model, own.devices) for name, model in models.items()}
    routes = dict(_routes(fleet, places, host, gateway=gateway))
    routes = {name: _without_dead_ends(route, models, routes) for name, route in routes.items()}
    used = {name.rpartition(PEER_SIGN)[2] for route in routes.values() for name in _leads_to(route)}
    if fleet.fleet.share:
        used |= set(present_hosts(fleet.fleet)) - {host}
    names = {*models, *routes}
    return fleet.model_copy(
        update={
            "server": fleet.server.model_copy(update={"listen": own.server.listen, "tls": own.server.tls}),
            "auth": _auth(fleet.auth, names, own.auth),
            "hardware": hardware,
            "models": models,
            "lock": _lock(fleet.lock, models, fleet.mcp),
            "groups": _groups(fleet.groups, models),
            "search": _search(fleet.search, models),
            "peers": {**fleet.peers, **_peers(fleet.fleet, used)},
            "routes": routes,
            "moved": _moved(fleet, models, routes),
            "fleet": Fleet(),
            "clients": {},
        }
    )


def with_old_models(applied: Manifest, wanted: Manifest, kept: Collection[str]) -> Manifest:
    """Return the manifest of a host before the gateways know the new places of the models.

    kept: the applied models that leave the host later. The routes are the applied ones, and new names beside them.
    """
    old = {name: model for name, model in applied.models.items() if name in kept and name not in wanted.models}
    models = {**wanted.models, **old}
    routes = {**wanted.routes, **applied.routes}
    pins = _both_pins(applied, wanted, old)
    return _combined(wanted, applied, models, {**wanted.peers, **applied.peers}, routes, pins)


def with_new_routes(applied: Manifest, wanted: Manifest, kept: Collection[str]) -> Manifest:
    """Return the manifest of a host whose models are elsewhere now, before it unloads them. kept: see
    `with_old_models`."""
    old = {name: model for name, model in applied.models.items() if name in kept and name not in wanted.models}
    pins = _both_pins(applied, wanted, old)
    return _combined(wanted, applied, {**wanted.models, **old}, wanted.peers, wanted.routes, pins)


def _both_pins(applied: Manifest, wanted: Manifest, old: Mapping[str, Model]) -> ManifestLock:
    """Return the wanted pins with those of old models. A source of both has the wanted one."""
    pins = with_pins(wanted.lock, applied.lock, old.values())
    return with_pins(pins, wanted.lock, wanted.models.values())


def with_early_routes(
    applied: Manifest, routed: Manifest, models: Mapping[str, Model], lock: ManifestLock
) -> Manifest:  # fmt: skip
    """Return the manifest of a host before its change: as applied, with these models and other routes.

    routed: the manifest with these routes and their peers. lock: has the pins of models that are not applied.
    """
    routes = {n: r for n, r in routed.routes.items() if n not in models or _leads_to(r)[0] == n}
    base = applied.model_copy(update={"routes": routes, "models": dict(models)})
    pins = with_pins(applied.lock, lock, (model for name, model in models.items() if name not in applied.models))
    return _combined(base, applied, models, {**applied.peers, **routed.peers}, routes, pins)


def _combined(
    wanted: Manifest, applied: Manifest, models: Mapping[str, Model], peers: Mapping[str, Peer],
    routes: Mapping[str, str | Route], pins: ManifestLock,
) -> Manifest:  # fmt: skip
    """Return the wanted manifest with these parts. A model that is here needs no route that leads elsewhere."""
    left = {
        name: route
        for name, route in routes.items()
        if name not in models or (name in wanted.models and route == wanted.routes.get(name))
    }
    usable = {
        name: route
        for name, route in left.items()
        if all(to in models or to in left or PEER_SIGN in to for to in _leads_to(route))
    }
    moved = tuple(move for move in wanted.moved if move.from_ not in models)
    search = _search(wanted.search, models)
    lock = _lock(pins, models, wanted.mcp)
    hardware = with_old_lenders(applied.hardware, wanted.hardware, models.values())
    update = {
        "models": dict(models), "peers": dict(peers), "routes": usable, "moved": moved, "search": search, "lock": lock,
        "hardware": hardware,
    }  # fmt: skip
    return wanted.model_copy(update=update)


def _lock(lock: ManifestLock, models: Mapping[str, Model], servers: Collection[str]) -> ManifestLock:
    """Return the pins of these models and servers of tools."""
    used = {source for model in models.values() for source in model.all_sources}
    return lock.model_copy(
        update={
            "sources": {source: pin for source, pin in lock.sources.items() if source in used},
            "tools": {server: tools for server, tools in lock.tools.items() if server in servers},
        }
    )


def _search(search: Search | None, models: Mapping[str, Model]) -> Search | None:
    """Return the search of a host: without the model that ranks passages, where another host has it."""
    if search is None or search.embed is None or search.embed in models:
        return search
    return search.model_copy(update={"embed": None})


def of_one_host(model: Model) -> Model:
    """Return a model without its choice of hosts, so that a host loads nothing again when that changes."""
    return model.model_copy(update={"hosts": "any", "replicas": 1})


def _peers(fleet: Fleet, names: Collection[str]) -> dict[str, Peer]:
    return {
        name: Peer(url=host.url, key=host.key, ca_file=host.ca_file, share=fleet.share)
        for name, host in fleet.hosts.items()
        if name in names
    }


def _routes(
    fleet: Manifest, places: Mapping[str, Sequence[str]], host: str, *, gateway: bool
) -> Iterator[tuple[str, str | Route]]:
    """Yield the routes of a host: those of the fleet as far as they lead anywhere, and one for each model elsewhere."""
    for name, route in fleet.routes.items():
        if (rewritten := _rewritten(route, fleet, places, host, gateway=gateway)) is not None:
            yield name, rewritten
    if not gateway:
        return
    for name, model in fleet.models.items():
        others = tuple(other for other in places.get(name, ()) if other != host)
        if not others:
            continue
        here = host in places.get(name, ())
        if here:
            # The copy here first, the others when its queue is full or it does not answer.
            yield name, Route(to=(RouteTarget(model=name),), fallback=_at(name, others))
        else:
            yield name, _route_to(name, others)
            for adapter in model.adapters:
                if adapter.expose and adapter.name is not None:
                    yield adapter.name, _route_to(adapter.name, others)


@lru_cache(maxsize=100_000)  # most gateways have the same route for a model
def _route_to(name: str, hosts: tuple[str, ...]) -> Route:
    return Route(to=tuple(RouteTarget(model=name, peer=host) for host in hosts[:_MOST_TARGETS]))


def _at(name: str, hosts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}{PEER_SIGN}{host}" for host in hosts[:_MOST_TARGETS])


def _rewritten(
    route: str | Route, fleet: Manifest, places: Mapping[str, Sequence[str]], host: str, *, gateway: bool
) -> str | Route | None:
    """Return a route of the fleet as a host has it; None if it leads nowhere from there."""

    def hosts_of(name: str) -> tuple[str, ...]:
        """Return the places of a model as seen from the host: itself alone if it has the model."""
        found = places.get(name, ())
        return (host,) if host in found else tuple(found) if gateway else ()

    if isinstance(route, str):
        if host in places.get(route, ()):
            return route
        targets = tuple(RouteTarget(model=route, peer=other) for other in hosts_of(route)[:_MOST_TARGETS])
        return Route(to=targets) if targets else None
    # A model with n places elsewhere has n targets, each with an n-th of the weight.
    counts = [1 if target.peer is not None else len(hosts_of(target.model)) for target in route.to]
    scale = math.lcm(*(count for count in counts if count)) if any(counts) else 1
    if max(target.weight for target in route.to) * scale > _MOST_WEIGHT:
        scale = 1
    to: list[RouteTarget] = []
    for target, count in zip(route.to, counts, strict=True):
        if not count:
            continue
        weight = max(1, target.weight * scale // count) if target.weight else 0
        places_here = (target.peer,) if target.peer is not None else hosts_of(target.model)
        for other in places_here:
            peer = None if target.peer is None and other == host else other
            to.append(target.model_copy(update={"peer": peer, "weight": weight}))
    if not any(target.weight for target in to):
        return None
    fallback: dict[str, None] = {}
    for name in (*(t.model for t in route.to if t.peer is None and host in places.get(t.model, ())), *route.fallback):
        for entry in _fallbacks(name, fleet, places, host, gateway=gateway):
            fallback.setdefault(entry)
    only = {target.model for target in to if target.peer is None} if len(to) == 1 else set()
    kept = tuple(name for name in fallback if name not in only)[:_MOST_TARGETS]
    update = {"to": tuple(to[:_MOST_TARGETS]), "fallback": kept, "on_error": route.on_error or EVERY_ERROR}
    return route.model_copy(update=update)


def _fallbacks(
    name: str, fleet: Manifest, places: Mapping[str, Sequence[str]], host: str, *, gateway: bool
) -> Iterator[str]:
    """Yield what stands for an entry of `fallback`: a model has its places, the one here first."""
    if name not in fleet.models:
        yield name  # a route, or a model of a peer
        return
    if host in places.get(name, ()):
        yield name
    if gateway:
        yield from _at(name, [other for other in places.get(name, ()) if other != host])


def _without_dead_ends(route: str | Route, models: Collection[str], routes: Collection[str]) -> str | Route:
    """Return a route without fallbacks to routes that the host does not have."""
    if isinstance(route, str):
        return route
    kept = tuple(name for name in route.fallback if PEER_SIGN in name or name in models or name in routes)
    return route if kept == route.fallback else route.model_copy(update={"fallback": kept})


def _leads_to(route: str | Route) -> tuple[str, ...]:
    if isinstance(route, str):
        return (route,)
    targets = (t.model if t.peer is None else f"{t.model}{PEER_SIGN}{t.peer}" for t in route.to)
    return (*targets, *route.fallback)


def _auth(auth: Auth, names: Collection[str], own: Auth) -> Auth:
    if not auth.keys:
        return own
    return auth.model_copy(update={"keys": {name: _scoped(key, names) for name, key in auth.keys.items()}})


def _scoped(key: Key, names: Collection[str]) -> Key:
    """Return a key with a pattern for each name that the host does not have, because a check refuses unknown names."""
    scopes = tuple(
        scope if scope in names or any(sign in scope for sign in "*?[") else f"{scope[:-1]}[{scope[-1]}]"
        for scope in key.models
    )
    return key if scopes == key.models else key.model_copy(update={"models": scopes})


def _groups(groups: Mapping[str, Group], models: Collection[str]) -> dict[str, Group]:
    found = {name: tuple(model for model in group.models if model in models) for name, group in groups.items()}
    return {name: groups[name].model_copy(update={"models": members}) for name, members in found.items() if members}


def _moved(fleet: Manifest, models: Collection[str], routes: Collection[str]) -> tuple[Moved, ...]:
    """Return the renames of what the host has. A chain of renames stays whole."""
    here = {"model": models, "route": [name for name in routes if name in fleet.routes], "key": fleet.auth.keys}
    kept: list[Moved] = []
    for move in reversed(fleet.moved):
        later = any(move.to == other.from_ and move.kind == other.kind for other in kept)
        if move.to in here[move.kind] or later:
            kept.append(move)
    return tuple(reversed(kept))
