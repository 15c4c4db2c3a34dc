"""Checks of routes and peers: names that exist, weights that add up to something, fallbacks that end."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from urllib.parse import urlsplit

from mullama.manifest.diagnostics import Suggestions
from mullama.manifest.spec import Manifest, Peer, Route
from mullama.manifest.spec.readers import PEER_SIGN, target_name, targets_of

AnyRoute = str | Route
PEER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
PEER_NAME_HINT = "letters, digits, '.', '_' and '-', first a letter or digit"

_AddProblem = Callable[[str, str, str], None]


def check_routes(
    manifest: Manifest, models: Collection[str], suggest: Suggestions, fail: _AddProblem, warn: _AddProblem
) -> None:
    """Report the mistakes of all routes. models: the names of all models, also of those with mistakes."""
    routes = manifest.routes
    for name, route in routes.items():
        path = f"routes.{name}"
        if isinstance(route, Route):
            _check_options(route, path, routes, models, manifest.peers, suggest, fail, warn)
        else:
            _check_model(route, path, routes, models, suggest, fail)
    for loop in _loops(routes):
        index = _fallbacks(routes[loop[0]]).index(loop[1])
        way = " -> ".join(loop)
        fail(f"routes.{loop[0]}.fallback[{index}]", f"the fallbacks form a circle: {way}", "remove one of them")


def _check_options(
    route: Route,
    path: str,
    routes: Mapping[str, AnyRoute],
    models: Collection[str],
    peers: Mapping[str, Peer],
    suggest: Suggestions,
    fail: _AddProblem,
    warn: _AddProblem,
) -> None:
    targets = [target_name(target) for target in route.to]
    for index, name in enumerate(targets):
        if name in targets[:index]:
            fail(f"{path}.to[{index}]", f"{name} is listed twice", "add up the weights")
        elif route.to[index].peer is not None:
            _check_peer(name, f"{path}.to[{index}].peer", peers, suggest, fail)
        else:
            _check_model(name, f"{path}.to[{index}].model", routes, models, suggest, fail)
    if not any(target.weight for target in route.to):
        fail(f"{path}.to", "the weights add up to 0", "at least one weight must be more than 0")
    for index, name in enumerate(route.fallback):
        where = f"{path}.fallback[{index}]"
        if name in route.fallback[:index]:
            fail(where, f"{name} is listed twice", "keep the first")
        elif [name] == targets:
            fail(where, f"{name} is the model that failed", "name another model")
        elif PEER_SIGN in name:
            _check_peer(name, where, peers, suggest, fail)
        elif name not in models and name not in routes:
            fail(where, f"there is no model or route {name[:80]!r}", suggest(name, [*models, *routes]))
    if route.fallback and not route.on_error:
        fail(f"{path}.on_error", "a fallback needs an error that leads to it", "remove on_error: all errors do then")
    if not route.fallback and route.on_error and "on_error" in route.model_fields_set:
        warn(f"{path}.on_error", "no effect without fallback", "")
    for block in ("parameters", "force"):
        if getattr(route, block).num_keep is not None:
            warn(f"{path}.{block}.num_keep", "no effect: a prompt that is too long loses complete messages", "")


def _check_peer(name: str, path: str, peers: Mapping[str, Peer], suggest: Suggestions, fail: _AddProblem) -> None:
    """Check a target `MODEL@PEER`."""
    model, _, peer = name.rpartition(PEER_SIGN)
    if peer not in peers:
        fail(path, f"there is no peer {peer[:80]!r}", suggest(peer, peers))
    elif not model:
        fail(path, f"{name} names no model of the peer", "write MODEL@PEER")


def check_peers(manifest: Manifest, fail: _AddProblem, warn: _AddProblem) -> None:
    """Report mistakes of peers, and those that no route names."""
    used = {name for route in manifest.routes.values() for name in (*targets_of(route), *_fallbacks(route))}
    for name, peer in manifest.peers.items():
        path = f"peers.{name}"
        if not PEER_NAME.fullmatch(name):
            fail(path, f"{name[:80]!r} is not a name of a peer", PEER_NAME_HINT)
        if peer.key is not None and peer.url.startswith("http://") and not is_local(peer.url):
            warn(f"{path}.url", "the key is sent without encryption", "use https://")
        if not peer.share and not any(target.endswith(f"{PEER_SIGN}{name}") for target in used):
            warn(path, "no route leads to this peer", f"routes: {{NAME: MODEL{PEER_SIGN}{name}}}")


def is_local(url: str) -> bool:
    """Return True for an address of this machine, or of a private network by its number."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


def _check_model(
    name: str,
    path: str,
    routes: Mapping[str, AnyRoute],
    models: Collection[str],
    suggest: Suggestions,
    fail: _AddProblem,
) -> None:
    if name in routes and name not in models:
        fail(path, f"{name} is a route, not a model", "name its model")
    elif name not in models:
        fail(path, f"there is no model {name[:80]!r}", suggest(name, models))


def _fallbacks(route: AnyRoute) -> tuple[str, ...]:
    return route.fallback if isinstance(route, Route) else ()


def _loops(routes: Mapping[str, AnyRoute]) -> Iterator[tuple[str, ...]]:
    """Yield each circle of fallbacks once, from the first of its routes in the manifest back to it."""
    done: set[str] = set()
    for start in routes:
        way: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            way.append((start, iter(_fallbacks(routes[start]))))
        while way:
            name, rest = way[-1]
            following = next((n for n in rest if n in routes), None)
            names = [visited for visited, _ in way]
            if following is None:
                done.add(name)
                way.pop()
            elif following in names:
                yield (*names[names.index(following) :], following)
            elif following not in done:
                way.append((following, iter(_fallbacks(routes[following]))))
