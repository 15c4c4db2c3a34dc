"""The one road of every change, with real workers: what is served, what is kept, and what is taken back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.chat.inventory import CopyModel, DeleteModel, LoadModel
from mullama.errors import Conflict, MullamaError, NotFound, Refused
from mullama.manifest.tree import parse_resolved
from mullama.runtime.base import ApplyOptions, Origin
from mullama.runtime.scheduler.state import Phase
from tests.runtime.runtime_fixture import CALLER, Stand, run, stand, until


def test_a_missing_secret_fails_before_anything_is_committed(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})
            keys = {"ci": {"secret": {"from_env": "NOT_SET"}}}

            done = await s.apply({"a": s.script("b")}, auth={"keys": keys})

            assert done["exit"] == 3
            assert "NOT_SET" in done["message"]
            last = s.records.last()
            assert last is not None
            assert last.generation == 1
            assert s.condition("Synced")["reason"] == "InvalidManifest"
            assert await s.ask("a", "say yes") == "yes"

    run(test)


def test_keys_are_in_force_before_an_address_opens(tmp_path: Path) -> None:
    """Else everybody could administer the server while its models are loaded."""

    async def test() -> None:
        async with stand(tmp_path, {"KEY": "s3cret"}) as s:
            await s.apply({"a": s.script()}, auth={"keys": {"k": {"secret": {"from_env": "KEY"}}}})

            assert s.addresses.keys_when_opened == [1]

    run(test)


def test_keys_whose_optional_secrets_are_all_absent_do_not_open_the_server_to_everybody(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            key = {"secret": {"from_env": "NOT_SET", "optional": True}}

            done = await s.apply({"a": s.script()}, auth={"keys": {"k": key}})

            assert done["exit"] == 3
            assert "open to everybody" in done["message"]
            assert s.addresses.open == ()

    run(test)


def test_a_new_secret_behind_the_same_reference_is_taken_by_the_next_apply(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path, {"KEY": "old"}) as s:
            blocks: dict[str, Any] = {"auth": {"keys": {"k": {"secret": {"from_env": "KEY"}}}}}
            await s.apply({"a": s.script()}, **blocks)
            before = s.service.access().keys[0].sha256

            s.env["KEY"] = "new"
            done = await s.apply({"a": s.script()}, **blocks)

            assert done["exit"] == 0
            assert s.service.access().keys[0].sha256 != before
            assert s.reconciler.snapshot.generation == 1

    run(test)


def test_an_address_that_is_taken_ends_the_run_with_nothing_committed(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})
            s.addresses.taken = {"127.0.0.1:9"}

            done = await s.apply({"a": s.script("b")}, server={"listen": ["127.0.0.1:9"]})

            assert done["exit"] == 10
            assert s.reconciler.snapshot.generation == 1
            assert s.addresses.open == ("127.0.0.1:0",)
            assert await s.ask("a", "say yes") == "yes"

    run(test)


def test_listeners_and_keys_go_back_when_the_generation_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with stand(tmp_path, {"KEY": "x"}) as s:
            await s.apply({"a": s.script()})

            def full(generation: object) -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(s.records, "commit", full)
            done = await s.apply(
                {"a": s.script()},
                server={"listen": ["127.0.0.1:0", "127.0.0.1:8"]},
                auth={"keys": {"k": {"secret": {"from_env": "KEY"}}}},
            )

            assert done["exit"] == 11
            assert "No space left" in done["message"]
            assert s.addresses.open == ("127.0.0.1:0",)
            assert s.service.access().keys == ()

    run(test)


def test_a_new_revision_that_does_not_load_leaves_the_old_one_serving(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script("good")})

            done = await s.apply({"a": s.script("bad", faults=True, on_load="crash segv")})

            assert done["exit"] == 8
            assert await s.ask("a", "say yes") == "yes"
            model = s.status("a")
            assert model["state"] == "degraded"
            assert {c["reason"] for c in model["conditions"]} == {"OldRevisionKept"}
            assert not s.pool.state.units[s.reconciler.snapshot.deployments["a"].unit].held
            await until(lambda: len(s.pool.pids()) == 1)

    run(test)


def test_a_failing_probe_keeps_the_old_revision_and_a_new_model_says_why(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script("good")})
            probe = {"prompt": "say no", "expect": "yes"}

            done = await s.apply(
                {"a": {"from": s.script("other"), "probe": probe}, "n": {"from": s.script("n"), "probe": probe}}
            )

            assert done["exit"] == 8
            assert done["models"]["a"]["ok"] is False
            assert s.reconciler.snapshot.deployments["a"].model.from_.endswith("good.script.json")
            assert {c["reason"] for c in s.status("n")["conditions"]} == {"ProbeFailed"}

    run(test)


def test_a_crash_while_loading_counts_once(tmp_path: Path) -> None:
    """The worker's death and the failure of its start are one thing: a restart must not come twice."""

    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply(
                {"a": {"from": s.script("bad", faults=True, on_load="crash exit"), "residency": {"load": "on_demand"}}}
            )
            with pytest.raises(MullamaError, match="exit code 1"):
                async with asyncio.timeout(100):
                    await s.ask("a", "say yes", max_tokens=3)

            weights = s.reconciler.snapshot.deployments["a"].unit.weights
            assert len(s.pool.state.workers[weights].failures) == s.pool.crashes
            assert s.status("a")["state"] == "failed"
            assert s.status("a")["conditions"][0]["reason"] == "WorkerCrashed"

    run(test)


def test_a_context_that_kills_its_worker_while_it_opens_ends_the_run(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            done = await s.apply({"a": s.script("bad", faults=True, on_open="crash abort"), "b": s.script("ok")})

            assert done["exit"] == 8
            assert "a" in done["message"]
            assert await s.ask("b", "say yes") == "yes"

    run(test)


def test_a_rename_keeps_worker_context_and_waiting_requests(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            source = s.script()
            await s.apply({"old": {"from": source, "limits": {"parallel": 1}}})
            pids = s.pool.pids()
            with s.still("old"):
                running = asyncio.create_task(s.ask("old", "slow 20ms count to 20"))
                await until(lambda: s.pool.state.active("old") == 1)
                waiting = asyncio.create_task(s.ask("old", "say second"))
                await until(lambda: s.pool.state.queued("old") == 1)

            done = await s.apply(
                {"new": {"from": source, "limits": {"parallel": 1}}}, moved=[{"from": "old", "to": "new"}]
            )

            assert done["exit"] == 0
            assert s.pool.pids() == pids
            assert (await running).strip().endswith("20")
            assert await waiting == "second"
            with pytest.raises(NotFound):
                await s.ask("old", "say gone")

    run(test)


def test_a_rename_whose_other_change_fails_serves_the_old_weights_under_the_new_name(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"old": s.script("good")})

            done = await s.apply(
                {"new": s.script("bad", faults=True, on_load="crash exit")}, moved=[{"from": "old", "to": "new"}]
            )

            assert done["exit"] == 8
            assert await s.ask("new", "say still here") == "still here"

    run(test)


def test_what_waits_while_its_model_is_replaced_is_prepared_again_for_what_answers(tmp_path: Path) -> None:
    """A prompt of the old template must never reach the new weights."""

    async def test() -> None:
        async with stand(tmp_path) as s:
            plain = "{% for m in messages %}<|im_start|>user\nsay OLD {{ m.content }}<|im_end|>{% endfor %}"
            fresh = "{% for m in messages %}<|im_start|>user\nsay NEW {{ m.content }}<|im_end|>{% endfor %}"
            limits = {"parallel": 1}
            await s.apply({"a": {"from": s.script("one"), "template": plain, "limits": limits}})
            with s.still("a"):
                running = asyncio.create_task(s.ask("a", "slow 10ms " + "word " * 40))
                await until(lambda: s.pool.state.active("a") == 1)
                waiting = asyncio.create_task(s.ask("a", "second"))
                await until(lambda: s.pool.state.queued("a") == 1)

                await s.apply({"a": {"from": s.script("two"), "template": fresh, "limits": limits}})

            assert (await waiting).startswith("NEW")
            assert (await running).startswith("OLD")

    run(test)


def test_a_model_that_is_removed_ends_what_runs_and_refuses_what_waits(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "limits": {"parallel": 1}}, "b": s.script("b")})
            with s.still("a"):
                running = asyncio.create_task(s.ask("a", "slow 10ms count to 30"))
                await until(lambda: s.pool.state.active("a") == 1)
                waiting = asyncio.create_task(s.ask("a", "say second"))
                await until(lambda: s.pool.state.queued("a") == 1)

                await s.apply({"b": s.script("b")})

            with pytest.raises(MullamaError, match="removed"):
                await waiting
            assert (await running).strip().endswith("30")
            await until(lambda: len(s.pool.pids()) == 1)

    run(test)


def test_a_drain_deadline_cuts_what_still_runs_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "rollout": {"drain_timeout": "200ms"}}, "b": s.script("b")})
            running = asyncio.create_task(s.ask("a", "slow 50ms count to 1000"))
            await until(lambda: s.pool.state.active("a") == 1)

            await s.apply({"b": s.script("b")})

            with pytest.raises(MullamaError, match="time to finish is over"):
                await running
            await until(lambda: len(s.pool.pids()) == 1)

    run(test)


def test_a_protected_model_is_not_removed_and_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "protect": True}, "b": s.script("b")})

            protected = await s.apply({"b": s.script("b")})
            empty = await s.apply({})

            assert (protected["exit"], empty["exit"]) == (9, 9)
            assert "protect: false" in protected["hint"]
            assert "--allow-empty" in empty["hint"]
            assert s.condition("Synced")["reason"] == "Refused"
            await s.apply({"a": {"from": s.script(), "protect": False}, "b": s.script("b")})
            gone = await s.apply({}, ApplyOptions(allow_empty=True))
            assert gone["exit"] == 0
            await until(lambda: s.pool.pids() == ())

    run(test)


def test_without_prune_what_runs_and_is_not_named_stays_until_it_is_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script(), "b": s.script("b")})

            kept = await s.apply({"b": s.script("b")}, prune={"running": False})

            assert kept["exit"] == 0
            assert await s.ask("a", "say still") == "still"
            await s.apply({"b": s.script("b")}, prune={"running": True})
            with pytest.raises(NotFound):
                await s.ask("a", "say gone")

    run(test)


def test_threads_and_system_change_live_and_the_new_prefix_is_used(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            source = s.script()
            await s.apply({"a": {"from": source, "system": "Be brief."}})
            pids = s.pool.pids()

            await s.apply(
                {"a": {"from": source, "system": "You speak like a pirate, always.", "context": {"threads": 3}}}
            )

            events = [e async for e in s.events("a", "say yes")]
            usage = next(e for e in events if isinstance(e, chat.Completed)).usage
            assert usage.cached_tokens > len("You speak like a pirate") // 3
            assert s.pool.pids() == pids

    run(test)


def test_models_with_adapters_have_their_context_to_themselves(tmp_path: Path) -> None:
    """Scales hold for a whole context, so two models with other scales cannot share one."""
    (tmp_path / "x.gguf").write_bytes(b"")

    async def test() -> None:
        async with stand(tmp_path) as s:
            source = s.script()
            adapters = [{"from": "./x.gguf", "scale": 0.5}]
            tree = s.tree({"a": {"from": source, "adapters": adapters}, "b": {"like": "a"}, "c": source, "d": source})
            from mullama.manifest.tree import parse_resolved
            from mullama.reconcile.scripted_models import script_files
            from mullama.runtime.serving.build import DeploymentBuilder

            models = parse_resolved(tree).models
            shop = DeploymentBuilder(machine=None, prefixes=None)
            units = {n: shop.build(n, m, script_files(m.from_), 1).unit for n, m in models.items()}

            assert units["a"] != units["b"]
            assert units["a"].weights == units["b"].weights
            assert units["c"] == units["d"]

    run(test)


def test_two_models_on_one_context_that_do_not_fit_twice_are_both_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each keeps the old context open for the other unless both wait."""
    monkeypatch.setattr("mullama.plan.make._both_fit", lambda *facts: False)

    async def test() -> None:
        async with stand(tmp_path) as s:
            source = s.script()
            await s.apply({"a": source, "b": source})
            (before,) = s.pool.pids()

            changed = {"from": source, "memory": {"mmap": False}}
            done = await s.apply({"a": changed, "b": changed})

            assert done["exit"] == 0
            assert before not in s.pool.pids()
            assert await s.ask("a", "say a") + await s.ask("b", "say b") == "ab"

    run(test)


def test_a_pause_that_another_model_would_not_survive_becomes_a_load_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullama.plan.make._both_fit", lambda *facts: False)

    async def test() -> None:
        async with stand(tmp_path) as s:
            source = s.script()
            await s.apply({"a": source, "b": source})

            done = await s.apply({"a": {"from": source, "memory": {"mmap": False}}, "b": source})

            assert done["exit"] == 0
            assert await s.ask("b", "say b") == "b"

    run(test)


def test_a_replacement_that_fails_after_a_pause_loads_the_old_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullama.plan.make._both_fit", lambda *facts: False)

    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script("good")})

            done = await s.apply({"a": s.script("bad", faults=True, on_load="crash exit")})

            assert done["exit"] == 8
            assert await s.ask("a", "say back") == "back"
            unit = s.reconciler.snapshot.deployments["a"].unit
            assert s.pool.state.units[unit].drain_until == float("inf")

    run(test)


def test_a_worker_that_dies_in_the_swap_does_not_make_the_apply_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            source = s.script()
            await s.apply({"a": source})
            retune = s.pool.retune

            async def killing(deployment: Any) -> None:
                os.kill(s.pool.pids()[0], 9)
                await retune(deployment)

            monkeypatch.setattr(s.pool, "retune", killing)
            done = await s.apply({"a": {"from": source, "system": "New."}})
            monkeypatch.setattr(s.pool, "retune", retune)

            assert done["exit"] == 0
            assert s.reconciler.snapshot.generation == 2
            assert await s.ask("a", "say back") == "back"

    run(test)


def test_undo_goes_back_and_the_file_on_disk_does_not_undo_the_undo(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "description": "one"}})
            await s.apply({"a": {"from": s.script(), "description": "two"}})

            lines = [line async for line in s.reconciler.undo(None)]

            assert lines[-1]["exit"] == 0
            assert s.reconciler.snapshot.manifest.models["a"].description == "one"
            assert [g["trigger"] for g in s.reconciler.history()] == ["undo", "apply", "apply"]
            with pytest.raises(NotFound, match="not kept"):
                [line async for line in s.reconciler.undo(99)]

    run(test)


def test_a_stale_plan_is_a_conflict(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})

            done = await s.apply({"a": s.script("b")}, ApplyOptions(expect="another"))

            assert done["exit"] == 10

    run(test)


def test_verbs_that_change_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "residency": {"load": "on_demand"}}})

            await asyncio.gather(*(s.verbs.copy(CopyModel(source="a", destination=f"c{i}")) for i in range(5)))
            await s.verbs.delete(DeleteModel(model="c3"))

            assert set(s.reconciler.overlay) == {"c0", "c1", "c2", "c4"}
            assert set(s.records.overlay()) == {"c0", "c1", "c2", "c4"}
            with pytest.raises(Conflict):
                await s.verbs.delete(DeleteModel(model="a"))

    run(test)


def test_a_verb_that_waited_for_an_apply_does_not_bring_the_old_manifest_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            on_demand = {"residency": {"load": "on_demand"}}
            await s.apply({"a": {"from": s.script(), **on_demand}})
            slow = asyncio.create_task(s.apply({"a": {"from": s.script(), **on_demand}, "new": s.script("new")}))
            await until(lambda: s.condition("Reconciling")["status"])

            await s.verbs.copy(CopyModel(source="a", destination="copy"))
            await slow

            assert set(s.reconciler.snapshot.deployments) == {"a", "new", "copy"}

    run(test)


def test_a_server_that_comes_back_serves_models_that_wait_to_be_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        models = {"a": {"from": "./a.script.json", "residency": {"load": "on_demand"}}}
        async with stand(tmp_path) as s:
            s.script()
            await s.apply(models)
        async with stand(tmp_path) as s:
            done = await s.apply(models, ApplyOptions(trigger="start"))

            assert done["exit"] == 0
            assert await s.ask("a", "say back") == "back"

    run(test)


def test_weights_that_ended_the_server_three_times_are_left_alone_until_somebody_applies(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})
            weights = s.reconciler.snapshot.deployments["a"].unit.weights
        async with stand(tmp_path) as s:
            s.pool._attempts.counts[weights] = 3
            refused = await s.apply({"a": s.script()}, ApplyOptions(trigger="start"))
            assert refused["exit"] == 8
            assert "ended 3 times" in s.status("a")["conditions"][0]["message"]

            asked = await s.apply({"a": s.script()})

            assert asked["exit"] == 0
            assert await s.ask("a", "say back") == "back"

    run(test)


def test_stopping_ends_an_apply_that_loads_and_tells_its_reader(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            applying = asyncio.create_task(s.apply({"a": s.script("slow", faults=True, on_load="hang")}))
            await until(lambda: bool(s.pool._starts))

            await s.reconciler.stop()

            assert "stopping" in (await applying)["message"]
            assert s.pool.pids() == ()

    run(test)


def test_a_person_who_loads_a_failed_model_has_it_tried_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": {"from": s.script(), "residency": {"load": "on_demand"}}})
            unit = s.reconciler.snapshot.deployments["a"].unit
            s.pool.state.workers[unit.weights].hopeless = True
            s.pool.state.workers[unit.weights].error = Refused("it failed before")
            with pytest.raises(Refused):
                await s.ask("a", "say no")

            await s.service.answer(LoadModel(model="a"), CALLER)

            assert s.pool.phase(unit) is Phase.READY

    run(test)


def test_old_contexts_are_forgotten(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            source = s.script()
            for number in range(12):
                await s.apply({"a": {"from": source, "context": {"size": 512 + number}}})

            await until(lambda: len(s.pool.state.units) == 1)
            assert len(s.pool._units) <= 2

    run(test)


def test_stand_is_torn_down(tmp_path: Path) -> None:
    """The stand itself leaves no worker behind, or no other test here means anything."""

    async def test() -> None:
        s = Stand(tmp_path)
        await s.apply({"a": s.script()})
        (pid,) = s.pool.pids()
        await s.pool.abort()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(test)


def test_a_change_that_waits_for_another_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            await s.apply({"a": s.script()})
            slow = {"prompt": "slow 50ms count to 20", "expect": "20"}
            first = asyncio.create_task(s.apply({"a": {"from": s.script("b"), "probe": slow}}))
            await until(lambda: s.condition("Reconciling")["status"] is True)

            lines = s.reconciler.apply(s.tree({"a": s.script("c")}), Origin(), ApplyOptions())
            told = [line async for line in lines]

            assert (await first)["exit"] == 0
            assert told[0] == {"event": "phase", "phase": "wait"}
            assert told[-1]["exit"] == 0

    run(test)


def test_what_prune_running_leaves_serves_on_until_what_runs_is_pruned_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with stand(tmp_path) as s:
            b = {"from": s.script("b"), "protect": True}
            await s.apply({"a": s.script(), "b": b})

            await s.apply({"a": s.script()}, prune={"running": False})
            assert await s.ask("b", "say here") == "here"
            assert s.reconciler.removals(parse_resolved(s.tree({}, prune={"running": False}))) == (0, 2)
            refused = await s.apply({"a": s.script()})
            assert refused["exit"] == 9
            assert "b is protected" in refused["message"]
            assert await s.ask("b", "say here") == "here"

    run(test)
