"""The steps of a plan as the changes of hosts, under the fence of one controller (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.manifest.spec import Manifest
from mullama.targets.fleet.execute import Stage
from mullama.targets.fleet.hosts import HostStep
from mullama.targets.fleet.plan import FleetPlan, FleetStep, tree_for
from mullama.targets.fleet.targets import here
from mullama.targets.fleet.undo import StepMark

_TITLES = {"change": "change the models", "route": "route to the new places", "remove": "remove what is elsewhere"}
_EARLY = {"change": "add further replicas", "route": "route around the change", "remove": "hand over the models"}


def stages_of(plan: FleetPlan, *, fleet: str, fence: int, by: str, version: str, offline: bool = False) -> list[Stage]:
    """Return a stage for each step of a plan. by: the author, for the history of the hosts. version: of this program.
    offline: the hosts download nothing.

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
                )
                for host, manifest in step.manifests.items()
            },
            models=step.models if step.kind == "change" else {},
            pause=step.pause,
        )

    return [stage(number, step) for number, step in enumerate(draft.steps, 1)]
