"""The applications on a cluster, whose they are, and the steps from them to those of a manifest. Pure.

Serve takes the complete list of applications and deletes those that it lacks. So each document has the applications of
others as they were, and the steps are documents: first the old and the new applications together, then the gateway with
the new snapshot, last the list without the old ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mullama.errors import Conflict, Invalid, Refused
from mullama.export.ray_serve import BUILDERS, GATEWAY_DEPLOYMENT, gateway_name
from mullama.struct import Struct, field

Application = Mapping[str, Any]
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
_SETTINGS = ("proxy_location", "http_options", "grpc_options")
_MASK = "<redacted>"


class Cluster(Struct, frozen=True, kw_only=True):
    """The report of Serve, as far as an apply reads it."""

    configs: Mapping[str, Application] = field(default_factory=dict)
    """The config of each application that a config declared, by name."""
    imperative: frozenset[str] = frozenset()
    """Applications that a program deployed. A config leaves them alone, and cannot have their names."""
    states: Mapping[str, str] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    """The route prefix of each application that has one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The options of Serve itself, which are repeated as they are; empty where Serve does not run."""
    target_capacity: float | None = None

    def mine(self, stack: str) -> dict[str, Application]:
        """Return the applications of a stack."""
        return {name: entry for name, entry in self.configs.items() if owner(entry) == stack}

    def others(self, stack: str) -> dict[str, Application]:
        """Return the applications of others, which each document repeats."""
        return {name: entry for name, entry in self.configs.items() if owner(entry) != stack}


def owner(entry: Application) -> str | None:
    """Return the stack of an application; None for one that is not mullama's."""
    if not str(entry.get("import_path", "")).startswith(f"{BUILDERS}:"):
        return None
    stack = (entry.get("args") or {}).get("stack")
    return stack if isinstance(stack, str) else None


def read_cluster(details: Mapping[str, Any]) -> Cluster:
    """Return the cluster of the answer of `GET /api/serve/applications/`. Raises `Invalid` for another answer."""
    found = details.get("applications")
    if not isinstance(found, Mapping):
        raise Invalid("the dashboard answered without a list of applications", hint="is it a dashboard of Ray?")
    configs, states, messages, routes, imperative = {}, {}, {}, {}, set()
    for name, entry in found.items():
        config = entry.get("deployed_app_config")
        if config is None:
            imperative.add(name)
        else:
            configs[name] = {**config, "name": name}
        states[name], messages[name] = str(entry.get("status")), _message(entry)
        if entry.get("route_prefix"):
            routes[name] = entry["route_prefix"]
    settings = {key: details[key] for key in _SETTINGS if details.get(key)} if details.get("controller_info") else {}
    return Cluster(
        configs=configs, imperative=frozenset(imperative), states=states, messages=messages, routes=routes,
        settings=settings, target_capacity=details.get("target_capacity"),
    )  # fmt: skip


def _message(entry: Mapping[str, Any]) -> str:
    """Return what Serve says about an application: the message of a deployment has the reason."""
    inner = (str(one.get("message") or "") for one in (entry.get("deployments") or {}).values())
    return "\n".join(text for text in (str(entry.get("message") or ""), *inner) if text)


class RayPlan(Struct, frozen=True, kw_only=True):
    """The steps of an apply, as the documents that are sent one after another."""

    stack: str
    added: tuple[str, ...]
    """Applications that are loaded beside the present ones."""
    failed: tuple[str, ...]
    """Those of them that an earlier apply declared and that failed. Serve tries them again after a removal only."""
    changed: tuple[str, ...]
    """Applications whose options or settings are changed in place."""
    removed: tuple[str, ...]
    """Applications that end when the gateway no longer sends requests to them."""
    gateway: Literal["add", "change", "keep", "remove"]
    before: Mapping[str, Application]
    """The present applications of the stack."""
    together: Mapping[str, Application]
    """Old and new applications, with the present gateway. A field that changes in place has its new value."""
    routed: Mapping[str, Application]
    """The same with the new gateway."""
    final: Mapping[str, Application]
    """The desired applications."""

    @property
    def empty(self) -> bool:
        return not (self.added or self.changed or self.removed) and self.gateway == "keep"

    @property
    def generation(self) -> int | None:
        """Number of the revision of the desired snapshot; None without a gateway."""
        return generation_of(_snapshot_of(self.final.get(gateway_name(self.stack))))


def plan_ray(cluster: Cluster, desired: Mapping[str, Application], stack: str) -> RayPlan:
    """Return the steps to the desired applications of a stack; none desired removes them all.

    Raises `Conflict` for a name or a route of another owner, and `Refused` for a config that cannot be repeated.
    """
    mine, others = cluster.mine(stack), cluster.others(stack)
    _require_free(cluster, desired, others, mine)
    for name, entry in others.items():
        if _is_masked(entry):
            raise Refused(
                f"the dashboard hides parts of the application {name}, so it cannot be repeated as it is",
                hint="use an address of the dashboard that shows runtime_env",
            )
    gate = gateway_name(stack)
    models, before = _without(desired, gate), _without(mine, gate)
    lasting = {name: entry for name, entry in before.items() if not entry["import_path"].endswith(":probe")}
    together = {**lasting, **models}
    old, new = mine.get(gate), desired.get(gate)
    serving = set((_snapshot_of(old) or {}).get("applications", {}).values())
    # An application that an apply declared and did not switch to may not run: it is loaded and probed like a new one.
    added = tuple(name for name in models if name not in before or name not in serving)
    failed = tuple(name for name in added if name in before and cluster.states.get(name) in FAILED)
    return RayPlan(
        stack=stack,
        added=added,
        failed=failed,
        changed=tuple(name for name in models if name not in added and not same(before[name], models[name])),
        removed=tuple(name for name in before if name not in models),
        gateway=_gateway_step(old, new, cluster.states.get(gate, "")),
        before=lasting if old is None else {**lasting, gate: old},
        together={**together, **({gate: old} if old is not None else {})},
        routed={**together, **({gate: new} if new is not None else {})},
        final=dict(desired),
    )


def _is_masked(value: Any, inside: bool = False) -> bool:
    """Return True if a `runtime_env` in a config has a placeholder instead of a value."""
    if isinstance(value, Mapping):
        return any(_is_masked(one, inside or key == "runtime_env") for key, one in value.items())
    if isinstance(value, list | tuple):
        return any(_is_masked(one, inside) for one in value)
    return inside and isinstance(value, str) and _MASK in value


def _without(entries: Mapping[str, Application], name: str) -> dict[str, Application]:
    return {key: entry for key, entry in entries.items() if key != name}


def _gateway_step(
    old: Application | None, new: Application | None, state: str
) -> Literal["add", "change", "keep", "remove"]:
    """Return the step of the gateway. state: of the present one; a failed one gets its snapshot again."""
    if new is None:
        return "keep" if old is None else "remove"
    if old is None:
        return "add"
    return "keep" if same(old, new) and state != "DEPLOY_FAILED" else "change"


def same(one: Application, other: Application) -> bool:
    """Return True for equal applications. The number and the history of a revision are no difference."""
    return bool(_compared(one, ("generation", "history")) == _compared(other, ("generation", "history")))


def is_present(cluster: Cluster, stack: str, gateway: Application | None) -> bool:
    """Return True if the gateway of a stack is exactly this one. None: the stack has no gateway."""
    found = cluster.mine(stack).get(gateway_name(stack))
    if found is None or gateway is None:
        return found is gateway
    return bool(_compared(found, ()) == _compared(gateway, ()))


def _compared(entry: Application, without: tuple[str, ...]) -> Any:
    def plain(value: Any, path: tuple[str, ...] = ()) -> Any:
        if isinstance(value, Mapping):
            skipped = without if path[-1:] == ("user_config",) else ()
            inner = {k: plain(v, (*path, k)) for k, v in value.items() if k not in skipped}
            return {k: v for k, v in inner.items() if v is not None and v != {}}
        if isinstance(value, list | tuple):
            return [plain(item, path) for item in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return plain(entry)


def _require_free(
    cluster: Cluster, desired: Mapping[str, Application], others: Mapping[str, Application], mine: Mapping[str, Any]
) -> None:
    for name, entry in desired.items():
        if name in others or name in cluster.imperative:
            raise Conflict(
                f"the cluster has an application {name} that is not of this manifest",
                hint="metadata.name in the manifest gives the applications another name",
            )
        prefix = entry.get("route_prefix")
        taken = [other for other, route in cluster.routes.items() if route == prefix and other not in mine]
        if prefix and taken:
            raise Conflict(
                f"the application {taken[0]} of another owner has the route {prefix}",
                hint="--route-prefix gives the gateway another one",
            )


def document(
    cluster: Cluster, stack: str, entries: Mapping[str, Application], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the config of Serve with these applications of a stack, and all of others as they are.

    settings: the options of a Serve that does not run yet.
    """
    capacity = {} if cluster.target_capacity is None else {"target_capacity": cluster.target_capacity}
    kept = cluster.others(stack).values()
    return {**(cluster.settings or settings), **capacity, "applications": [*kept, *entries.values()]}


def snapshot(cluster: Cluster, stack: str) -> Mapping[str, Any] | None:
    """Return the `user_config` of the gateway of a stack; None without one. It is the state of the stack."""
    return _snapshot_of(cluster.mine(stack).get(gateway_name(stack)))


def _snapshot_of(gateway: Application | None) -> Mapping[str, Any] | None:
    for deployment in (gateway or {}).get("deployments", ()):
        if deployment.get("name") == GATEWAY_DEPLOYMENT and isinstance(deployment.get("user_config"), Mapping):
            found: Mapping[str, Any] = deployment["user_config"]
            return found
    return None


def generation_of(present: Mapping[str, Any] | None) -> int | None:
    """Return the number of the revision of a snapshot; None without a snapshot."""
    return None if present is None else int(present["generation"])


def history_after(present: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the revisions that a new snapshot keeps, the newest first: the present one, and those before it."""
    if present is None:
        return []
    entry = {key: present[key] for key in ("generation", "manifest", "lock") if key in present}
    return [entry, *(dict(one) for one in present.get("history", ()))]


def failures(cluster: Cluster, names: tuple[str, ...]) -> Iterator[str]:
    """Yield what Serve says about each of these applications that failed."""
    for name in names:
        if cluster.states.get(name) in FAILED:
            yield f"{name}: {last_line(cluster.messages.get(name, ''))}"


def last_line(message: str) -> str:
    """Return the line of a message of Serve with the error; it has the traceback of the replica before it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("mullama.errors.") or ".wire." in line]
    line = (named or lines or ["no reason is given"])[-1]
    return line.rpartition("mullama.errors.")[2][:400]
