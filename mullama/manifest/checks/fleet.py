"""Checks of a fleet: hosts that exist, models that find enough hosts, and keys that keep the hosts in reach."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from mullama.manifest.checks.routes import PEER_NAME, PEER_NAME_HINT, is_local
from mullama.manifest.diagnostics import Suggestions
from mullama.manifest.spec import Fleet, FleetHost, Manifest, Model, SecretRef
from mullama.units import counted

_AddProblem = Callable[[str, str, str], None]


def check_fleet(manifest: Manifest, suggest: Suggestions, fail: _AddProblem, warn: _AddProblem) -> None:
    """Report the mistakes of the fleet and of the hosts that models choose."""
    fleet = manifest.fleet
    if not fleet.hosts:
        _check_absent(manifest, fail)
        return
    urls: dict[str, str] = {}
    lent: dict[str, str] = {}
    for name, host in fleet.hosts.items():
        _check_host(name, host, manifest, fail, warn)
        if host.url in urls:
            fail(f"fleet.hosts.{name}.url", f"is the address of {urls[host.url]} as well", "keep one of them")
        urls.setdefault(host.url, name)
        if host.rpc is not None and host.rpc in lent:
            fail(f"fleet.hosts.{name}.rpc", f"is the address of {lent[host.rpc]} as well", "keep one of them")
        if host.rpc is not None:
            lent.setdefault(host.rpc, name)
    present = present_hosts(fleet)
    if not present:
        fail("fleet.hosts", "every host is away", "remove away of a host that answers")
    if not isinstance(fleet.gateways, str):
        _check_names(fleet.gateways, "fleet.gateways", fleet.hosts, suggest, fail)
        if present and not set(fleet.gateways) & set(present):
            warn("fleet.gateways", "every gateway is away: each host answers for its own models only", "")
    if fleet.rollout.canary >= len(fleet.hosts):
        count = counted(len(fleet.hosts), "host")
        fail("fleet.rollout.canary", f"leaves no host for later: the fleet has {count}", "a smaller number")
    if not fleet.rollout.max_unavailable and not fleet.rollout.max_surge:
        fail(
            "fleet.rollout.max_unavailable", "allows no change without max_surge", "max_unavailable: 1, or max_surge: 1"
        )
    if fleet.rollout.pause and not fleet.rollout.canary:
        warn("fleet.rollout.pause", "no effect without canary", "")
    for name, model in manifest.models.items():
        _check_model(model, f"models.{name}", fleet, suggest, fail)
    _check_blocks_of_one_server(manifest, fail, warn)


def matching_hosts(model: Model, fleet: Fleet) -> tuple[str, ...]:
    """Return the hosts that may have the model, in the order of the manifest. Unknown names are left out.

    A host that lends devices to the model does not serve it.
    """
    wanted, lenders = model.hosts, lenders_of(model, fleet)
    if isinstance(wanted, dict):
        found = [name for name, host in fleet.hosts.items() if wanted.items() <= host.labels.items()]
    else:
        found = [name for name in fleet.hosts if wanted == "any" or name in wanted]
    return tuple(name for name in found if name not in lenders)


def lenders_of(model: Model, fleet: Fleet) -> tuple[str, ...]:
    """Return the hosts whose devices a model names in `gpu.devices`, by name or address."""
    if not model.gpu.devices:
        return ()
    named = [entry.partition("/")[0] for entry in model.gpu.devices]
    return tuple(name for name, host in fleet.hosts.items() if host.rpc is not None and {name, host.rpc} & set(named))


def present_hosts(fleet: Fleet) -> tuple[str, ...]:
    """Return the hosts that are not away, in the order of the manifest."""
    return tuple(name for name, host in fleet.hosts.items() if not host.away)


def gateways_of(fleet: Fleet) -> tuple[str, ...]:
    """Return the hosts that answer for all models, in the order of the manifest."""
    if fleet.gateways == "all":
        return tuple(fleet.hosts)
    chosen = frozenset() if fleet.gateways == "none" else frozenset(fleet.gateways)
    return tuple(name for name in fleet.hosts if name in chosen)


def _check_absent(manifest: Manifest, fail: _AddProblem) -> None:
    if manifest.fleet != Fleet():
        fail("fleet", "has no hosts", "fleet: {hosts: {NAME: {url: …}}}")
    for name, model in manifest.models.items():
        for field, usual in (("hosts", "any"), ("replicas", 1)):
            if getattr(model, field) != usual:
                fail(f"models.{name}.{field}", "is for a fleet, and fleet.hosts is empty", f"remove {field}")


def _check_host(name: str, host: FleetHost, manifest: Manifest, fail: _AddProblem, warn: _AddProblem) -> None:
    path = f"fleet.hosts.{name}"
    if not PEER_NAME.fullmatch(name):
        fail(path, f"{name[:80]!r} is not a name of a host", PEER_NAME_HINT)
    if name in manifest.peers:
        fail(path, "a peer has the same name", "rename one of them")
    if host.key is not None and host.url.startswith("http://") and not is_local(host.url):
        warn(f"{path}.url", "the key is sent without encryption", "use https://")
    keys = manifest.auth.keys
    if keys and not any("admin" in key.roles and _same(key.secret, host.key) for key in keys.values()):
        warn(
            f"{path}.key",
            "no key of auth.keys with the role admin has this secret: the next apply could not reach the host",
            "refer to the secret of an admin key of auth.keys",
        )


def _same(one: SecretRef, other: SecretRef | None) -> bool:
    return other is not None and (one.from_env, one.from_file) == (other.from_env, other.from_file)


def _check_model(model: Model, path: str, fleet: Fleet, suggest: Suggestions, fail: _AddProblem) -> None:
    if isinstance(model.hosts, tuple):
        _check_names(model.hosts, f"{path}.hosts", fleet.hosts, suggest, fail)
        if any(name not in fleet.hosts for name in model.hosts):
            return  # the number of hosts is not known
    for index, entry in enumerate(model.gpu.devices):
        host = fleet.hosts.get(name := entry.partition("/")[0])
        if host is not None and host.rpc is None:
            fail(f"{path}.gpu.devices[{index}]", f"{name} lends no devices", f"fleet.hosts.{name}.rpc: HOST:PORT")
    found = len(matching_hosts(model, fleet))
    if not found and lenders_of(model, fleet):
        names = ", ".join(lenders_of(model, fleet))
        fail(f"{path}.hosts", f"no host is left to serve it beside {names}, which lend devices", "name a further host")
    elif not found:
        fail(f"{path}.hosts", f"no host of the fleet has {_labels(model.hosts)}", _known_labels(fleet))
    elif model.replicas > found:
        count = counted(found, "host")
        have = f"the fleet has {count}" if model.hosts == "any" else f"{count} may have the model"
        text = f"{model.replicas} replicas need as many hosts, and {have}"
        fail(f"{path}.replicas", text, "a smaller number, or further hosts")


def _labels(wanted: object) -> str:
    assert isinstance(wanted, dict)
    return ", ".join(f"{key}: {value}" for key, value in wanted.items())[:200]


def _known_labels(fleet: Fleet) -> str:
    known = dict.fromkeys(f"{key}: {value}" for host in fleet.hosts.values() for key, value in host.labels.items())
    return f"labels of hosts: {', '.join([*known][:8])}" if known else "fleet.hosts.NAME.labels: {KEY: VALUE}"


def _check_names(
    names: Collection[str], path: str, hosts: Mapping[str, FleetHost], suggest: Suggestions, fail: _AddProblem
) -> None:
    before: set[str] = set()
    for index, name in enumerate(names):
        if name in before:
            fail(f"{path}[{index}]", f"{name} is listed twice", "keep one of them")
        elif name not in hosts:
            fail(f"{path}[{index}]", f"there is no host {name[:80]!r}", suggest(name, hosts))
        before.add(name)


def _check_blocks_of_one_server(manifest: Manifest, fail: _AddProblem, warn: _AddProblem) -> None:
    """Report what only a manifest of one server can have."""
    if manifest.sync.git is not None:
        fail("sync.git", "is followed by one server, and this manifest is of a fleet", "run mullama apply from CI")
    for field in _own_fields(manifest):
        warn(field, "no effect: each host of a fleet keeps its own", "")


def _own_fields(manifest: Manifest) -> Iterator[str]:
    if "listen" in manifest.server.model_fields_set:
        yield "server.listen"
    if manifest.server.tls is not None:
        yield "server.tls"
