"""One model over the devices of several hosts of a network: its plan, its answers, and hosts that are lost in one."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, eventually
from tests.hosts.network import Network
from tests.hosts.servers import HEADERS, KEY, SECRET, HostStack
from tests.lent_devices import MIB, LentDevices

pytestmark = pytest.mark.timeout(300)
QUESTION = "What is the capital of France?"  # its answer has no near tie, see `test_clear_answers.py`


def tiny(**fields: Any) -> dict[str, Any]:
    return {"from": "builtin:tiny", "context": {"size": 4096}, "limits": {"parallel": 1}, **fields}


LAYERS = {"here": {}, "map": {"b": 3, "c": 5}, "shares": {"b": 6, "c": 2}, "on_b": {"b": 8}}
"""The layers of each model on each lender."""
MODELS = {
    "here": tiny(hosts=["a"], gpu={"layers": 0}),
    "map": tiny(gpu={"devices": ["b", "c"], "layers": {"0": 3, "1": 5}}),
    "shares": tiny(gpu={"devices": ["b", "c"], "layers": "all", "tensor_split": [3, 1]}),
    "on_b": tiny(hosts=["a"], gpu={"devices": ["b"], "layers": "all"}),
}


@dataclass
class LendingFleet:
    """Three hosts with a server each. `b` and `c` lend their devices, so models over them are served by `a`."""

    network: Network
    control: Stack
    stacks: dict[str, HostStack]
    lenders: dict[str, LentDevices] = field(default_factory=dict)

    def lend(self, name: str, port: int = 0) -> None:
        """Lend the device of a host. port: 0 takes a free one."""
        host = self.stacks[name].host
        assert host is not None
        self.lenders[name] = LentDevices(256 * MIB, listen=f"{host.address}:{port}", prefix=host.prefix)

    def declare(self, models: dict[str, Any]) -> None:
        hosts = {name: {"url": stack.url, "key": KEY} for name, stack in self.stacks.items()}
        for name, lender in self.lenders.items():
            hosts[name]["rpc"] = lender.host
        self.control.write(models, server={}, fleet={"hosts": hosts})

    def command(self, name: str, *arguments: str, code: int | None = 0) -> str:
        done = self.control.run(name, "-f", self.control.name, *arguments, code=code)
        return done.stdout + done.stderr

    def get(self, path: str) -> httpx.Response:
        """Ask the host that serves the models."""
        return httpx.get(f"{self.stacks['a'].url}{path}", headers=HEADERS, timeout=60)

    def models(self) -> dict[str, dict[str, Any]]:
        """Return the models of the host that serves them, as its status has them."""
        return {row["name"]: row for row in self.get("/api/v1/status").json()["models"]}

    def reason(self, model: str) -> str:
        """Return the reason why a model does not serve; "" for one that does."""
        conditions = self.models()[model]["conditions"]
        first = next((one for one in conditions if one["type"] == "Ready" and not one["status"]), None)
        return f"{first['reason']}: {first['message']}" if first is not None else ""

    def answer(self, model: str) -> str:
        body = {
            "model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0,
        }  # fmt: skip
        done = httpx.post(f"{self.stacks['a'].url}/v1/chat/completions", json=body, headers=HEADERS, timeout=120)
        assert done.status_code == 200, done.text
        message = done.json()["choices"][0]["message"]
        return f"{message.get('reasoning_content') or ''}{message.get('content') or ''}"

    def lost_in_an_answer(self, model: str, lose: Callable[[], object]) -> dict[str, Any]:
        """Begin a long answer, lose a host after its first text, and return the error that ends it."""
        body = {
            "model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": True, "ignore_eos": True,
            "max_tokens": 4000,
        }  # fmt: skip
        error: dict[str, Any] = {}
        lost = False
        url = f"{self.stacks['a'].url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=HEADERS, timeout=120) as answer:
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                error = event.get("error") or error
                if event.get("choices") and any(event["choices"][0]["delta"].values()) and not lost:
                    lost = True
                    lose()
        assert lost
        return error

    def log(self) -> str:
        return self.stacks["a"].log()


@pytest.fixture(scope="module")
def fleet(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LendingFleet]:
    folder = tmp_path_factory.mktemp("lending")
    with ExitStack() as opened:
        stacks: dict[str, HostStack] = {}
        control = Stack(folder / "control", variables={"HOSTS_KEY": SECRET})
        control.home.mkdir()
        made = LendingFleet(network, control, stacks)
        for name in "abc":
            (folder / name).mkdir()
            stacks[name] = HostStack(folder / name, host=network.host(f"l{name}"))
            stacks[name].write({})
            stacks[name].serve()
            opened.callback(stacks[name].close)
        for name in "bc":
            made.lend(name)
            opened.callback(lambda name=name: made.lenders[name].stop(signal.SIGKILL))
        for stack in stacks.values():
            stack.ready()
        made.declare(MODELS)
        yield made


def test_models_over_two_lenders_are_planned_placed_and_answer_as_one_host(fleet: LendingFleet) -> None:
    shown = fleet.command("diff", code=2)
    assert "map uses devices of b (" in shown
    assert ", c (" in next(line for line in shown.splitlines() if "map uses devices" in line)
    fleet.command("apply", "--yes")
    assert "no changes" in fleet.command("diff").splitlines()[-1]

    stack = fleet.get("/api/v1/stack").json()["manifest"]
    addresses = {fleet.lenders[name].host: name for name in "bc"}
    assert set(stack["hardware"]["rpc"]) == set(addresses)
    placed = {
        name: {addresses[device["host"]]: device["layers"] for device in row["devices"]}
        for name, row in fleet.models().items()
    }
    assert placed == LAYERS
    status = fleet.command("status")
    assert "3 on b, 5 on c" in status
    assert "6 on b, 2 on c" in status
    for name in "bc":
        rows = httpx.get(f"{fleet.stacks[name].url}/api/v1/status", headers=HEADERS, timeout=60).json()["models"]
        assert rows == []

    answers = {name: fleet.answer(name) for name in MODELS}
    assert set(answers.values()) == {answers["here"]} != {""}

    names = {gpu["host"]: gpu["name"] for gpu in fleet.get("/api/v1/status").json()["machine"]["gpus"]}
    metrics = fleet.get("/metrics").text
    for lender in fleet.lenders.values():
        device = names[lender.host]
        assert f'mullama_device_up{{device="{device}"}} 1.0' in metrics
        assert f'mullama_model_device_bytes{{device="{device}",model="map"}}' in metrics
    assert f'mullama_model_device_bytes{{device="{names[fleet.lenders["c"].host]}",model="on_b"}}' not in metrics
    assert set(MODELS) <= set(fleet.command("ps").split())


def test_a_lender_that_is_cut_off_in_an_answer_fails_its_models_alone_until_it_is_back(fleet: LendingFleet) -> None:
    """The cut is silent, so nothing ends the connection of llama.cpp."""
    fleet.command("apply", "--yes")
    right, before = fleet.answer("here"), fleet.models()
    try:
        error = fleet.lost_in_an_answer("map", lambda: fleet.network.cut("lc"))
        host = fleet.lenders["c"].host
        assert f"the RPC host {host} does not answer" in error["message"]
        eventually(lambda: fleet.reason("map").startswith("HostLost:"), fleet.log)
        assert host in fleet.reason("map")
        assert f"map on a: HostLost: the RPC host {host}" in fleet.command("status", code=None)
        after = fleet.models()
        for name in ("here", "on_b"):
            assert fleet.answer(name) == right
            assert after[name]["worker"] == before[name]["worker"]
    finally:
        fleet.network.mend("lc")
    eventually(lambda: fleet.models()["map"]["state"] == "ready", fleet.log, within=120)
    assert fleet.answer("map") == right
    assert fleet.answer("shares") == right


def test_a_lender_that_dies_in_an_answer_fails_its_models_until_it_lends_again(fleet: LendingFleet) -> None:
    fleet.command("apply", "--yes")
    right, workers = fleet.answer("here"), {name: row["worker"] for name, row in fleet.models().items()}
    lender = fleet.lenders["b"]
    error = fleet.lost_in_an_answer("on_b", lambda: lender.stop(signal.SIGKILL))
    assert f"the RPC host {lender.host}" in error["message"]
    eventually(lambda: fleet.reason("on_b").startswith("HostLost:"), fleet.log)
    assert fleet.answer("here") == right
    assert fleet.models()["here"]["worker"] == workers["here"]
    # The idle models have weights there, too. They notice it without a request, also where it lends again at once.
    fleet.lend("b", int(lender.host.rpartition(":")[2]))
    for name in ("on_b", "map", "shares"):
        old = workers[name]
        eventually(lambda name=name, old=old: fleet.models()[name]["worker"] not in (None, old), fleet.log, within=120)
        eventually(lambda name=name: fleet.models()[name]["state"] == "ready", fleet.log, within=120)
        assert fleet.answer(name) == right
