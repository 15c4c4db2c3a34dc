"""Three real servers as a fleet: lease, rollout, views, undo, a host that dies, and one that starts again."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from mullama.client.address import ServerAddress
from mullama.client.http import Client
from mullama.errors import MullamaError, Unavailable
from mullama.runtime.fleet import StepMark
from mullama.targets.fleet.execute import FleetOutcome, FleetRun, Stage
from mullama.targets.fleet.hosts import HostStep, RemoteHost
from mullama.targets.fleet.lease import FleetLeaseHold
from tests.e2e.stack import TINY, Stack, Started, eventually, stack_in, tiny_variant
from tests.lent_devices import MIB, LentDevices
from tests.stub_hub import StubHub, sha256


class RealFleet:
    """Servers of one model-less manifest each, and a manifest that names them as hosts."""

    def __init__(self, control: Stack, stacks: dict[str, Stack]) -> None:
        self.control, self.stacks = control, stacks
        self.processes: dict[str, Started] = {}
        for name, stack in stacks.items():
            stack.write({})
            self.processes[name] = stack.serve()
        self.urls = {name: stack.ready() for name, stack in stacks.items()}
        self.declare("demo: builtin:tiny")
        self.hosts = {name: RemoteHost(name, Client(ServerAddress.parse(url))) for name, url in self.urls.items()}

    def declare(self, models: str, rollout: str = "{}") -> None:
        hosts = "".join(f"    {name}: {{url: '{url}'}}\n" for name, url in self.urls.items())
        head = f"mullama: v1\nmodels: {{{models}}}\nfleet:\n  rollout: {rollout}\n  hosts:\n"
        self.control.write_text(head + hosts)

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(60)

    def restart(self, name: str) -> None:
        self.processes[name] = self.stacks[name].serve()
        self.urls[name] = self.stacks[name].ready()
        self.hosts[name] = RemoteHost(name, Client(ServerAddress.parse(self.urls[name])))

    def tree(self, name: str, **models: str) -> dict[str, Any]:
        found: dict[str, Any] = self.hosts[name].get("/api/v1/stack")["manifest"]
        wanted = {model: {"from": source} for model, source in models.items()}
        return {**found, "models": wanted, "routes": {}, "peers": {}}

    def apply(self, *hosts: str, **models: str) -> FleetOutcome:
        """Apply models on hosts, one after the other."""
        revisions = {name: self.hosts[name].get("/api/v1/stack")["revision"] for name in hosts}
        trees = {name: self.tree(name, **models) for name in hosts}
        with FleetLeaseHold(list(self.hosts.values()), "fleet", "the test") as lease:
            stages = [
                Stage(
                    title="change",
                    steps={n: HostStep(manifest=trees[n], fence=lease.fence, mark=mark(lease.fence, i), by="ann")},
                    models={n: tuple(models)},
                )
                for i, n in enumerate(hosts, 1)
            ]
            return FleetRun(self.hosts, stages, revisions, require=lease.require, within=60.0).run()

    def models(self) -> dict[str, list[str]]:
        return {
            name: sorted(row["name"] for row in host.get("/api/v1/status")["models"])
            for name, host in self.hosts.items()
        }


def mark(fence: int, step: int) -> str:
    return str(StepMark("fleet", fence, step))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFleet]:
    folder = tmp_path_factory.mktemp("fleet")
    homes = [folder / name for name in ("control", "a", "b", "c")]
    for home in homes:
        home.mkdir()
    with stack_in(homes[0]) as control, stack_in(homes[1]) as a, stack_in(homes[2]) as b, stack_in(homes[3]) as c:
        yield RealFleet(control, {"a": a, "b": b, "c": c})


def states(outcome: FleetOutcome) -> dict[str, str]:
    return {name: host.state for name, host in outcome.hosts.items()}


def command(fleet: RealFleet, *arguments: str, code: int | None = 0) -> str:
    name, *rest = arguments
    file = "--file" if name == "logs" else "-f"
    done = fleet.control.run(name, file, fleet.control.name, *rest, code=code)
    return done.stdout + done.stderr


def column(text: str, heads: Sequence[str] = ("HOST",)) -> list[str]:
    """Return the first cells of the lines of a table."""
    return [line.split()[0] for line in text.splitlines() if line.strip() and line.split()[0] not in heads]


def test_a_fleet_changes_shows_all_hosts_and_goes_back(fleet: RealFleet) -> None:
    outcome = fleet.apply("a", "b", demo="builtin:tiny")
    assert (outcome.outcome, states(outcome)) == ("applied", {"a": "changed", "b": "changed", "c": "unchanged"})
    assert states(fleet.apply("a", "b", demo="builtin:tiny"))["a"] == "unchanged"

    status = command(fleet, "status")
    assert {"a", "b", "c", "demo"} <= set(column(status))
    assert "fleet/" in status
    assert "the test" not in status
    assert {line.split()[0] for line in command(fleet, "logs", "-n", "30").splitlines()} <= {"a", "b", "c"}
    assert column(command(fleet, "history"))[0] in ("a", "b")
    assert "no requests" in command(fleet, "usage")

    with FleetLeaseHold(list(fleet.hosts.values()), "fleet", "bob@elsewhere:7"):
        assert "bob@elsewhere:7 changes the fleet fleet now" in command(fleet, "undo", "--yes", code=10)
    assert "no terminal to confirm" in command(fleet, "undo", code=9)
    undone = command(fleet, "undo", "--yes")
    assert "2 hosts changed" in undone
    assert fleet.models() == {"a": [], "b": [], "c": []}
    command(fleet, "undo", "--yes")
    assert fleet.models() == {"a": ["demo"], "b": ["demo"], "c": []}


def test_apply_places_models_continues_after_a_pause_and_says_when_nothing_is_to_do(fleet: RealFleet) -> None:
    fleet.declare("shared: {from: builtin:tiny, replicas: 2}", "{canary: 1, pause: manual}")

    first = command(fleet, "apply", "--yes", code=8)
    assert "canary: change the models on a" in first
    assert "paused after the canary: mullama apply continues" in first
    assert sum("shared" in models for models in fleet.models().values()) == 1
    second = command(fleet, "apply", "--yes")
    assert sum("shared" in models for models in fleet.models().values()) == 2
    assert "not reached" not in second
    for host in fleet.hosts.values():  # each of them answers for the model, the third one by a route
        assert "shared" in [row["id"] for row in host.get("/v1/models")["data"]]
    assert "step 1" not in command(fleet, "apply", "--yes")

    fleet.declare("shared: {from: builtin:tiny, replicas: 2}, huge: {from: builtin:tiny, hosts: [b]}")
    last = json.loads(command(fleet, "apply", "--yes", "--json").splitlines()[-1])
    assert (last["outcome"], last["hosts"]["b"]["state"]) == ("applied", "changed")
    assert "huge" in fleet.models()["b"]
    command(fleet, "undo", "--yes")
    assert "huge" not in fleet.models()["b"]


def test_a_host_that_dies_stops_the_rollout_and_continues_after_its_restart(fleet: RealFleet) -> None:
    fleet.apply("a", "b", "c", old="builtin:tiny")
    assert fleet.models() == {"a": ["old"], "b": ["old"], "c": ["old"]}
    fleet.kill("b")
    status = command(fleet, "status", code=8)
    assert "no answer" in status
    assert "error: b: no server answers" in status
    assert "error: b: no server answers" in command(fleet, "usage", code=8)
    assert "b: no server answers" in command(fleet, "undo", "--yes", code=11)
    assert states(fleet.apply("a", "c", old="builtin:tiny", new="builtin:tiny")) == {
        "a": "changed",
        "b": "unchanged",
        "c": "changed",
    }

    fleet.restart("b")
    assert fleet.models()["b"] == ["old"]  # that of the fleet, and not the empty file of the host
    outcome = fleet.apply("a", "b", "c", old="builtin:tiny", new="builtin:tiny")
    assert states(outcome) == {"a": "unchanged", "b": "changed", "c": "unchanged"}


def test_a_fleet_is_changed_around_a_host_that_does_not_answer(fleet: RealFleet) -> None:
    """`b` dies with two models: one moves, the other waits for it, and both are as declared after its return."""
    wanted = "stays: {from: builtin:tiny, hosts: [b]}, moves: {from: builtin:tiny, hosts: [b, c]}"
    fleet.declare("stays: {from: builtin:tiny, hosts: [b]}, moves: {from: builtin:tiny, hosts: [b]}")
    command(fleet, "apply", "--yes")
    assert fleet.models()["b"] == ["moves", "stays"]
    fleet.kill("b")

    fleet.declare(wanted)
    refused = command(fleet, "diff", code=1)
    assert "b: no server answers" in refused
    assert "apply would change nothing; --skip b plans without it" in refused
    applied = command(fleet, "apply", "--yes", "--skip", "b")
    assert "stays waits for b" in applied
    assert "b is away and was not changed" in applied
    left = {name: fleet.hosts[name] for name in "ac"}
    assert [row["name"] for row in left["c"].get("/api/v1/status")["models"]] == ["moves"]
    for host in left.values():  # the model that waits keeps its route
        assert {"moves", "stays"} <= {row["id"] for row in host.get("/v1/models")["data"]}
    request = {"model": "stays", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    with pytest.raises(Unavailable):
        Client(ServerAddress.parse(fleet.urls["a"])).post("/v1/chat/completions", request)
    assert "step 1" not in command(fleet, "diff", "--skip", "b")

    fleet.restart("b")
    fleet.declare(wanted)
    shown = command(fleet, "diff", code=2)
    assert "  - moves" in shown
    command(fleet, "apply", "--yes")
    assert {name: models for name, models in fleet.models().items() if name != "a"} == {"b": ["stays"], "c": ["moves"]}


def test_a_target_and_a_saved_plan_change_one_model_of_a_fleet(fleet: RealFleet) -> None:
    fleet.declare("one: {from: builtin:tiny, hosts: [a]}, two: {from: builtin:tiny, hosts: [b]}")
    command(fleet, "apply", "--yes")
    fleet.declare("one: {from: builtin:tiny, hosts: [a], system: Hi}, two: {from: builtin:tiny, hosts: [c]}")
    assert "only one" in command(fleet, "diff", "--target", "one", "--out", "plan.json", code=2)
    command(fleet, "apply", "--yes", "--plan", "plan.json", "--offline")
    assert fleet.models() == {"a": ["one"], "b": ["two"], "c": []}
    assert fleet.hosts["a"].get("/api/v1/stack")["manifest"]["models"]["one"]["system"] == "Hi"
    assert "the plan is stale" in command(fleet, "apply", "--yes", "--plan", "plan.json", code=10)
    command(fleet, "apply", "--yes", "--target", "two")
    assert fleet.models() == {"a": ["one"], "b": [], "c": ["two"]}


def test_a_surge_loses_no_request_where_the_host_has_no_room_for_both(fleet: RealFleet) -> None:
    """Each host has room for one copy of x, which loads again, and clients ask all three hosts all the time."""
    x, rollout = "x: {{from: builtin:tiny, hosts: [a, b]{}}}", "{max_unavailable: 0, max_surge: 1}"
    budget = "hardware: {budget: {ram: 24MiB}}\n"

    def declare(more: str) -> None:
        fleet.declare(x.format(more), rollout)
        fleet.control.write_text(fleet.control.manifest.read_text() + budget)

    declare("")
    command(fleet, "apply", "--yes")
    [first] = (name for name, models in fleet.models().items() if models)
    second = "b" if first == "a" else "a"
    declare(", memory: {mmap: false}")
    stop, answers = threading.Event(), list[int]()

    def ask(name: str) -> None:
        body = {"model": "x", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                answers.append(client.post(f"{fleet.urls[name]}/v1/chat/completions", json=body).status_code)

    clients = [threading.Thread(target=ask, args=(name,)) for name in fleet.urls]
    for client in clients:
        client.start()
    try:
        applied = command(fleet, "apply", "--yes")
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert f"step 1: models of {second} (surge)" in applied
    assert f"step 3: removals of {first} (surge)" in applied
    assert set(answers) == {200}
    assert fleet.models() == {name: ["x"] if name == first else [] for name in "abc"}
    assert "no changes" in command(fleet, "diff").splitlines()[-1]


SOURCE = "hf:org/tiny-GGUF:Q8_0"


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with StubHub() as found:
        found.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": TINY.read_bytes()})
        yield found


@pytest.fixture
def online_fleet(tmp_path: Path, hub: StubHub) -> Iterator[RealFleet]:
    """A fleet of two, whose hosts and commands fetch from the stub."""
    stacks = {}
    with contextlib.ExitStack() as opened:
        for name in ("control", "a", "b"):
            (tmp_path / name).mkdir()
            stacks[name] = opened.enter_context(stack_in(tmp_path / name))
            stacks[name].variables |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        yield RealFleet(stacks.pop("control"), stacks)


def served(fleet: RealFleet) -> dict[str, str]:
    """Return the digest of the weights of the model `t` on each host."""
    rows = {name: host.get("/api/v1/status")["models"] for name, host in fleet.hosts.items()}
    return {name: row["digest"] for name, models in rows.items() for row in models if row["name"] == "t"}


def test_a_locked_apply_serves_the_pinned_files_on_every_host_or_changes_none(
    online_fleet: RealFleet, hub: StubHub
) -> None:
    """`a` has the file before its source changes, and `b` would get other bytes than the pinned ones."""
    fleet, repo = online_fleet, hub.repos["org/tiny-GGUF"]
    first, second = (f"sha256:{sha256(data)}" for data in (TINY.read_bytes(), tiny_variant(1)))
    fleet.declare(f"t: {{from: '{SOURCE}', hosts: [a]}}")
    refused = command(fleet, "apply", "--yes", "--locked", code=9)
    assert f"--locked: mullama.lock lacks {SOURCE}" in refused
    assert fleet.models() == {"a": [], "b": []}

    command(fleet, "lock")
    applied = command(fleet, "apply", "--yes", "--locked")
    assert "fetch and check the files on a" in applied
    assert served(fleet) == {"a": first}
    assert "no changes" in command(fleet, "diff")

    fleet.declare(f"t: {{from: '{SOURCE}', replicas: 2, system: Hi}}")
    repo.files["tiny-Q8_0.gguf"] = tiny_variant(1)
    drifted = command(fleet, "apply", "--yes", "--locked", code=5)
    assert "fetch and check the files on a, b" in drifted
    assert fleet.models() == {"a": ["t"], "b": []}
    assert fleet.hosts["a"].get("/api/v1/stack")["manifest"]["models"]["t"].get("system") is None

    repo.commit = "f" * 40
    command(fleet, "lock", "--update")
    shown = command(fleet, "diff", code=2)
    assert f"lock.sources.{SOURCE} {first[7:19]} -> {second[7:19]}" in shown
    command(fleet, "apply", "--yes", "--locked")
    assert served(fleet) == {"a": second, "b": second}
    command(fleet, "undo", "--yes")
    assert served(fleet) == {"a": first}
    fleet.kill("a")
    fleet.restart("a")
    assert served(fleet) == {"a": first}


def test_a_model_over_two_hosts_is_placed_and_shown_and_the_loss_of_one_is_its_own(
    online_fleet: RealFleet,
) -> None:
    """`b` lends its devices to a model of `a`; `small` is beside it and has no layer there."""
    fleet = online_fleet
    request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0}
    a = Client(ServerAddress.parse(fleet.urls["a"]))
    lender = LentDevices(256 * MIB)
    try:
        big = "big: {from: builtin:tiny, hosts: [a, b], gpu: {devices: [b], layers: all}}"
        fleet.declare(f"{big}, small: {{from: builtin:tiny, hosts: [a]}}")
        text = fleet.control.manifest.read_text()
        fleet.control.write_text(
            text.replace(f"url: '{fleet.urls['b']}'", f"url: '{fleet.urls['b']}', rpc: '{lender.host}'")
        )
        shown = command(fleet, "diff", code=2)
        assert "big uses devices of b (" in shown
        command(fleet, "apply", "--yes")
        assert fleet.models() == {"a": ["big", "small"], "b": []}
        manifest = fleet.hosts["a"].get("/api/v1/stack")["manifest"]
        assert manifest["hardware"]["rpc"] == [lender.host]
        assert manifest["models"]["big"]["gpu"]["devices"] == [lender.host]
        answers = [a.post("/v1/chat/completions", {**request, "model": name}) for name in ("big", "small")]
        texts = {answer["choices"][0]["message"]["content"] for answer in answers}
        assert len(texts) == 1
        assert "8 on b" in command(fleet, "status")
        assert "no changes" in command(fleet, "diff").splitlines()[-1]

        lender.stop(signal.SIGKILL)
        with pytest.raises(MullamaError):
            a.post("/v1/chat/completions", {**request, "model": "big"})
        eventually(lambda: "big on a: HostLost:" in command(fleet, "status", code=None))
        assert a.post("/v1/chat/completions", {**request, "model": "small"})["choices"]
        fleet.declare("small: {from: builtin:tiny, hosts: [a]}")
        command(fleet, "apply", "--yes")
        assert fleet.hosts["a"].get("/api/v1/stack")["manifest"]["hardware"]["rpc"] == []
    finally:
        lender.stop(signal.SIGKILL)
