"""The steps of a plan as the changes of hosts, under the fence of one controller (pure)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from mullama.manifest.spec import Manifest
from mullama.runtime.fleet import StepMark
from mullama.struct import replace
from mullama.targets.fleet.execute import Stage
from mullama.targets.fleet.hosts import HostStep
from mullama.targets.fleet.plan import FleetPlan, FleetStep, tree_for
from mullama.targets.fleet.targets import here

_TITLES = {"change": "change the models", "route": "route to the new places", "remove": "remove what is elsewhere"}
_EARLY = {"change": "add further replicas", "route": "route around the change", "remove": "hand over the models"}


def stages_of(
    plan: FleetPlan, *, fleet: str, fence: int, by: str, version: str, offline: bool = False, locked: bool = False
) -> list[Stage]:
    """Return a stage for each step of a plan. by: the author, for the history of the hosts. version: of this program.
    offline: the hosts download nothing. locked: before the first change, all hosts fetch and check their files.

    After a step that adds or changes models, the models of its hosts must not have failed.
    """

    draft = plan.draft

    def tree(host: str, manifest: Manifest) -> Mapping[str, Any]:
        sent = plan.trees.get(host) if manifest == draft.manifests[host] else None
        return sent if sent is not None else tree_for(manifest, draft.seen.hosts[host].version, version)

    def stage(number: int, step: FleetStep) -> Stage:
        mark = str(StepMark(fleet, fence, number))
        return Stage(
            title="canary: change the models" if step.canary else (_EARLY if step.early else _TITLES)[step.kind],
            steps={
                host: HostStep(
                    manifest=tree(host, manifest),
                    fence=fence,
                    mark=mark,
                    by=by,
                    targets=here(draft.targets, draft.seen.hosts[host].applied, manifest),
                    offline=offline,
                    locked=locked,
                )
                for host, manifest in step.manifests.items()
            },
            models=step.models if step.kind == "change" else {},
            leaving={}
            if step.early
            else {
                host: [name for name in manifest.models if name not in draft.manifests[host].models]
                for host, manifest in step.manifests.items()
            },
            canary=step.canary,
            pause=step.pause,
        )

    changes = [stage(number, step) for number, step in enumerate(draft.steps, 1)]
    return [*_preparations(plan, changes, tree), *changes] if locked else changes


def _preparations(
    plan: FleetPlan, changes: Sequence[Stage], tree: Callable[[str, Manifest], Mapping[str, Any]]
) -> Iterator[Stage]:
    """Yield the stages in which the hosts fetch the files of their manifests at the end.

    Where hosts share files, those that lack the same source do not begin together, so the later ones ask the first.
    """
    draft, share = plan.draft, any(peer.share for m in plan.draft.manifests.values() for peer in m.peers.values())
    steps = {host: step for stage in reversed(changes) for host, step in stage.steps.items()}
    for hosts in fetch_groups({host: lacking(plan, host) for host in steps}, share=share):
        yield Stage(
            title="fetch and check the files",
            steps={
                host: replace(
                    steps[host],
                    manifest=tree(host, draft.manifests[host]),
                    targets=draft.targets_on(host),
                    prepare=True,
                )
                for host in hosts
            },
        )


def lacking(plan: FleetPlan, host: str) -> frozenset[str]:
    """Return the sources of the models whose files a host would download."""
    own, wanted = plan.plans.get(host), plan.draft.manifests[host].models
    steps = own.steps if own is not None else ()
    names = [step.subject for step in steps if step.bytes_download != 0 and step.subject in wanted]
    return frozenset(source for name in names for source in wanted[name].all_sources)


def fetch_groups(missing: Mapping[str, Collection[str]], *, share: bool) -> list[list[str]]:
    """Return the hosts in groups that fetch at the same time, by the sources that each of them lacks.

    share: hosts of one group lack different sources, as far as no earlier group has fetched them.
    """
    left, here, groups = sorted(missing), set[str](), list[list[str]]()
    while left:
        group: list[str] = []
        busy: set[str] = set()
        for host in left:
            new = set(missing[host]) - here
            if not share or new.isdisjoint(busy):
                group.append(host)
                busy |= new
        here |= busy
        left = [host for host in left if host not in group]
        groups.append(group)
    return groups
