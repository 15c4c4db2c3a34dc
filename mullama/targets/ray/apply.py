"""Carries out a plan on a cluster: load beside, probe, switch the gateway, drain, remove. A failure restores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mullama.errors import Conflict, EngineFailed, MullamaError, NotFound, TimedOut, Unavailable
from mullama.export.ray_serve import BUILDERS, gateway_name
from mullama.struct import Struct
from mullama.targets.ray.cluster import (
    Application,
    Cluster,
    RayPlan,
    document,
    failures,
    generation_of,
    is_present,
    last_line,
    read_cluster,
    snapshot,
)
from mullama.targets.ray.dashboard import Dashboard

_T = TypeVar("_T")
Report = Callable[[str], None]
LOOK_SECONDS = 0.5
ABSENT_SECONDS = 60.0
"""Time for which the dashboard may fail during an apply, such as while the head restarts."""
UNHEALTHY_SECONDS = 60.0
"""Time after which an application that is unhealthy has failed. Until then Serve may have replaced its replica."""
SETTLE_SECONDS = 2.0
"""Time between the switch and the removal, for requests that the gateway has read with the old snapshot."""


class RayTarget(Struct, frozen=True, kw_only=True):
    """One stack on one cluster. within: seconds for each wait; None for no bound."""

    dashboard: Dashboard
    stack: str
    settings: Mapping[str, Any]
    """The options of a Serve that does not run yet."""
    report: Report
    within: float | None = None
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def look(self) -> Cluster:
        """Return the cluster as it is now."""
        return read_cluster(self.dashboard.details())

    def apply(self, plan: RayPlan) -> None:
        """Carry out the plan.

        Raises what failed, after the applications before are declared again, and `Conflict` if another apply has
        changed the stack since the plan was made. Until the gateway switches, requests see the old applications alone.
        """
        gate = gateway_name(self.stack)
        try:
            self._load(plan)
            self._switch(plan)
        except Conflict:
            raise  # the stack is another one now, and is not ours to restore
        except (MullamaError, KeyboardInterrupt) as error:
            self._restore(plan, error)
            raise
        self._remove(plan, (plan.routed if plan.gateway in ("add", "change") else plan.before).get(gate))

    def _load(self, plan: RayPlan) -> None:
        if not (plan.added or plan.changed):
            return
        old = plan.before.get(gateway_name(self.stack))
        if plan.failed:
            self._put(without(plan.together, plan.failed), old)
            self._until_gone(plan.failed)
        self.report(f"load {', '.join((*plan.added, *plan.changed))}")
        self._put(plan.together, old)
        self._wait((*plan.added, *plan.changed))
        probe = probe_application(self.stack, plan)
        self.report(f"probe {', '.join((*plan.added, *plan.changed))}")
        self._put({**plan.together, probe["name"]: probe}, old)
        self._wait((probe["name"],))

    def _switch(self, plan: RayPlan) -> None:
        gate = gateway_name(self.stack)
        if plan.gateway in ("add", "change"):
            self.report("switch the gateway")
            self._put(plan.routed, plan.before.get(gate))
        if gate in plan.final:
            self._wait((gate,))  # also a kept one, whose switch an earlier apply may have left in progress

    def _remove(self, plan: RayPlan, gateway: Application | None) -> None:
        if plan.removed or plan.gateway == "remove":
            gone = (*plan.removed, *((gateway_name(self.stack),) if plan.gateway == "remove" else ()))
            self.report(f"drain and remove {', '.join(gone)}")
            if plan.gateway != "remove":
                self.pause(SETTLE_SECONDS)
            self._put(plan.final, gateway)
            self._until_gone(gone)
        elif plan.added or plan.changed:
            self._put(plan.final, gateway)  # without the probe

    def _restore(self, plan: RayPlan, error: BaseException) -> None:
        """Declare the applications before the apply again. Serve keeps the old ones while they are declared."""
        self.report(f"restore the applications before: {error}" if str(error) else "restore the applications before")
        gate = gateway_name(self.stack)
        try:
            cluster = self._patiently(self.look)
            if not any(is_present(cluster, self.stack, tree.get(gate)) for tree in (plan.before, plan.routed)):
                self.report("another apply has changed the stack on the cluster, so nothing is restored")
                return
            self._patiently(lambda: self._declare(cluster, plan.before))
        except MullamaError as second:
            self.report(f"they are not restored: {second}; mullama apply --on ray completes or repeats the change")

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Return the result of a call, which is repeated while the dashboard fails: to repeat it changes nothing."""
        begun = self.clock()
        while True:
            try:
                return call()
            except (Unavailable, TimedOut):
                if self.clock() - begun > ABSENT_SECONDS:
                    raise
            self.pause(LOOK_SECONDS)

    def _put(self, entries: Mapping[str, Application], gateway: Application | None) -> None:
        """Declare applications of this stack. Raises `Conflict` if its gateway is not this one."""
        cluster = self._patiently(self.look)
        if not is_present(cluster, self.stack, gateway):
            raise _overtaken()
        self._patiently(lambda: self._declare(cluster, entries))

    def _declare(self, cluster: Cluster, entries: Mapping[str, Application]) -> None:
        """Declare applications of this stack, with those of others as they are at this moment."""
        self.dashboard.put(document(cluster, self.stack, entries, self.settings))

    def _wait(self, names: Sequence[str]) -> None:
        """Wait until these applications run.

        Raises `EngineFailed` with what Serve says about one that fails, and `Conflict` for one that is not declared.
        """
        unhealthy: float | None = None

        def running(cluster: Cluster) -> bool:
            nonlocal unhealthy
            if not all(name in cluster.configs for name in names):
                raise _overtaken()
            if failed := list(failures(cluster, tuple(names))):
                unhealthy = self.clock() if unhealthy is None else unhealthy
                final = any(cluster.states.get(name) == "DEPLOY_FAILED" for name in names)
                if final or self.clock() - unhealthy > UNHEALTHY_SECONDS:
                    raise EngineFailed("; ".join(failed))
                return False
            unhealthy = None
            return all(cluster.states.get(name) == "RUNNING" for name in names)

        self._until(running, names)

    def _until_gone(self, names: Sequence[str]) -> None:
        """Wait until Serve has ended these applications."""
        self._until(lambda cluster: not any(name in cluster.states for name in names), names)

    def _until(self, done: Callable[[Cluster], bool], names: Sequence[str]) -> None:
        """Wait for a state of these applications. Raises `TimedOut` with what Serve says about them."""
        begun = self.clock()
        while not done(cluster := self._patiently(self.look)):
            if self.within is not None and self.clock() - begun > self.within:
                messages = [last_line(cluster.messages[name]) for name in names if cluster.messages.get(name)]
                raise TimedOut(
                    f"{', '.join(names)}: not done in {self.within:g} s" + "".join(f"; {text}" for text in messages),
                    hint="mullama status --on ray shows their states",
                )
            self.pause(LOOK_SECONDS)


def _overtaken() -> Conflict:
    return Conflict("another apply has changed the stack on the cluster", hint="run `mullama diff --on ray` again")


def without(entries: Mapping[str, Application], names: Sequence[str]) -> dict[str, Application]:
    """Return the applications but these."""
    return {name: entry for name, entry in entries.items() if name not in names}


def probe_application(stack: str, plan: RayPlan) -> dict[str, Any]:
    """Return an application whose only replica asks each new or changed application for one token, by its handle.

    It runs where replicas run, so an apply needs the address of the dashboard alone. Its failure is that of its start.
    """
    asked = (*plan.added, *plan.changed)
    models = {name: plan.together[name]["args"]["model"] for name in asked}
    tasks = {name: plan.together[name]["deployments"][0]["user_config"]["manifest"]["models"][model]["task"]
             for name, model in models.items()}  # fmt: skip
    suffix = "-".join(name.rpartition("-")[2] for name in asked)[:40]
    version = plan.final[gateway_name(stack)]["args"]["version"]
    return {
        "name": f"probe-{stack}-{plan.generation}-{suffix}",
        "import_path": f"{BUILDERS}:probe",
        "route_prefix": None,
        "args": {"stack": stack, "version": version, "models": models, "tasks": tasks},
        "deployments": [{"name": "probe", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0.0}}],
    }


def replicas(details: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (application, replica) of these applications, as Serve reports them."""
    for name in names:
        for deployment in (details.get("applications", {}).get(name) or {}).get("deployments", {}).values():
            for replica in deployment.get("replicas") or ():
                yield name, replica


def status_tree(target: RayTarget) -> dict[str, Any]:
    """Return `{"format": "mullama.ray.status/1", …}`: the stack with the state of each application. Pure JSON."""
    details = target.dashboard.details()
    cluster = read_cluster(details)
    mine = cluster.mine(target.stack)
    present = snapshot(cluster, target.stack)
    serving = set((present or {}).get("applications", {}).values()) | {gateway_name(target.stack)}
    rows = [_row(details, cluster, name, entry, serving) for name, entry in mine.items()]
    named = dict((present or {}).get("applications", {}))
    rows += [_missing(model, application) for model, application in named.items() if application not in mine]
    bad = [row for row in rows if row["serves"] and row["state"] != "RUNNING"]
    state = "absent" if present is None else "degraded" if bad else "ready"
    return {
        "format": "mullama.ray.status/1",
        "address": target.dashboard.address,
        "stack": target.stack,
        "generation": generation_of(present) or 0,
        "state": state,
        "applications": rows,
        "others": sorted({*cluster.others(target.stack), *cluster.imperative}),
    }


def _row(
    details: Mapping[str, Any], cluster: Cluster, name: str, entry: Application, serving: set[str]
) -> dict[str, Any]:
    found = [replica for _, replica in replicas(details, (name,))]
    return {
        "name": (entry.get("args") or {}).get("model") or ("gateway" if name.startswith("gateway-") else "probe"),
        "application": name,
        "serves": name in serving,
        "state": cluster.states.get(name, "NOT_STARTED"),
        "running": sum(replica.get("state") == "RUNNING" for replica in found),
        "replicas": len(found),
        "message": last_line(cluster.messages[name]) if cluster.messages.get(name) else "",
    }


def _missing(model: str, application: str) -> dict[str, Any]:
    """Return the row of an application that the gateway asks for and that is not declared."""
    message = "another program has removed it; mullama apply --on ray declares it again"
    return {
        "name": model, "application": application, "serves": True, "state": "MISSING", "running": 0, "replicas": 0,
        "message": message,
    }  # fmt: skip


def log_places(target: RayTarget, model: str | None) -> list[tuple[str, str, str]]:
    """Return (application, node, file) of the log of each replica of the stack. model: only those of this one."""
    details = target.dashboard.details()
    mine = read_cluster(details).mine(target.stack)
    names = [name for name, entry in mine.items() if model is None or (entry.get("args") or {}).get("model") == model]
    if model is not None and not names:
        raise NotFound(f"the stack {target.stack} has no model '{model}' on the cluster", name=model)
    return [
        (name, replica["node_id"], f"serve/{replica['log_file_path'].rpartition('/')[2]}")
        for name, replica in replicas(details, names)
        if replica.get("node_id") and replica.get("log_file_path")
    ]
