"""A fleet of three real hosts on a network: one vanishes between or in its steps, and the disk of one is full."""

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
from tests.e2e.stack import Stack, eventually
from tests.hosts.network import Network
from tests.hosts.servers import KEY, SECRET, HostStack

pytestmark = pytest.mark.timeout(240)
NAMES = ("a", "b", "c")
Observe = Callable[[str, Mapping[str, Any]], None]


class NetworkFleet:
    """Three hosts without models, and a folder with the manifest of the fleet."""

    def __init__(self, network: Network, folder: Path, control: Stack, stacks: dict[str, HostStack]) -> None:
        self.network, self.folder, self.control, self.stacks = network, folder, control, stacks
        for stack in stacks.values():
            stack.ready()

    def declare(self, models: dict[str, Any], **rollout: Any) -> None:
        hosts = {name: {"url": stack.url, "key": KEY} for name, stack in self.stacks.items()}
        self.control.write(models, server={}, fleet={"hosts": hosts, "rollout": rollout})

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

    def run(self, sleep: Callable[[float], None], observe: Observe = lambda host, event: None) -> FleetOutcome:
        """Apply as the command does. sleep: is called in the pause after the canary."""
        ports = self.ports()
        manifest = load(str(self.control.manifest), profiles=(), env={"HOSTS_KEY": SECRET}).manifest
        draft = draft_fleet(manifest, observe_fleet(ports.values(), __version__), {})
        plan = plan_fleet(draft, tuple(ports.values()), __version__)
        assert plan.complete, plan.problems
        revisions = {name: seen.revision for name, seen in draft.seen.hosts.items()}
        with FleetLeaseHold(list(ports.values()), "fleet", "the test") as lease:
            stages = stages_of(plan, fleet="fleet", fence=lease.fence, by="ann", version=__version__)
            return FleetRun(
                ports, stages, revisions, require=lease.require, within=30.0, sleep=sleep, observe=observe
            ).run()

    def answers(self, name: str) -> bool:
        with suppress(MullamaError):
            return bool(self.ports()[name].get("/api/v1/status"))
        return False

    def systems(self, *names: str) -> dict[str, str]:
        """Return the `system` of the model x on some hosts."""
        trees = {name: self.ports()[name].get("/api/v1/stack")["manifest"]["models"] for name in names}
        return {name: models["x"].get("system", "") for name, models in trees.items()}


@pytest.fixture(scope="module")
def fleet(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkFleet]:
    folder = tmp_path_factory.mktemp("fleet")
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
    return {"x": {"from": fleet.source("x"), "replicas": 3, "system": revision}}


def test_a_host_that_is_cut_off_in_a_rollout_stops_it_and_is_planned_around(fleet: NetworkFleet) -> None:
    only_b = {"y": {"from": fleet.source("y"), "hosts": ["b"]}}
    fleet.declare({**x(fleet, "one"), **only_b})
    fleet.apply()
    fleet.declare({**x(fleet, "two"), **only_b}, canary=1, pause="1s")
    try:
        outcome = fleet.run(sleep=lambda _: fleet.network.cut("hb"))
        assert states(outcome) == {"a": "changed", "b": "failed", "c": "not reached"}
        assert outcome.hosts["b"].outcome in ("unavailable", "timed_out")
        assert fleet.systems("a", "c") == {"a": "two", "c": "one"}

        refused = fleet.apply(code=11)
        assert "apply would change nothing; --skip b plans without it" in refused
        around = fleet.apply("--skip", "b")
        assert "y waits for b" in around
        assert "x has 2 of 3 replicas without b" in around
        assert fleet.systems("a", "c") == {"a": "two", "c": "two"}
    finally:
        fleet.network.mend("hb")
    shown = fleet.command("diff", code=2)
    assert "b:\n  ~ x" in shown
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "two")
    assert "no changes" in fleet.command("diff").splitlines()[-1]


def test_a_host_that_dies_in_its_own_step_ends_the_rollout(fleet: NetworkFleet) -> None:
    """Its load hangs, so it dies in the middle of it."""
    fleet.declare(x(fleet, "three"))
    fleet.apply()
    hanging = {"from": fleet.source("z", faults=True, on_open="hang"), "hosts": ["b"]}
    fleet.declare({**x(fleet, "four"), "z": hanging}, canary=1)

    def observe(host: str, event: Mapping[str, Any]) -> None:
        if host == "b" and event.get("event") == "phase" and event.get("phase") == "load":
            fleet.stacks["b"].kill()

    outcome = fleet.run(sleep=lambda _: None, observe=observe)
    assert states(outcome) == {"a": "changed", "b": "failed", "c": "not reached"}
    fleet.declare(x(fleet, "four"))
    fleet.apply("--skip", "b")
    fleet.stacks["b"].serve()  # it begins the load again that hangs
    eventually(lambda: fleet.answers("b"), fleet.stacks["b"].log)
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "four")


def test_a_full_disk_on_one_host_stops_the_rollout_and_the_host_serves_on(fleet: NetworkFleet) -> None:
    fleet.declare(x(fleet, "five"))
    fleet.apply()
    fleet.declare(x(fleet, "six"))
    with full(fleet.stacks["b"].home):
        report = fleet.apply(code=11)
        assert "b: failed: the lease cannot be saved: no space left on device" in report
        assert fleet.systems(*NAMES) == {"a": "six", "b": "five", "c": "five"}
        answer = fleet.ports()["b"].client.post(
            "/v1/chat/completions", {"model": "x", "messages": [{"role": "user", "content": "4 tokens"}]}
        )
        assert answer["choices"][0]["message"]["content"]
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "six")
