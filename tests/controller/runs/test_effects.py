"""Loading, probing, replacing and removing models, with real workers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.controller.runs.effects import LiveEffects, checked
from mullama.controller.status import removals
from mullama.engines import EXTRAS
from mullama.errors import MullamaError, NotFound, Refused, Unavailable
from mullama.manifest.tree import parse_resolved
from mullama.plan.observed import Machine
from mullama.reconcile.files import Files
from mullama.reconcile.scripted_models import script_files
from mullama.runtime.serving.build import DeploymentBuilder
from tests.plan.builders import STORED, manifest, model
from tests.runtime.runtime_fixture import LocalServer, until

pytestmark = pytest.mark.anyio
FULL = Machine(ram_total=2**40, ram_available=0)
"""A machine on which two contexts or sets of weights never fit at the same time."""


async def test_a_new_revision_that_does_not_load_leaves_the_old_one_serving(server: LocalServer) -> None:
    await server.apply({"a": server.script("good")})

    done = await server.apply({"a": server.script("bad", faults=True, on_load="crash segv")})

    assert done["outcome"] == "partly_applied"
    assert await server.ask("a", "say yes") == "yes"
    model = server.status("a")
    assert model["state"] == "degraded"
    assert {c["reason"] for c in model["conditions"]} == {"OldRevisionKept"}
    assert not server.pool.state.units[server.snapshot.deployments["a"].unit].pinned
    await until(lambda: len(server.pool.pids()) == 1)


async def test_a_missing_engine_ends_the_run_before_the_commit(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, "scripted", ("engine", ("no_such_package",)))

    done = await server.apply({"a": server.script("good")})

    assert "the engine scripted is not installed" in done["message"]
    assert server.snapshot.generation == 0


def test_declared_vectors_longer_than_those_of_the_weights_are_refused(tmp_path: Path) -> None:
    desired = manifest(a=model(embedding={"dimensions": 257}))
    builder = DeploymentBuilder(machine=None, prefixes=None)
    with pytest.raises(Refused, match=r"embedding\.dimensions is 257, .* have 256 numbers"):
        checked(builder, Files(tmp_path, {}), "a", desired.models["a"], STORED, desired, {})


async def test_a_failing_probe_keeps_the_old_revision_and_fails_a_new_model(server: LocalServer) -> None:
    await server.apply({"a": server.script("good")})
    probe = {"prompt": "say no", "expect": "yes"}

    done = await server.apply(
        {"a": {"from": server.script("other"), "probe": probe}, "n": {"from": server.script("n"), "probe": probe}}
    )

    assert done["outcome"] == "partly_applied"
    assert done["models"]["a"]["ok"] is False
    assert server.snapshot.deployments["a"].model.from_.endswith("good.script.json")
    assert {c["reason"] for c in server.status("n")["conditions"]} == {"ProbeFailed"}


async def test_a_crash_while_loading_counts_once(server: LocalServer) -> None:
    """The death of a worker and the failure of its start count as one failure, so it is restarted once."""
    await server.apply(
        {"a": {"from": server.script("bad", faults=True, on_load="crash exit"), "residency": {"load": "on_demand"}}}
    )
    with pytest.raises(MullamaError, match="exit code 1"):
        async with asyncio.timeout(100):
            await server.ask("a", "say yes", max_tokens=3)

    weights = server.snapshot.deployments["a"].unit.weights
    assert len(server.pool.state.workers[weights].failures) == server.pool.crashes
    assert server.status("a")["state"] == "failed"
    assert server.status("a")["conditions"][0]["reason"] == "WorkerCrashed"


async def test_a_context_that_kills_its_worker_while_it_opens_ends_the_run(server: LocalServer) -> None:
    done = await server.apply({"a": server.script("bad", faults=True, on_open="crash abort"), "b": server.script("ok")})

    assert done["outcome"] == "partly_applied"
    assert "a" in done["message"]
    assert await server.ask("b", "say yes") == "yes"


async def test_a_rename_keeps_worker_context_and_waiting_requests(server: LocalServer) -> None:
    source = server.script()
    await server.apply({"old": {"from": source, "limits": {"parallel": 1}}})
    pids = server.pool.pids()
    with server.suspended("old"):
        running = asyncio.create_task(server.ask("old", "slow 20ms count to 20"))
        await until(lambda: server.pool.state.active("old") == 1)
        waiting = asyncio.create_task(server.ask("old", "say second"))
        await until(lambda: server.pool.state.queued("old") == 1)

    done = await server.apply(
        {"new": {"from": source, "limits": {"parallel": 1}}}, moved=[{"from": "old", "to": "new"}]
    )

    assert done["outcome"] == "applied"
    assert server.pool.pids() == pids
    assert (await running).strip().endswith("20")
    assert await waiting == "second"
    with pytest.raises(NotFound):
        await server.ask("old", "say gone")


async def test_a_rename_whose_other_change_fails_serves_the_old_weights_under_the_new_name(server: LocalServer) -> None:
    await server.apply({"old": server.script("good")})

    done = await server.apply(
        {"new": server.script("bad", faults=True, on_load="crash exit")}, moved=[{"from": "old", "to": "new"}]
    )

    assert done["outcome"] == "partly_applied"
    assert await server.ask("new", "say still here") == "still here"


async def test_a_request_that_waits_during_a_replacement_is_prepared_for_the_new_model(server: LocalServer) -> None:
    """A prompt of the old template must never reach the new weights."""
    plain = "{% for m in messages %}<|im_start|>user\nsay OLD {{ m.content }}<|im_end|>{% endfor %}"
    fresh = "{% for m in messages %}<|im_start|>user\nsay NEW {{ m.content }}<|im_end|>{% endfor %}"
    limits = {"parallel": 1}
    await server.apply({"a": {"from": server.script("one"), "template": plain, "limits": limits}})
    with server.suspended("a"):
        running = asyncio.create_task(server.ask("a", "slow 10ms " + "word " * 40))
        await until(lambda: server.pool.state.active("a") == 1)
        waiting = asyncio.create_task(server.ask("a", "second"))
        await until(lambda: server.pool.state.queued("a") == 1)

        await server.apply({"a": {"from": server.script("two"), "template": fresh, "limits": limits}})

    assert (await waiting).startswith("NEW")
    assert (await running).startswith("OLD")


async def test_removing_a_model_finishes_running_requests_and_refuses_waiting_ones(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "limits": {"parallel": 1}}, "b": server.script("b")})
    with server.suspended("a"):
        running = asyncio.create_task(server.ask("a", "slow 10ms count to 30"))
        await until(lambda: server.pool.state.active("a") == 1)
        waiting = asyncio.create_task(server.ask("a", "say second"))
        await until(lambda: server.pool.state.queued("a") == 1)

        await server.apply({"b": server.script("b")})

    with pytest.raises(MullamaError, match="removed"):
        await waiting
    assert (await running).strip().endswith("30")
    await until(lambda: len(server.pool.pids()) == 1)


async def test_a_drain_deadline_ends_running_requests_with_a_reason(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "rollout": {"drain_timeout": "200ms"}}, "b": server.script("b")})
    running = asyncio.create_task(server.ask("a", "slow 50ms count to 1000"))
    await until(lambda: server.pool.state.active("a") == 1)

    await server.apply({"b": server.script("b")})

    with pytest.raises(MullamaError, match="did not finish in time"):
        await running
    await until(lambda: len(server.pool.pids()) == 1)


async def test_a_model_that_is_not_pruned_serves_until_pruning_is_on(server: LocalServer) -> None:
    await server.apply({"a": server.script(), "b": server.script("b")})

    kept = await server.apply({"b": server.script("b")}, prune={"running": False})

    assert kept["outcome"] == "applied"
    assert await server.ask("a", "say still") == "still"
    await server.apply({"b": server.script("b")}, prune={"running": True})
    with pytest.raises(NotFound):
        await server.ask("a", "say gone")


async def test_threads_and_system_change_live_and_the_new_prefix_is_used(server: LocalServer) -> None:
    source = server.script()
    await server.apply({"a": {"from": source, "system": "Be brief."}})
    pids = server.pool.pids()

    await server.apply({"a": {"from": source, "system": "You speak like a pirate, always.", "context": {"threads": 3}}})

    events = [e async for e in server.events("a", "say yes")]
    usage = next(e for e in events if isinstance(e, chat.Completed)).usage
    assert usage.cached_tokens > len("You speak like a pirate") // 3
    assert server.pool.pids() == pids


async def test_models_with_adapters_have_their_context_to_themselves(server: LocalServer, tmp_path: Path) -> None:
    """Scales hold for a whole context, so two models with other scales cannot share one."""
    (tmp_path / "x.gguf").write_bytes(b"")
    source = server.script()
    adapters = [{"from": "./x.gguf", "scale": 0.5}]
    tree = server.tree({"a": {"from": source, "adapters": adapters}, "b": {"like": "a"}, "c": source, "d": source})
    models = parse_resolved(tree).models
    builder = DeploymentBuilder(machine=None, prefixes=None)
    units = {n: builder.build(n, m, script_files(m.from_), 1).unit for n, m in models.items()}

    assert units["a"] != units["b"]
    assert units["a"].weights == units["b"].weights
    assert units["c"] == units["d"]


async def test_two_models_on_one_context_that_do_not_fit_twice_are_both_replaced(server: LocalServer) -> None:
    """Each keeps the old context open for the other unless both wait."""
    server.machine = FULL
    source = server.script()
    await server.apply({"a": source, "b": source})
    (before,) = server.pool.pids()

    changed = {"from": source, "memory": {"mmap": False}}
    done = await server.apply({"a": changed, "b": changed})

    assert done["outcome"] == "applied"
    assert before not in server.pool.pids()
    assert await server.ask("a", "say a") + await server.ask("b", "say b") == "ab"


async def test_a_unit_that_another_model_needs_stays_open_during_the_load(server: LocalServer) -> None:
    server.machine = FULL
    source = server.script()
    await server.apply({"a": source, "b": source})

    done = await server.apply({"a": {"from": source, "memory": {"mmap": False}}, "b": source})

    assert done["outcome"] == "applied"
    assert await server.ask("b", "say b") == "b"


async def test_a_replacement_that_fails_after_a_pause_loads_the_old_one_again(server: LocalServer) -> None:
    server.machine = FULL
    await server.apply({"a": server.script("good")})

    done = await server.apply({"a": server.script("bad", faults=True, on_load="crash exit")})

    assert done["outcome"] == "partly_applied"
    assert await server.ask("a", "say back") == "back"
    unit = server.snapshot.deployments["a"].unit
    assert server.pool.state.units[unit].drain_until == float("inf")


async def test_a_worker_that_dies_in_the_swap_does_not_make_the_apply_fail(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = server.script()
    await server.apply({"a": source})
    retune = server.pool.retune

    async def killing(deployment: Any) -> None:
        os.kill(server.pool.pids()[0], 9)
        await retune(deployment)

    monkeypatch.setattr(server.pool, "retune", killing)
    done = await server.apply({"a": {"from": source, "system": "New."}})
    monkeypatch.setattr(server.pool, "retune", retune)

    assert done["outcome"] == "applied"
    assert server.snapshot.generation == 2
    assert await server.ask("a", "say back") == "back"


async def test_a_model_that_is_not_pruned_stays_protected(server: LocalServer) -> None:
    b = {"from": server.script("b"), "protect": True}
    await server.apply({"a": server.script(), "b": b})

    await server.apply({"a": server.script()}, prune={"running": False})
    assert await server.ask("b", "say here") == "here"
    current, empty = server.reconciler.current, parse_resolved(server.tree({}, prune={"running": False}))
    assert removals(empty, current.overlay, current.snapshot, server.pool) == (0, 2)
    refused = await server.apply({"a": server.script()})
    assert refused["outcome"] == "refused"
    assert "b is protected" in refused["message"]
    assert await server.ask("b", "say here") == "here"


async def test_a_lowered_budget_unloads_idle_models_and_reports_those_that_stay(server: LocalServer) -> None:
    models = {"a": server.script("a"), "b": {"from": server.script("b"), "residency": {"load": "on_demand"}}}
    await server.apply(models)
    await server.ask("b", "say yes")

    await server.apply(models, hardware={"budget": {"ram": "100KiB"}})
    await until(lambda: server.status("b")["state"] == "idle")

    events = [(e["subject"], e["message"]) for e in server.event_log.kept() if e["kind"] == "evicted"]
    assert events == [("b", "b was unloaded because the budget was lowered")]
    await until(lambda: server.operator.status()["state"] == "degraded")
    assert server.condition("Degraded")["reason"] == "OverBudget"
    assert "hardware.budget allows 100.00 KiB" in server.condition("Degraded")["message"]

    await server.apply(models)
    assert server.operator.status()["state"] == "ready"
    assert server.condition("Degraded")["status"] is False


async def test_a_raised_budget_holds_for_the_models_that_come_with_it(server: LocalServer) -> None:
    models = {name: {"from": server.script(name), "context": {"size": 2048}} for name in ("a", "b")}
    await server.apply({"a": models["a"]}, hardware={"budget": {"ram": "600KiB"}})

    result = await server.apply(models, hardware={"budget": {"ram": "100MiB"}})

    assert result["outcome"] == "applied", result
    assert server.status("b")["state"] == "ready"


async def test_the_budget_stays_after_a_change_that_raised_it_and_failed(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.apply({"a": server.script()}, hardware={"budget": {"ram": "600KiB"}})
    before = server.pool.state.rules
    seen = []

    async def swap(self: LiveEffects, held: object) -> None:
        seen.append(server.pool.state.rules.budget)
        raise Unavailable("no swap")

    monkeypatch.setattr(LiveEffects, "swap", swap)
    await server.apply({"a": server.script()}, hardware={"budget": {"ram": "100MiB"}})

    assert seen == [100 * 1024**2]
    assert server.pool.state.rules == before


@pytest.mark.parametrize(
    ("requires", "lacks", "hint"),
    [
        (["vision"], "vision", "a model sees and hears by its projector, which `mmproj` names; remove it from"),
        (["embedding"], "embedding", "known models that have it are "),
        (["embedding", "vision"], "embedding, vision", "remove it from models.a.requires"),
    ],
)
async def test_a_model_without_a_required_capability_is_refused_by_its_name(
    server: LocalServer, requires: list[str], lacks: str, hint: str
) -> None:
    done = await server.apply({"a": {"from": "builtin:tiny", "requires": requires}})

    assert done["outcome"] == "refused"
    assert f"models.a.requires: a lacks {lacks}; builtin:tiny has completion" in done["message"]
    assert hint in done["hint"]
