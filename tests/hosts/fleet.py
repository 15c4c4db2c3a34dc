"""Three real hosts on a network as a fleet, one with a small disk of its own, and the commands and applies of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mullama import __version__
from mullama.errors import MullamaError
from mullama.manifest.load import load
from mullama.targets.fleet.execute import FleetOutcome, FleetRun
from mullama.targets.fleet.hosts import RemoteHost, remote_host
from mullama.targets.fleet.lease import FleetLeaseHold
from mullama.targets.fleet.observe import observe_fleet
from mullama.targets.fleet.plan import draft_fleet, plan_fleet
from mullama.targets.fleet.stages import stages_of
from tests.e2e.stack import Stack
from tests.hosts.network import Network
from tests.hosts.servers import KEY, SECRET, HostStack

NAMES = ("a", "b", "c")
Observe = Callable[[str, Mapping[str, Any]], None]


class NetworkFleet:
    """Three hosts without models, and a folder with the manifest of the fleet."""

    def __init__(self, network: Network, folder: Path, control: Stack, stacks: dict[str, HostStack]) -> None:
        self.network, self.folder, self.control, self.stacks = network, folder, control, stacks
        for stack in stacks.values():
            stack.ready()

    def declare(self, models: dict[str, Any], auth: dict[str, Any] | None = None, **rollout: Any) -> None:
        """Write the manifest of the fleet. auth: its keys; without them each host keeps its own."""
        hosts = {name: {"url": stack.url, "key": KEY} for name, stack in self.stacks.items()}
        blocks = {"auth": auth} if auth is not None else {}
        self.control.write(models, server={}, fleet={"hosts": hosts, "rollout": rollout}, **blocks)

    def source(self, name: str, **more: Any) -> str:
        """Write a script that all hosts read; return its `from`."""
        path = self.folder / f"{name}.script.json"
        path.write_text(json.dumps({"name": name, **more}))
        return str(path)

    def command(self, name: str, *arguments: str, code: int = 0) -> str:
        done = self.control.run(name, "-f", self.control.name, *arguments, code=code)
        return done.stdout + done.stderr

    def apply(self, *arguments: str, code: int = 0) -> str:
        return self.command("apply", "--yes", *arguments, code=code)

    def ports(self) -> dict[str, RemoteHost]:
        env = {"HOSTS_KEY": SECRET}
        fleet = load(str(self.control.manifest), profiles=(), env=env).manifest.fleet
        return {name: remote_host(name, host, env) for name, host in fleet.hosts.items()}

    def run(
        self,
        sleep: Callable[[float], None] = lambda seconds: None,
        observe: Observe = lambda host, event: None,
        within: float = 30.0,
    ) -> FleetOutcome:
        """Apply as the command does. sleep: is called in the pause after the canary. within: seconds for a step."""
        ports = self.ports()
        manifest = load(str(self.control.manifest), profiles=(), env={"HOSTS_KEY": SECRET}).manifest
        draft = draft_fleet(manifest, observe_fleet(ports.values(), __version__), {})
        plan = plan_fleet(draft, tuple(ports.values()), __version__)
        assert plan.complete, plan.problems
        revisions = {name: seen.revision for name, seen in draft.seen.hosts.items()}
        with FleetLeaseHold(list(ports.values()), "fleet", "the test") as lease:
            stages = stages_of(plan, fleet="fleet", fence=lease.fence, by="ann", version=__version__)
            return FleetRun(
                ports, stages, revisions, require=lease.require, within=within, sleep=sleep, observe=observe
            ).run()

    def answers(self, name: str) -> bool:
        with suppress(MullamaError):
            return bool(self.ports()[name].get("/api/v1/status"))
        return False

    def systems(self, *names: str) -> dict[str, str]:
        """Return the `system` of the model x on some hosts."""
        trees = {name: self.ports()[name].get("/api/v1/stack")["manifest"]["models"] for name in names}
        return {name: models["x"].get("system", "") for name, models in trees.items()}


@contextmanager
def fleet_of_hosts(network: Network, folder: Path) -> Iterator[NetworkFleet]:
    """Yield three hosts whose servers are ready. The disk of `b` has 16 MiB."""
    stacks: dict[str, HostStack] = {}
    (folder / "control").mkdir()
    try:
        for name in NAMES:
            (folder / name).mkdir()
            with_disk(folder / name) if name == "b" else None
            stacks[name] = HostStack(folder / name, host=network.host(f"h{name}"))
            stacks[name].write({})
            stacks[name].serve()
        yield NetworkFleet(network, folder, Stack(folder / "control", variables={"HOSTS_KEY": SECRET}), stacks)
    finally:
        for stack in stacks.values():
            stack.close()
        subprocess.run(["umount", "-l", str(folder / "b")], check=False, capture_output=True)


def with_disk(folder: Path) -> None:
    """Give a folder a small disk of its own; skip the test with the reason where there can be none."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(done.stderr.strip())


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no free byte on the disk of a folder."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        assert shutil.disk_usage(folder).free < 4096
        yield
    finally:
        filler.unlink()


def states(outcome: FleetOutcome) -> dict[str, str]:
    return {name: host.state for name, host in outcome.hosts.items()}


def x(fleet: NetworkFleet, revision: str) -> dict[str, Any]:
    """Return a model of all hosts, with a revision in its `system`."""
    return {"x": {"from": fleet.source("x"), "replicas": 3, "system": revision}}
