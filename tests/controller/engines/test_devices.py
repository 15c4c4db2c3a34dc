"""Models on devices: placement, budgets and eviction by device, and hosts that vanish and return."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.errors import Refused, Unavailable
from mullama.runtime.worker.process import HostLost
from tests.lent_devices import MIB, LentDevices
from tests.runtime.runtime_fixture import LocalServer, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def lent() -> Iterator[tuple[LentDevices, LentDevices]]:
    with LentDevices(256 * MIB) as first, LentDevices(64 * MIB) as second:
        yield first, second


def tiny(**gpu: Any) -> dict[str, Any]:
    """The built-in model with these fields of `gpu` and a small context."""
    return {"from": "builtin:tiny", "gpu": gpu, "context": {"size": 512}, "limits": {"parallel": 1}}


def hardware(*hosts: LentDevices, **budget: Any) -> dict[str, Any]:
    return {"rpc": [one.host for one in hosts], **({"budget": {"gpu": budget}} if budget else {})}


def layers(server: LocalServer, model: str) -> dict[str, int]:
    return {device["name"]: device["layers"] for device in server.status(model)["devices"]}


async def answer(server: LocalServer, model: str) -> str:
    """Return the first tokens of a greedy answer, with those of its reasoning."""
    events = server.events(model, QUESTION, sampling=chat.Sampling(temperature=0.0), max_tokens=12)
    return "".join([e.text async for e in events if isinstance(e, chat.TextDelta | chat.ThinkingDelta)])


async def test_models_are_placed_as_declared_and_answer_as_on_the_cpu(
    server: LocalServer, lent: tuple[LentDevices, LentDevices]
) -> None:
    declared = {
        "cpu": (tiny(layers=0), {}),
        "map": (tiny(layers={"0": 2, "1": 6}), {"RPC0": 2, "RPC1": 6}),
        "shares": (tiny(layers="all", tensor_split=[3, 1]), {"RPC0": 6, "RPC1": 2}),
        "main": (tiny(layers="all", split="none", main=1), {"RPC1": 8}),
        "named": (tiny(layers=5, devices=[lent[1].host]), {"RPC1": 5}),
        "auto": (tiny(devices=["rpc0"]), {"RPC0": 8}),
    }

    done = await server.apply({name: model for name, (model, _) in declared.items()}, hardware=hardware(*lent))

    assert done["outcome"] == "applied", done
    assert {name: layers(server, name) for name in declared} == {name: found for name, (_, found) in declared.items()}
    answers = {name: await answer(server, name) for name in declared}
    assert set(answers.values()) == {answers["cpu"]} != {""}
    metrics = server.operator.metrics()
    assert 'mullama_device_up{device="RPC0"} 1.0' in metrics
    assert f'mullama_device_total_bytes{{device="RPC1"}} {64 * MIB / 10**7:.7f}e+07' in metrics
    assert 'mullama_model_device_bytes{device="RPC1",model="main"}' in metrics
    assert 'mullama_model_device_bytes{device="RPC0",model="main"}' not in metrics
    gpus = server.operator.status()["machine"]["gpus"]
    assert [(g["name"], g["host"], g["total"], g["fault"]) for g in gpus] == [
        ("RPC0", lent[0].host, 256 * MIB, None),
        ("RPC1", lent[1].host, 64 * MIB, None),
    ]


async def test_a_model_whose_device_is_missing_is_alone_without_service(server: LocalServer) -> None:
    done = await server.apply({"gone": tiny(devices=["CUDA7"]), "right": tiny(layers=0)})
    assert done["outcome"] == "partly_applied"
    assert done["models"]["right"]["ok"]
    assert "there is no device 'CUDA7'" in done["models"]["gone"]["message"]
    assert await answer(server, "right")
    gone = server.status("gone")
    assert gone["state"] == "failed"
    assert any("there is no device 'CUDA7'" in condition["message"] for condition in gone["conditions"])
    with pytest.raises(Unavailable, match="CUDA7"):
        await answer(server, "gone")
    done = await server.apply({"gone": tiny(layers=0), "right": tiny(layers=0)})
    assert done["outcome"] == "applied"
    assert await answer(server, "gone") == await answer(server, "right")


async def test_automatic_layers_keep_within_the_budget_of_a_device(
    server: LocalServer, lent: tuple[LentDevices, LentDevices]
) -> None:
    wide = {**tiny(devices=["RPC0"]), "context": {"size": 1024}, "limits": {"parallel": 16}}  # 8 MiB of cache a layer
    await server.apply({"a": wide}, hardware=hardware(*lent, RPC0=40 * MIB))

    assert 0 < layers(server, "a")["RPC0"] < 8
    assert server.status("a")["devices"][0]["bytes"] <= 40 * MIB


async def test_a_change_that_needs_no_load_keeps_the_placement(
    server: LocalServer, lent: tuple[LentDevices, LentDevices]
) -> None:
    """What is free is less by what the model itself took, so a new choice would be another one."""
    await server.apply({"a": tiny(devices=["RPC0"])}, hardware=hardware(*lent))
    before, placed = server.status("a")["worker"], layers(server, "a")
    assert placed == {"RPC0": 8}
    with LentDevices(MIB) as small:
        await server.apply({"a": {**tiny(devices=["RPC0"]), "system": "Be brief."}}, hardware=hardware(*lent, RPC0=MIB))
        assert server.status("a")["worker"] == before
        done = await server.apply({"a": {**tiny(devices=["RPC2"])}}, hardware=hardware(*lent, small))

    assert done["outcome"] == "applied"  # on the CPU: the device holds no layer
    assert layers(server, "a") == {}


async def test_devices_that_are_not_there_are_refused_with_those_that_are(
    server: LocalServer, lent: tuple[LentDevices, LentDevices]
) -> None:
    done = await server.apply({"a": tiny(devices=["CUDA3"])}, hardware=hardware(*lent))

    assert "no device 'CUDA3'" in str(done)
    assert f"RPC0 ({lent[0].host})" in str(done)


async def test_a_full_device_evicts_the_model_on_it(server: LocalServer, lent: tuple[LentDevices, LentDevices]) -> None:
    def on(device: str, size: int) -> dict[str, Any]:
        model = tiny(layers="all", devices=[device])
        return {**model, "context": {"size": size}, "residency": {"load": "on_demand"}}

    models = {"first": on("RPC0", 512), "other": on("RPC1", 512), "second": on("RPC0", 1024)}
    await server.apply(models, hardware=hardware(*lent, RPC0=18 * MIB, RPC1=18 * MIB))
    for name in ("other", "first"):  # `other` is used least recently, on a device that has room
        await answer(server, name)

    # Of equal weights one worker has both contexts, so only the larger context must find room.
    await answer(server, "second")

    assert {name: server.status(name)["state"] for name in models} == {
        "first": "idle", "other": "ready", "second": "ready",
    }  # fmt: skip
    huge = tiny(layers="all", devices=["RPC0"])
    huge = {
        **huge,
        "context": {"size": 1024, "pool": "worst_case"},
        "limits": {"parallel": 64},
        "residency": {"load": "on_demand"},
    }
    await server.apply({"huge": huge}, hardware=hardware(*lent, RPC0=18 * MIB))
    with pytest.raises(Refused, match="not enough memory on RPC0"):
        await answer(server, "huge")


async def ask_until_it_goes(server: LocalServer, model: str, host: LentDevices) -> None:
    """Kill the host after the first text of an answer."""
    async for event in server.events(model, QUESTION, max_tokens=400, ignore_eos=True):
        if isinstance(event, chat.TextDelta | chat.ThinkingDelta):
            host.stop(signal.SIGKILL)


async def test_a_host_that_vanishes_in_an_answer_fails_its_model_alone_until_it_returns(
    server: LocalServer, lent: tuple[LentDevices, LentDevices]
) -> None:
    gone = LentDevices(64 * MIB)
    try:
        models = {"here": tiny(layers=0), "away": tiny(layers="all", devices=["RPC1"])}
        await server.apply(models, hardware=hardware(lent[0], gone))
        right = await answer(server, "here")
        assert await answer(server, "away") == right
        other = server.status("here")["worker"]

        with pytest.raises(HostLost, match=f"the RPC host {gone.host} does not answer, which ended the worker"):
            await ask_until_it_goes(server, "away", gone)

        await until(lambda: server.status("away")["conditions"][0]["reason"] == "HostLost")
        state = server.status("away")
        assert state["state"] in ("failed", "loading")
        assert gone.host in state["conditions"][0]["message"]
        assert server.status("here")["worker"] == other
        assert await answer(server, "here") == right
        request = chat.ChatRequest(model="away", messages=(chat.text_message("user", QUESTION),))
        assert not server.pool.quarantine.suspects(request)
        with pytest.raises(Unavailable, match=f"cannot be served: the RPC host {gone.host}") as refusal:
            await answer(server, "away")  # at once, not when its turn in the queue ends
        assert refusal.value.retry_after is not None
        worker = server.pool.state.workers[server.snapshot.deployments["away"].unit.weights]
        assert len(worker.excused) == len(worker.failures) > 0

        with LentDevices(64 * MIB, listen=gone.host):
            await until(lambda: server.status("away")["state"] == "ready")
            assert await answer(server, "away") == right
            server.pool.unload("away", forced=True)  # before the host ends
            await until(lambda: server.status("away")["worker"] is None)
    finally:
        gone.stop(signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the connections of a process")
async def test_a_host_that_is_started_again_under_an_idle_model_gets_its_weights_again(server: LocalServer) -> None:
    """No request is needed for it: the first one after the start would fail."""
    lender = LentDevices(64 * MIB)
    try:
        await server.apply({"away": tiny(layers="all", devices=["RPC0"])}, hardware=hardware(lender))
        right, worker = await answer(server, "away"), server.status("away")["worker"]
        lender.stop(signal.SIGKILL)
        lender = LentDevices(64 * MIB, listen=lender.host)
        await until(lambda: server.status("away")["worker"] not in (None, worker))
        await until(lambda: server.status("away")["state"] == "ready")
        assert await answer(server, "away") == right
        server.pool.unload("away", forced=True)  # before the host ends
        await until(lambda: server.status("away")["worker"] is None)
    finally:
        lender.stop(signal.SIGKILL)


async def test_a_model_whose_host_is_down_at_the_start_serves_when_it_answers(
    server: LocalServer, lent: tuple[LentDevices, LentDevices]
) -> None:
    with LentDevices(64 * MIB) as later:
        host = later.host
    models = {"here": tiny(layers=0), "away": tiny(devices=[host]), "any": tiny()}
    done = await server.apply(models, hardware={"rpc": [lent[0].host, host]})

    assert done["outcome"] == "partly_applied"
    assert f"the RPC host {host} does not answer" in str(done)
    assert layers(server, "any") == {"RPC0": 8}  # a host that is down is left out where no model names it
    fault = server.operator.status()["machine"]["gpus"][1]["fault"]
    assert fault == f"the RPC host {host} does not answer: Connection refused"
    assert 'mullama_device_up{device="RPC1"} 0.0' in server.operator.metrics()
    with LentDevices(64 * MIB, listen=host):
        await until(lambda: server.status("away")["state"] == "ready")
        assert layers(server, "away") == {"RPC1": 8}
        server.pool.unload("away", forced=True)
        await until(lambda: server.status("away")["worker"] is None)
