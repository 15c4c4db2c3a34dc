"""The plan of a fleet: the placement of its models, the plan of each host, and the order of the changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mullama.errors import Invalid, MullamaError, Refused
from mullama.manifest.checks.fleet import gateways_of, lenders_of
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.spec.readers import moves_of
from mullama.manifest.tree import block_to_tree, manifest_to_tree
from mullama.plan.changes import changed_blocks, compare_models, highest_cost, pinned_digest
from mullama.plan.observed import KnownFiles
from mullama.plan.place import FleetPlacement, HostRoom, PlacedModel, beside, fitting, place
from mullama.plan.rollout import FleetChange, Pause, Surge, WaveKind, WaveOrder, rollout
from mullama.plan.steps import Cost, Plan, Step, from_tree
from mullama.struct import Struct, field, replace
from mullama.targets.fleet.away import WaitingModel, around_away, away_hosts, with_stand_ins
from mullama.targets.fleet.host_manifest import (
    host_manifest,
    of_one_host,
    own_blocks,
    with_early_routes,
    with_new_routes,
    with_old_models,
)
from mullama.targets.fleet.hosts import FleetHostPort, on_each
from mullama.targets.fleet.lenders import lent_devices, less_lent, overlent, own_machines
from mullama.targets.fleet.memory import placed_models, rooms
from mullama.targets.fleet.observe import FleetObservation, HostObservation
from mullama.targets.fleet.targets import fleet_part, here, limited


class FleetStep(Struct, frozen=True, kw_only=True):
    """Hosts that change at the same time, with the manifest that each gets."""

    kind: WaveKind
    manifests: Mapping[str, Manifest]
    models: Mapping[str, tuple[str, ...]]
    """The models of these hosts that must serve afterwards."""
    early: bool = False
    """True for a step of a surge, before the change of the hosts whose models it hands over."""
    canary: bool = False
    pause: Pause = 0.0
    """Time before the next step in seconds, or `manual`."""


class FleetDraft(Struct, frozen=True, kw_only=True):
    """The desired state of a fleet, from the manifest and the state of all hosts. Pure."""

    seen: FleetObservation
    placement: FleetPlacement
    manifests: Mapping[str, Manifest]
    """The manifest of each host at the end; empty if a host is not known or a model has no place."""
    order: WaveOrder = WaveOrder()
    steps: tuple[FleetStep, ...] = ()
    away: tuple[str, ...] = ()
    """The hosts that the plan leaves out."""
    waiting: tuple[WaitingModel, ...] = ()
    """The models that have fewer replicas than declared until these hosts return."""
    targets: tuple[str, ...] = ()
    """The models and routes that the plan is limited to; empty for the whole manifest."""
    lent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of each model over several hosts: the bytes on each host that lends it devices; 0 where they are not known."""

    def targets_on(self, host: str) -> tuple[str, ...]:
        """Return the targets that a host has, before or after the change."""
        return here(self.targets, self.seen.hosts[host].applied, self.manifests[host])

    @property
    def possible(self) -> bool:
        """True if every host that is not away is known, and every model has its places."""
        return not self.seen.faults and not self.placement.unplaced and not self.order.blocked


class FleetPlan(Struct, frozen=True, kw_only=True):
    """The plan of each host, made by the host itself."""

    draft: FleetDraft
    plans: Mapping[str, Plan] = field(default_factory=dict)
    faults: Mapping[str, MullamaError] = field(default_factory=dict)
    """The hosts that cannot be observed, and those that refuse their manifest."""
    trees: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By host, the manifest at the end as it was sent: a large one takes long to write."""

    @property
    def complete(self) -> bool:
        """True if nothing prevents an apply."""
        return self.draft.possible and not self.faults

    @property
    def problems(self) -> tuple[str, ...]:
        """The reasons why an apply could not be carried out, each with its host or model."""
        faults = (str(error) for error in self.faults.values())
        unplaced = (each.reason for each in self.draft.placement.unplaced)
        return (*faults, *unplaced, *(blocked_text(name) for name in self.draft.order.blocked))

    @property
    def changes(self) -> Iterator[Step]:
        """The steps of all hosts."""
        return (step for plan in self.plans.values() for step in plan.steps)

    @property
    def names(self) -> tuple[str, ...]:
        """All hosts, by name, also those that are away."""
        return tuple(sorted({*self.draft.seen.hosts, *self.faults, *self.draft.away}))

    @property
    def empty(self) -> bool:
        return all(plan.empty for plan in self.plans.values())


def blocked_text(model: str) -> str:
    """Return the reason why a model cannot change with `max_unavailable: 0`."""
    return (
        f"{model} would pause: no host has room for a further replica, and fleet.rollout.max_unavailable is 0"
        " (1 allows the pause)"
    )


def draft_fleet(
    fleet: Manifest, seen: FleetObservation, files: Mapping[str, KnownFiles], targets: Sequence[str] = ()
) -> FleetDraft:
    """Return the placement, the manifests of the hosts, and the order of their changes.

    Nothing is placed while a host is unknown: its models would seem to be missing. One that is away is left out.
    files: by source. targets: models and routes to which the change is limited; none for the whole manifest. Raises
    `NotFound` for an unknown one, and `Refused` for targets that need another part of the manifest.
    """
    away = away_hosts(fleet)
    if seen.faults:
        return FleetDraft(seen=seen, placement=FleetPlacement(), manifests={}, away=away)
    if targets:
        part = fleet_part(fleet, {name: host.applied for name, host in seen.hosts.items()}, targets)
        fleet, targets = part.fleet, part.targets
    current = current_places(fleet, seen)
    # A model that leaves the fleet needs its room until it is removed.
    leaving = {name: model for host in seen.hosts.values() for name, model in host.applied.models.items()}
    everything = fleet.model_copy(update={"models": {**leaving, **fleet.models}})
    own = own_machines(fleet.fleet, seen)
    models, lent = placed_models(everything, own, files, lent_devices(fleet, seen))
    complete = rooms(fleet, own)
    hosts = less_lent(complete, lent)
    wanted = with_stand_ins((model for model in models if model.name in fleet.models), fleet, current)
    placement = place(wanted, hosts, current, fleet.fleet.placement)
    desired = {name: lenders for name, lenders in lent.items() if name in fleet.models}
    placement = replace(placement, unplaced=(*placement.unplaced, *overlent(complete, desired)))
    found = around_away(fleet, placement, current)
    draft = FleetDraft(seen=seen, placement=found.placement, manifests={}, away=away, waiting=found.waiting,
                       targets=tuple(targets), lent=desired)  # fmt: skip
    if not draft.possible:
        return draft
    places = {**found.placement.hosts, **found.returning}
    manifests = {name: _wanted(fleet, places, host, draft.targets) for name, host in seen.hosts.items()}
    rules = fleet.fleet.rollout
    order = rollout(
        change_of(fleet, seen, manifests),
        max_unavailable=rules.max_unavailable,
        surge=_surge(fleet, models, hosts, _new_contexts(seen, manifests)),
        canary=rules.canary,
        pause=rules.pause,
        fits=fitting(models, hosts),
    )
    if order.blocked:
        return replace(draft, order=order)
    steps = tuple(_steps(fleet, draft, manifests, found.returning, order))
    return replace(draft, manifests=manifests, order=order, steps=steps)


def _new_contexts(seen: FleetObservation, manifests: Mapping[str, Manifest]) -> dict[str, frozenset[str]]:
    """Return the models of each host that keep their weights and get another context."""
    found = {}
    for name, host in seen.hosts.items():
        old, new = host.applied.models, manifests[name]
        both = (model for model in new.models if model in old and not _other_files(model, host, new))
        changes = {model: compare_models(old[model], new.models[model]) for model in both}
        found[name] = frozenset(
            model
            for model, fields in changes.items()
            if highest_cost(fields) is Cost.CONTEXT
            if not any(field.path.startswith("draft.") for field in fields)  # may be layers of the weights
        )
    return found


def _surge(
    fleet: Manifest, models: Sequence[PlacedModel], hosts: Sequence[HostRoom], contexts: Mapping[str, frozenset[str]]
) -> Surge:  # fmt: skip
    """Return the room for further replicas. A model that is to be unloaded before its change is not loaded beside.

    contexts: of each host, the models that need no second copy of their weights.
    """
    # A further replica would need the devices of the lenders a second time.
    alone = (model for model in models if model.name in fleet.models)
    allowed = {model.name: model.hosts for model in alone if not lenders_of(fleet.models[model.name], fleet.fleet)}
    has_room = beside(models, hosts)

    def swaps(host: str, have: frozenset[str], names: frozenset[str]) -> bool:
        strategies = {fleet.models[name].rollout.strategy for name in names}
        return "recreate" not in strategies and has_room(host, have, names, contexts[host])

    return Surge(most=fleet.fleet.rollout.max_surge, may_have=lambda name: allowed.get(name, ()), beside=swaps)


def _wanted(
    fleet: Manifest, places: Mapping[str, Sequence[str]], host: HostObservation, targets: Sequence[str]
) -> Manifest:
    """Return the manifest of a host for these places; with targets, as applied but for them."""
    manifest = host_manifest(fleet, places, host.name, own_blocks(host.applied, host.machine))
    if not targets:
        return manifest
    for rpc in manifest.hardware.rpc:
        if rpc not in host.applied.hardware.rpc:
            raise Refused(
                f"{host.name} does not use the devices at {rpc} yet, and they are no target",
                hint="apply the whole manifest",
            )
    return limited(manifest, host.applied, targets)


def current_places(fleet: Manifest, seen: FleetObservation) -> dict[str, list[str]]:
    """Return the hosts that have each model now; a renamed one under its new name."""
    places: dict[str, list[str]] = {}
    for host in seen.hosts.values():
        for name in _renamed(host.applied.models, fleet):
            places.setdefault(name, []).append(host.name)
    return places


def _renamed(models: Iterable[str], fleet: Manifest) -> list[str]:
    moves = moves_of(fleet.moved, "model")
    return [moves.get(name, name) if moves.get(name) in fleet.models else name for name in models]


def change_of(fleet: Manifest, seen: FleetObservation, manifests: Mapping[str, Manifest]) -> FleetChange:
    """Return the difference between the applied manifests and the wanted ones."""
    changed, reloaded, others, routed = {}, {}, [], []
    for name, host in seen.hosts.items():
        old, new = host.applied, manifests[name]
        before = dict(zip(_renamed(old.models, fleet), old.models, strict=True))
        repinned = {model for model in new.models if _other_files(model, host, new)}
        changed[name] = tuple(
            model
            for model, former in before.items()
            if model in new.models
            if former != model or model in repinned or old.models[former] != new.models[model]
        )
        reloaded[name] = tuple(  # a renamed model is left out: an early step does not know it by its new name
            model
            for model in changed[name]
            if before[model] == model
            if model in repinned or _loads_again(old.models[model], new.models[model])
        )
        rest = changed_blocks(old, new)
        if rest - {"routes", "peers"}:
            others.append(name)
        elif rest:
            routed.append(name)
    return FleetChange(
        before={name: _renamed(host.applied.models, fleet) for name, host in seen.hosts.items()},
        after={name: tuple(manifest.models) for name, manifest in manifests.items()},
        changed=changed,
        reloaded=reloaded,
        others=others,
        routed=routed,
        gateways=[name for name in gateways_of(fleet.fleet) if name in seen.hosts],
    )


def _other_files(name: str, host: HostObservation, wanted: Manifest) -> bool:
    """Return True if the pins of a model stand for other files than the host has of it now."""
    for source in wanted.models[name].all_sources:
        before, after = pinned_digest(host.applied, source), pinned_digest(wanted, source)
        if before is None and source == wanted.models[name].from_:
            before = host.digests.get(name)
        if None not in (before, after) and before != after:
            return True
    return False


def _loads_again(old: Model, new: Model) -> bool:
    return highest_cost(compare_models(old, new)).rank >= Cost.CONTEXT.rank


def _steps(
    fleet: Manifest, draft: FleetDraft, manifests: Mapping[str, Manifest], returning: Mapping[str, tuple[str, ...]],
    order: WaveOrder,
) -> Iterator[FleetStep]:  # fmt: skip
    """Yield the steps of the waves, without hosts that a wave leaves as they are.

    returning: the places of models that wait for hosts which are away.
    """
    seen, places = draft.seen, {**draft.placement.hosts, **returning}
    last = {name: host.applied for name, host in seen.hosts.items()}
    for wave in order.waves:
        now: dict[str, Manifest] = {}
        for name in wave.hosts:
            models, wanted = wave.models[name], manifests[name]
            if wave.early:
                routed = _wanted(fleet, {**wave.routes, **returning}, seen.hosts[name], draft.targets)
                early = _early_models(fleet, last[name], models)
                now[name] = with_early_routes(last[name], routed, early, fleet.lock)
            elif wave.kind == "change":
                now[name] = with_old_models(last[name], _with_models(wanted, models), models)
            else:
                if (routes := {**wave.routes, **returning}) != places:  # not all models are at their places yet
                    wanted = _wanted(fleet, routes, seen.hosts[name], draft.targets)
                now[name] = with_new_routes(last[name], wanted, models)
        now = {name: manifest for name, manifest in now.items() if manifest != last[name]}
        last |= now
        if now:
            serving = {name: tuple(manifest.models) for name, manifest in now.items()}
            yield FleetStep(
                kind=wave.kind, manifests=now, models=serving, early=wave.early, canary=wave.canary, pause=wave.pause
            )


def _early_models(fleet: Manifest, applied: Manifest, names: Sequence[str]) -> dict[str, Model]:
    """Return the applied models without those that leave, and the further replicas. names: all models, as desired."""
    named = zip(_renamed(applied.models, fleet), applied.models.items(), strict=True)
    kept = {former: model for name, (former, model) in named if name in names}
    new = [name for name in names if name in fleet.models and name not in _renamed(kept, fleet)]
    return {**kept, **{name: of_one_host(fleet.models[name]) for name in new}}


def _with_models(wanted: Manifest, names: Sequence[str]) -> Manifest:
    """Return a host manifest with those of its models that a wave has brought already."""
    kept = {name: model for name, model in wanted.models.items() if name in names}
    return wanted if len(kept) == len(wanted.models) else wanted.model_copy(update={"models": kept})


def plan_fleet(draft: FleetDraft, hosts: Sequence[FleetHostPort], version: str) -> FleetPlan:
    """Ask each host for the plan of its manifest, all at the same time."""
    if not draft.possible:
        return FleetPlan(draft=draft, faults=draft.seen.faults)
    trees = {name: tree_for(draft.manifests[name], seen.version, version) for name, seen in draft.seen.hosts.items()}
    answers = on_each(hosts, lambda host: _plan_of(host, draft, trees[host.name]))
    return FleetPlan(
        draft=draft,
        trees=trees,
        plans={name: answer for name, answer in answers.items() if isinstance(answer, Plan)},
        faults={name: answer for name, answer in answers.items() if isinstance(answer, MullamaError)},
    )


def _plan_of(host: FleetHostPort, draft: FleetDraft, tree: Mapping[str, Any]) -> Plan:
    seen = draft.seen.hosts[host.name]
    targets = draft.targets_on(host.name)
    if draft.targets and not targets:
        return Plan(base=seen.revision, desired=seen.revision, generation=0, targets=draft.targets)
    answer = host.plan(tree, targets)
    try:
        return from_tree(answer)
    except Invalid as error:
        raise Invalid(f"{host.name}: sent a plan that this version cannot read: {error}") from error


def tree_for(manifest: Manifest, theirs: str, ours: str) -> dict[str, Any]:
    """Return a manifest as a host of this version reads it: another version has other fields with defaults."""
    if theirs == ours:
        return manifest_to_tree(manifest)
    tree = manifest.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return {"mullama": block_to_tree(manifest)["mullama"], **tree}
