"""The operator's view: plans and undo, over a real reconciler."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mullama.chat.inventory import PullModel
from mullama.errors import Conflict, MullamaError, NotFound, Refused, Unavailable
from mullama.reconcile.files import Files
from mullama.runtime.base import UNDO, ApplyOptions, Origin
from mullama.runtime.scheduler.events import UnitKey
from mullama.struct import replace
from tests.runtime.runtime_fixture import LocalServer, local_server

pytestmark = pytest.mark.anyio

FAR = {"from": "hf:org/m", "residency": {"load": "on_demand"}}


async def plan(
    server: LocalServer, models: dict[str, Any], options: ApplyOptions, origin: Origin | None = None, **blocks: Any
) -> list[str]:
    """Return the subjects of the steps."""
    tree = await server.operator.plan(server.tree(models, **blocks), origin or Origin(), options)
    return [step["subject"] for step in tree["steps"]]


async def collect(lines: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line async for line in lines]


async def test_undo_applies_the_revision_before_as_a_new_one(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "description": "one"}})
    await server.apply({"a": {"from": server.script(), "description": "two"}})

    lines = await collect(server.operator.undo(None, replace(UNDO, by="ann")))

    assert lines[-1]["outcome"] == "applied"
    assert server.snapshot.manifest.models["a"].description == "one"
    assert [(kept["trigger"], kept["by"]) for kept in server.operator.history()] == [
        ("undo", "ann"),
        ("apply", ""),
        ("apply", ""),
    ]
    with pytest.raises(NotFound, match="not kept"):
        await collect(server.operator.undo(99, UNDO))


async def test_events_name_their_models_and_the_revision_from_which_they_follow(server: LocalServer) -> None:
    await server.apply({"a": server.script("a")})
    await server.apply({"a": server.script("a"), "b": server.script("b")})

    events = [(e["kind"], e.get("models"), e["generation"]) for e in server.event_log.kept()]

    assert ("worker", ["a"], 1) in events
    assert ("worker", ["b"], 2) in events
    assert [e for e in events if e[0] == "applied"][-1][2] == 2


async def test_the_log_lines_of_a_load_name_their_model(server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mullama.models"):
        await server.apply({"a": server.script("a")})
    lines = [(record.getMessage(), getattr(record, "models", None)) for record in caplog.records]
    assert ("a: ready", ("a",)) in lines


async def test_an_undo_is_planned_and_history_names_what_changed(server: LocalServer) -> None:
    await server.apply({"a": server.script("a")})
    await server.apply({"a": {"from": server.script("a"), "system": "x"}, "b": server.script("b")})

    planned = await server.operator.plan_undo(None)

    assert [(step["action"], step["subject"]) for step in planned["steps"]] == [("update", "a"), ("remove", "b")]
    assert planned["generation"] == 3
    assert (await server.operator.plan_undo(2))["steps"] == []
    with pytest.raises(NotFound, match="revision 77 is not kept"):
        await server.operator.plan_undo(77)
    named = [kept["summary"]["subjects"] for kept in server.operator.history()]
    assert named == [{"add": ["b"], "update": ["a"]}, {"add": ["a"]}]


async def test_models_beside_the_manifest_are_named_in_plan_and_status(server: LocalServer) -> None:
    await server.apply({"a": server.script("a")})
    for name in ("y", "x"):
        source = str(server.home / server.script(name))
        await collect(server.commands.pull(PullModel(source=source, name=name)))  # type: ignore[arg-type]

    tree = await server.operator.plan(server.tree({"a": "./a.script.json"}), Origin(), ApplyOptions())

    assert (tree["beside"], tree["steps"]) == (["x", "y"], [])
    beside = {model["name"]: model["beside_manifest"] for model in server.operator.status()["models"]}
    assert beside == {"a": False, "x": True, "y": True}


@pytest.mark.parametrize(
    ("models", "options", "error"),
    [
        ({"b": FAR}, ApplyOptions(locked=True), Refused),
        ({"b": FAR}, ApplyOptions(offline=True), Unavailable),
        ({"b": FAR}, ApplyOptions(expect="another"), Conflict),
        ({}, ApplyOptions(), Refused),
    ],
    ids=["locked", "offline", "stale", "empty"],
)
async def test_a_plan_raises_what_an_apply_with_its_options_raises(
    models: dict[str, Any], options: ApplyOptions, error: type[MullamaError], server: LocalServer
) -> None:
    await server.apply({"a": server.script()})

    with pytest.raises(error) as raised:
        await plan(server, models, options)

    applied = await server.apply(models, options)
    assert applied["outcome"] == raised.value.kind.value
    assert applied["message"] == str(raised.value)
    assert server.snapshot.generation == 1


async def test_a_plan_shows_what_its_options_allow(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "protect": True}})
    revision = server.snapshot.revision
    b = {"a": {"from": server.script(), "protect": True}, "b": FAR}

    assert await plan(server, b, ApplyOptions()) == ["b"]
    assert await plan(server, b, ApplyOptions(expect=revision)) == ["b"]
    assert await plan(server, {"a": server.script("b")}, ApplyOptions(locked=True, offline=True)) == ["a"]
    assert await plan(server, {}, ApplyOptions(allow_empty=True)) == ["a"], "a plan shows the removal that is refused"
    assert server.snapshot.revision == revision


async def test_a_locked_plan_reads_the_lock_file_next_to_its_origin(server: LocalServer, tmp_path: Path) -> None:
    origin = Origin(path=str(tmp_path / "m.yaml"))
    (tmp_path / "mullama.lock").write_text("not a lock file")

    with pytest.raises(MullamaError, match=r"mullama\.lock"):
        await plan(server, {"a": server.script()}, ApplyOptions(locked=True), origin)
    assert await plan(server, {"a": server.script()}, ApplyOptions(locked=True)) == ["a"]


async def test_only_the_plan_of_an_apply_prunes_files(server: LocalServer) -> None:
    blobs = Files.here(server.env).index.blobs
    digest = f"sha256:{hashlib.sha256(b'unused').hexdigest()}"
    path = Path(blobs.path(digest))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"unused")
    os.utime(path, (0, 0))
    models, prune = {"a": server.script()}, {"files": True, "keep": "1s"}
    await server.apply(models, ApplyOptions(trigger="watch"), prune=prune)

    assert await plan(server, models, ApplyOptions(trigger="watch"), prune=prune) == []
    assert len(await plan(server, models, ApplyOptions(trigger="apply"), prune=prune)) == 1
    assert path.exists()
    assert (await server.apply(models, ApplyOptions(trigger="apply"), prune=prune))["outcome"] == "applied"
    assert not path.exists()


async def test_a_refresh_records_the_files_as_they_are_and_changes_no_model(server: LocalServer) -> None:
    models = {name: server.script(name) for name in ("a", "b")}
    await server.apply(models, ApplyOptions())
    await server.apply({**models, "c": server.script("c")}, ApplyOptions())
    before, served = dict(server.snapshot.deployments), server.pool.pids()
    assert (await server.operator.drift())["drift"] == []
    os.utime(server.home / "a.script.json", (1, 1))
    server.script("b", context=512)
    await server.operator.look_at_files()
    assert server.status("a")["conditions"][-1]["reason"] == "FilesChanged"

    plan = await server.operator.refresh()

    assert [step["subject"] for step in plan["drift"]] == ["b"]
    assert (plan["steps"], plan["base"], plan["desired"]) == ([], server.snapshot.revision, server.snapshot.revision)
    assert [c["type"] for c in server.status("a")["conditions"]] == ["Ready"]
    assert server.status("b")["conditions"][-1]["reason"] == "FilesChanged"
    assert (server.snapshot.generation, server.pool.pids()) == (2, served)
    assert server.snapshot.deployments["b"].files == before["b"].files
    assert server.event_log.kept()[-1]["message"] == "drift: b"
    assert len(server.operator.history()) == 2
    assert await server.operator.drift() == plan, "the drift stays until an apply"


UNWATCHED = {"sync": {"watch": False}}


async def test_targets_are_applied_alone_and_history_status_and_events_say_so(server: LocalServer) -> None:
    origin = Origin(path="/m.yaml", digest="whole")
    before = {"a": server.script("a"), "b": server.script("b")}
    after = {name: {"from": source, "system": "x"} for name, source in before.items()} | {"c": server.script("c")}
    only = ApplyOptions(targets=("a",))
    await server.apply(before, origin=origin, **UNWATCHED)

    planned = await server.operator.plan(server.tree(after, routes={"r": "c"}, **UNWATCHED), origin, only)
    applied = await server.apply(after, only, origin, routes={"r": "c"}, **UNWATCHED)

    assert ([step["subject"] for step in planned["steps"]], planned["targets"]) == (["a"], ["a"])
    assert (applied["outcome"], applied["message"]) == ("applied", "revision 2 is applied (only a)")
    now = server.snapshot.manifest
    assert {name: model.system for name, model in now.models.items()} == {"a": "x", "b": None}
    assert now.routes == {}
    status = server.operator.status()
    assert (status["origin"]["targets"], status["origin"]["digest"]) == (["a"], "")
    assert [kept["origin"].get("targets") for kept in server.operator.history()] == [["a"], None]
    assert server.event_log.kept()[-1]["message"] == "revision 2 is applied (only a)"

    assert await plan(server, after, ApplyOptions(), origin, routes={"r": "c"}, **UNWATCHED) == ["b", "c", "routes"]
    again = await server.apply(after, only, origin, routes={"r": "c"}, **UNWATCHED)
    assert (again["message"], server.snapshot.generation) == ("nothing to do", 2)
    await server.apply(after, ApplyOptions(), origin, routes={"r": "c"}, **UNWATCHED)
    assert server.operator.status()["origin"]["targets"] == []


async def test_an_undo_of_targets_is_no_part_of_a_manifest(server: LocalServer) -> None:
    await server.apply({"a": server.script("a")}, **UNWATCHED)
    await server.apply({"a": {"from": server.script("a"), "system": "x"}}, ApplyOptions(targets=("a",)), **UNWATCHED)
    await collect(server.operator.undo(None, UNDO))

    assert server.snapshot.manifest.models["a"].system is None
    assert [kept["origin"].get("targets") for kept in server.operator.history()] == [None, ["a"], None]
    assert server.operator.status()["origin"]["targets"] == []


async def test_targets_of_a_file_that_the_server_watches_are_refused_and_planned_with_a_warning(
    server: LocalServer,
) -> None:
    origin, only = Origin(path="/m.yaml"), ApplyOptions(targets=("a",))
    await server.apply({"a": server.script("a")}, origin=origin)
    after = {"a": {"from": server.script("a"), "system": "x"}}
    reason = "the server watches /m.yaml (sync.watch) and would apply the rest of it at once"

    planned = await server.operator.plan(server.tree(after), origin, only)
    refused = await server.apply(after, only, origin)

    assert planned["warnings"] == [f"{reason}: apply refuses it"]
    assert (refused["outcome"], refused["message"].startswith(reason)) == ("refused", True)
    assert server.snapshot.generation == 1


async def test_unknown_targets_are_not_found_and_a_locked_part_needs_its_own_pins_only(server: LocalServer) -> None:
    await server.apply({"a": server.script("a")}, **UNWATCHED)
    after = {"a": {"from": server.script("a"), "system": "x"}, "far": FAR}

    unknown = await server.apply(after, ApplyOptions(targets=("fur",)), **UNWATCHED)
    mine = await plan(server, after, ApplyOptions(targets=("a",), locked=True), **UNWATCHED)

    assert unknown["outcome"] == "not_found"
    assert unknown["message"] == "there is no model or route 'fur' to target (did you mean far?)"
    assert mine == ["a"]
    with pytest.raises(Refused, match="hf:org/m"):
        await plan(server, after, ApplyOptions(targets=("far",), locked=True), **UNWATCHED)


async def test_a_server_that_starts_with_targets_loads_what_was_applied_before(tmp_path: Path) -> None:
    async with local_server(tmp_path) as first:
        models = {"a": first.script("a"), "b": first.script("b")}
        await first.apply(models, **UNWATCHED)
    async with local_server(tmp_path) as second:
        after = {name: {"from": source, "system": "x"} for name, source in models.items()}
        applied = await second.apply(after, ApplyOptions(targets=("a",)), **UNWATCHED)

        assert applied["outcome"] == "applied"
        served = {name: model.system for name, model in second.snapshot.manifest.models.items()}
        assert (served, second.status("b")["state"]) == ({"a": "x", "b": None}, "ready")


async def test_memory_that_models_share_counts_once(server: LocalServer) -> None:
    tiny = {"from": "builtin:tiny", "context": {"size": 512}}
    models = {"chat": tiny, "brief": {**tiny, "system": "Be brief."}, "long": {**tiny, "context": {"size": 1024}}}
    await server.apply(models)
    status = server.operator.status()
    found = {model["name"]: model for model in status["models"]}
    assert {name: model["shared_with"] for name, model in found.items()} == {
        "chat": None, "brief": "chat", "long": "chat",
    }  # fmt: skip
    assert found["chat"]["memory_own"] == found["brief"]["memory"] > found["chat"]["memory"] > 0
    assert found["brief"]["memory_own"] == 0
    assert 0 < found["long"]["memory_own"] < found["long"]["memory"]
    used = sum(model["memory_own"] for model in found.values())
    memory = status["memory"]
    assert (memory["used"], memory["names"], memory["models"]) == (used, 3, 2)
    (place,) = memory["places"]
    assert (place["name"], place["budget"]) == ("", status["machine"]["ram_total"])
    assert 0 < place["used"] < place["budget"]


async def test_the_memory_of_models_in_metrics_adds_up_to_the_memory_in_use(server: LocalServer) -> None:
    source = server.script("a")
    await server.apply({"a": source, "same": source, "long": {"from": source, "context": {"size": 512}}})

    lines = [line for line in server.operator.metrics().splitlines() if line.startswith("mullama_model_memory_bytes{")]
    values = {line.partition('"')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}
    used = server.operator.status()["memory"]["used"]
    assert set(values) == {"a", "same", "long"}
    assert sum(values.values()) == used > 0
    assert values["same"] == 0


async def test_the_status_has_the_shares_and_fallbacks_of_routes(server: LocalServer) -> None:
    routes = {
        "plain": "a",
        "mixed": {"to": [{"model": "a", "weight": 9}, {"model": "b", "weight": 1}], "fallback": ["safe"]},
        "safe": {"to": "b", "fallback": ["a"]},
        "exact": {"to": "a", "force": {"temperature": 0}},
    }
    await server.apply({"a": server.script("a"), "b": server.script("b")}, routes=routes)
    status = server.operator.status()
    assert status["routes"] == {"plain": "a", "mixed": "a", "safe": "b", "exact": "a"}
    shares = {"to": [{"model": "a", "weight": 9}, {"model": "b", "weight": 1}], "fallback": ["safe"]}
    assert status["shares"] == {"mixed": shares, "safe": {"to": [{"model": "b", "weight": 1}], "fallback": ["a"]}}


async def test_the_status_looks_once_at_a_context_of_many_names(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = {"from": server.script(), "residency": {"load": "on_demand"}}
    await server.apply(dict.fromkeys("abcdef", lazy))
    asked: list[UnitKey] = []

    def opens(unit: UnitKey) -> bool:
        asked.append(unit)
        return False

    monkeypatch.setattr(server.pool, "opens", opens)

    assert [row["state"] for row in server.operator.status()["models"]] == ["idle"] * 6

    assert len(asked) == 1


async def test_the_status_has_the_declared_revision_beside_the_one_that_serves(server: LocalServer) -> None:
    def rows() -> dict[str, tuple[str, str]]:
        return {row["name"]: (row["declared"], row["revision"]) for row in server.operator.status()["models"]}

    await server.apply({"a": server.script("a"), "b": server.script("b")})
    before = rows()
    assert all(declared == serving for declared, serving in before.values())

    probe = {"prompt": "say no", "expect": "yes"}
    await server.apply({"a": {"from": server.script("other"), "probe": probe}, "b": server.script("b")})

    assert rows()["b"] == before["b"]
    declared, serving = rows()["a"]
    assert serving == before["a"][1]
    assert declared != serving


async def test_a_server_that_starts_shows_the_revision_from_which_it_plans(tmp_path: Path) -> None:
    """A fleet would else take a host that loads its models for an empty one, and place them elsewhere."""
    async with local_server(tmp_path) as server:
        assert server.operator.stack()["generation"] == 0
        await server.apply({"a": server.script()})
        before = server.operator.stack()
    async with local_server(tmp_path) as server:
        now = server.operator.stack()
        assert server.operator.status()["state"] == "starting"
        assert (now["revision"], [*now["manifest"]["models"]]) == (before["revision"], ["a"])
        await server.apply({"a": server.script()})
        assert server.operator.stack()["revision"] == before["revision"]
