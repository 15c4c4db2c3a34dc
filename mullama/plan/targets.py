"""A part of a manifest: the applied manifest with some models and routes of the desired one (`--target`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from mullama.errors import Invalid, ManifestError, NotFound, Refused
from mullama.manifest.spec import Group, Manifest, ManifestLock, McpServer, Model, Peer, Route
from mullama.manifest.spec.readers import PEER_SIGN, moves_of, targets_of
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.names import ModelName, suggest
from mullama.plan.make import make_plan
from mullama.plan.observed import Observed
from mullama.plan.steps import Plan, Step
from mullama.plan.tools import KIND as TOOLS
from mullama.struct import Struct, replace


class TargetedManifest(Struct, frozen=True, kw_only=True):
    """The applied manifest with the targets of the desired one."""

    manifest: Manifest
    targets: tuple[str, ...]
    """The names of the targets as the manifest spells them, in the order of the request."""
    models: frozenset[str]
    """The models among the targets, with the targets of routes."""

    @property
    def chosen(self) -> Manifest:
        """The manifest with these models only."""
        models = {name: model for name, model in self.manifest.models.items() if name in self.models}
        return self.manifest.model_copy(update={"models": models})


def targeted(desired: Manifest, applied: Manifest | None, names: Sequence[str]) -> TargetedManifest:
    """Return the applied manifest with the targets of the desired one and what they need.

    desired, applied: without the models beside the manifest. names: models and routes. A route brings the models,
    routes and peers that it leads to, and a model its servers of tools, its entry in `moved` and its places in groups.
    A target that only the applied manifest has is removed. Every other part stays as it is applied. When nothing is
    applied, the blocks outside the models and routes are those of the desired manifest.

    Raises `NotFound` for unknown names, and `Refused` if the targets need another part of the desired manifest.
    """
    base = applied if applied is not None else _without_models(desired, names)
    targets = _found(names, desired, base)
    chosen = _with_needs(targets, desired)
    keys = {_key(name) for name in chosen}
    gone = _former(desired, "model", chosen, desired.models)
    lost = _former(desired, "route", chosen, desired.routes)
    models = {name: model for name, model in base.models.items() if _key(name) not in keys and name not in gone}
    models |= {name: model for name, model in desired.models.items() if name in chosen}
    routes = {name: route for name, route in base.routes.items() if _key(name) not in keys and name not in lost}
    routes |= {name: route for name, route in desired.routes.items() if name in chosen}
    ours = (move for move in desired.moved if move.kind != "key" and move.from_ in {*gone, *lost})
    moves = dict.fromkeys((*base.moved, *ours))
    present: Mapping[str, Collection[str]] = {"model": models, "route": routes, "key": base.auth.keys}
    changed = {
        "models": models,
        "routes": routes,
        "peers": {**base.peers, **_peers_of(chosen, desired)},
        "mcp": {**base.mcp, **_servers_of(chosen, desired)},
        "lock": with_pins(base.lock, desired.lock, (desired.models[name] for name in chosen if name in desired.models)),
        "groups": _groups(base, desired, models, keys),
        "moved": tuple(move for move in moves if move.from_ not in present[move.kind]),
    }
    try:
        manifest = parse_resolved(block_to_tree(base.model_copy(update=changed)))
    except ManifestError as error:
        raise Refused(
            f"the targets need another part of the manifest: {error.problems[0]}",
            hint="make it a target too, or apply the whole manifest",
        ) from error
    planned = {name for name in (*desired.models, *base.models) if _key(name) in keys} | gone
    return TargetedManifest(manifest=manifest, targets=targets, models=frozenset(planned))


def with_pins(lock: ManifestLock, other: ManifestLock, models: Iterable[Model]) -> ManifestLock:
    """Return the pins of a manifest with those of another one for the sources and servers of tools of some models."""
    sources, tools = dict(lock.sources), dict(lock.tools)
    for model in models:
        sources |= {source: other.sources[source] for source in model.all_sources if source in other.sources}
        tools |= {server: other.tools[server] for server in model.mcp if server in other.tools}
    return lock.model_copy(update={"sources": sources, "tools": tools})


def names_of(names: Iterable[str], desired: Manifest, applied: Manifest) -> tuple[str, ...]:
    """Return the names of models and routes as the manifests spell them, with those that routes among them lead to.

    Raises `NotFound` for a name that neither manifest has.
    """
    return tuple(_with_needs(_found(names, desired, applied), desired))


def plan_targets(
    part: TargetedManifest,
    desired: Manifest,
    observed: Observed,
    *,
    beside: Iterable[str] = (),
    served: bool,
    path: str | None,
) -> Plan:
    """Return the plan of a part, without drift of other models and without the deletion of files.

    desired: the manifest of the part with the models beside it. served: False if the server starts with this plan. It
    loads every model then, so their steps stay. path: the file that the server follows, None for no file.
    """

    def keeps(step: Step) -> bool:
        return step.kind not in ("files", TOOLS) and (step.kind != "model" or step.subject in part.models or not served)

    plan = make_plan(desired, observed, beside=beside, keeps=keeps)
    reason = undone_by(part.manifest, path)
    warnings = (*plan.warnings, *((f"{reason}: apply refuses it",) if reason else ()))
    return replace(plan, targets=part.targets, warnings=warnings)


def undone_by(manifest: Manifest, path: str | None) -> str:
    """Return the reason why the server would apply the rest of the manifest at once, "" if it does not.

    manifest: as it is applied with the targets. path: the file that the server follows, None for no file.
    """
    if manifest.sync.git is not None:
        return "the server follows a git repository (sync.git) and would apply the rest of its manifest at once"
    if manifest.sync.watch and path is not None:
        return f"the server watches {path} (sync.watch) and would apply the rest of it at once"
    return ""


def require_undisturbed(manifest: Manifest, path: str | None) -> None:
    """Raise `Refused` if the rest of the manifest would be applied at once; see `undone_by`."""
    if reason := undone_by(manifest, path):
        raise Refused(reason, hint="apply `sync: {watch: false}` first, or the whole manifest")


def _without_models(desired: Manifest, names: Iterable[str]) -> Manifest:
    """Return the blocks outside the models. A key keeps the models of its list that are among the targets."""
    chosen = _with_needs(_found(names, desired, desired), desired)
    known = {*desired.models, *desired.routes}

    def kept(scopes: Iterable[str]) -> tuple[str, ...]:
        return tuple(scope for scope in scopes if scope not in known or scope in chosen)

    keys = {name: key.model_copy(update={"models": kept(key.models)}) for name, key in desired.auth.keys.items()}
    auth = desired.auth.model_copy(update={"keys": keys})
    return desired.model_copy(update={"models": {}, "routes": {}, "groups": {}, "moved": (), "auth": auth})


def _found(names: Iterable[str], desired: Manifest, base: Manifest) -> tuple[str, ...]:
    """Return the names in their spelling of the manifest, a former name as the new one; raise `NotFound`."""
    known = {_key(name): name for name in (*base.models, *base.routes, *desired.models, *desired.routes)}
    for kind, old, new in (("model", base.models, desired.models), ("route", base.routes, desired.routes)):
        moves = moves_of(desired.moved, kind).items()
        known |= {_key(name): to for name, to in moves if name in old and name not in new and to in new}
    unknown = [name for name in names if _folded(name) not in known]
    if unknown:
        near = dict.fromkeys(close for name in unknown for close in suggest(name, set(known.values())))
        wanted = ", ".join(repr(name[:80]) for name in unknown)
        raise NotFound(f"there is no model or route {wanted} to target", name=unknown[0], near=tuple(near))
    return tuple(dict.fromkeys(known[_folded(name)] for name in names))


def _former(desired: Manifest, kind: str, chosen: Collection[str], present: Collection[str]) -> set[str]:
    """Return the former names of chosen models or routes, which are no names of the manifest."""
    moves = moves_of(desired.moved, kind).items()
    return {name for name, to in moves if to in chosen and to in present and name not in present}


def _with_needs(targets: Iterable[str], desired: Manifest) -> dict[str, None]:
    """Return the targets with the models and routes that routes among them lead to."""
    chosen: dict[str, None] = {}
    waiting = list(targets)
    while waiting:
        name = waiting.pop()
        if name in chosen:
            continue
        chosen[name] = None
        route = desired.routes.get(name)
        if route is not None and name not in desired.models:
            waiting += (name for name in _leads_to(route) if PEER_SIGN not in name)
    return chosen


def _leads_to(route: str | Route) -> tuple[str, ...]:
    return (*targets_of(route), *(route.fallback if isinstance(route, Route) else ()))


def _peers_of(chosen: Collection[str], desired: Manifest) -> dict[str, Peer]:
    """Return the peers that chosen routes lead to."""
    names = (name for route in desired.routes if route in chosen for name in _leads_to(desired.routes[route]))
    used = {name.rpartition(PEER_SIGN)[2] for name in names if PEER_SIGN in name}
    return {name: peer for name, peer in desired.peers.items() if name in used}


def _servers_of(chosen: Collection[str], desired: Manifest) -> dict[str, McpServer]:
    """Return the servers of tools that chosen models use."""
    used = {server for name, model in desired.models.items() if name in chosen for server in model.mcp}
    return {name: server for name, server in desired.mcp.items() if name in used}


def _groups(base: Manifest, desired: Manifest, models: Mapping[str, object], keys: Collection[str]) -> dict[str, Group]:
    """Return the applied groups, in which the targets have the places that the desired manifest gives them."""
    groups: dict[str, Group] = {}
    for name in dict.fromkeys((*base.groups, *desired.groups)):
        old, new = base.groups.get(name), desired.groups.get(name)
        kept = [m for m in old.models if m in models and _key(m) not in keys] if old else []
        added = [m for m in new.models if m in models and _key(m) in keys] if new else []
        group = old or new
        if group is not None and (kept or added):
            groups[name] = group.model_copy(update={"models": (*kept, *added)})
    return groups


def _key(name: str) -> str:
    return ModelName.parse(name).key


def _folded(name: str) -> str:
    """Return the key of a name that a user wrote; the text itself for one that is no name."""
    try:
        return _key(name)
    except Invalid:
        return name
