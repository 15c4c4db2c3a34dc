"""Files that change on disk: noticed before each load, shown as drift, never served under another digest."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.errors import MullamaError, Unavailable
from mullama.plan.steps import Cause, Cost, Plan
from tests import ggufs
from tests.runtime.runtime_fixture import LocalServer, until

pytestmark = pytest.mark.anyio

ON_DEMAND = {"load": "on_demand"}


def _script(answer: str) -> bytes:
    """Return a script that always gives this answer."""
    return json.dumps({"name": "a", "faults": True, "rules": [{"when": "", "say": answer}]}).encode()


def _digest(answer: str) -> str:
    return f"sha256:{hashlib.sha256(_script(answer)).hexdigest()}"


def _write(server: LocalServer, answer: str, name: str = "a") -> dict[str, Any]:
    """Write a script and return a model that loads it on demand."""
    (server.home / f"{name}.script.json").write_bytes(_script(answer))
    return {"from": f"./{name}.script.json", "residency": ON_DEMAND}


def _overwrite(path: Path, data: bytes) -> None:
    """Overwrite in place: the inode stays. The clock of the file system may be coarse, so the time is set."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(data)
    new.rename(path)


async def _unload(server: LocalServer) -> None:
    server.pool.keep_alive("a", 0.0)
    await until(lambda: server.pool.pids() == ())


async def _crash(server: LocalServer) -> None:
    (pid,) = server.pool.pids()
    os.kill(pid, 9)
    await until(lambda: server.pool.pids() != (pid,))


async def _plan(server: LocalServer, models: dict[str, Any]) -> Plan:
    return await server.reconciler.plan(server.change(models))


@pytest.mark.parametrize("end", [_unload, _crash], ids=["unload", "crash"])
@pytest.mark.parametrize("change", [_overwrite, _replace], ids=["overwrite", "replace"])
@pytest.mark.parametrize("load", ["on_demand", "at_start"])
async def test_a_changed_file_is_served_as_what_it_is_now(
    server: LocalServer, change: Callable[[Path, bytes], None], end: Callable[[LocalServer], Awaitable[None]], load: str
) -> None:
    models = {"a": {**_write(server, "old"), "residency": {"load": load}}, "b": server.script("b")}
    await server.apply({"a": models["a"]})
    assert await server.ask("a", "x") == "old"
    before = server.snapshot.deployments["a"]

    change(server.home / "a.script.json", _script("new"))
    await end(server)

    assert await server.ask("a", "x") == "new"
    after = server.snapshot.deployments["a"]
    assert (before.files.digest, after.files.digest) == (_digest("old"), _digest("new"))
    assert after.options.state_key != before.options.state_key
    assert server.status("a")["digest"] == _digest("new")
    assert (await _plan(server, {"a": models["a"]})).empty


async def test_a_file_that_changed_under_a_loaded_model_is_drift_until_it_is_applied(server: LocalServer) -> None:
    models = {"a": _write(server, "old"), "b": _write(server, "b", "b")}
    await server.apply(models)
    assert await server.ask("a", "x") == "old"
    _replace(server.home / "a.script.json", _script("new"))

    plan = await _plan(server, models)
    (step,) = plan.steps
    assert (step.subject, step.cause, step.cost) == ("a", Cause.DRIFT, Cost.FILES)
    assert "a.script.json changed on disk" in step.detail
    drifted = next(c for c in server.status("a")["conditions"] if c["type"] == "Drifted")
    assert (drifted["status"], drifted["reason"]) == (True, "FilesChanged")
    assert not [c for c in server.status("b")["conditions"] if c["type"] == "Drifted"]
    assert await server.ask("a", "x") == "old", "the loaded bytes serve under their digest"
    assert server.status("a")["digest"] == _digest("old")

    assert (await server.apply(models))["outcome"] == "applied"
    assert await server.ask("a", "x") == "new"
    assert (await _plan(server, models)).empty


async def test_a_file_that_is_gone_under_a_loaded_model_is_reported_as_such(server: LocalServer) -> None:
    await server.apply({"a": _write(server, "old")})
    await server.ask("a", "x")
    path = server.home / "a.script.json"
    path.unlink()

    await server.operator.look_at_files()
    drifted = next(c for c in server.status("a")["conditions"] if c["type"] == "Drifted")
    assert (drifted["reason"], drifted["message"]) == ("FilesChanged", f"{path} does not exist")
    assert await server.ask("a", "x") == "old"


async def test_a_live_edit_does_not_hide_a_changed_file(server: LocalServer) -> None:
    model = _write(server, "old")
    await server.apply({"a": model})
    await server.ask("a", "x")
    _replace(server.home / "a.script.json", _script("new"))

    (step,) = (await _plan(server, {"a": {**model, "system": "Be brief."}})).steps
    assert (step.cost, step.cause) == (Cost.FILES, Cause.DESIRED)
    assert "changed on disk" in step.detail
    await server.apply({"a": {**model, "system": "Be brief."}})
    assert await server.ask("a", "x") == "new"


@pytest.mark.parametrize("load", ["on_demand", "at_start"])
async def test_a_pinned_digest_is_required_at_every_load(server: LocalServer, load: str) -> None:
    model = {**_write(server, "old"), "digest": _digest("old"), "residency": {"load": load}}
    await server.apply({"a": model})
    assert await server.ask("a", "x") == "old"

    _overwrite(server.home / "a.script.json", _script("new"))
    (step,) = (await _plan(server, {"a": model})).steps
    assert "its digest is pinned" in step.detail
    applied = await server.apply({"a": model})
    assert applied["outcome"] == "partly_applied"
    assert f"changed from {_digest('old')} to {_digest('new')}" in applied["models"]["a"]["message"]
    await _unload(server)
    with pytest.raises(MullamaError, match=f"changed from {_digest('old')} to {_digest('new')}"):
        await server.ask("a", "x")
    assert server.status("a")["state"] == "failed"
    assert server.pool.pids() == ()

    _overwrite(server.home / "a.script.json", _script("old"))
    assert (await server.apply({"a": model}))["outcome"] == "applied"
    assert await server.ask("a", "x") == "old"


async def test_a_copy_of_the_same_bytes_is_no_drift_and_loads(server: LocalServer) -> None:
    model = _write(server, "old")
    await server.apply({"a": model})
    await server.ask("a", "x")
    generation, unit = server.snapshot.generation, server.snapshot.deployments["a"].unit

    _replace(server.home / "a.script.json", _script("old"))
    await _unload(server)

    assert (await _plan(server, {"a": model})).empty
    assert await server.ask("a", "x") == "old"
    assert (server.snapshot.generation, server.snapshot.deployments["a"].unit) == (generation, unit)
    await _unload(server)
    assert await server.ask("a", "x") == "old"


async def test_a_missing_or_damaged_file_is_an_error_of_its_model_alone(server: LocalServer) -> None:
    models = {"a": _write(server, "old"), "b": _write(server, "b", "b")}
    await server.apply(models)
    await server.ask("a", "x")
    (server.home / "a.script.json").unlink()
    await _unload(server)

    with pytest.raises(Unavailable, match=r"a\.script\.json: No such file"):
        await server.ask("a", "x")
    assert await server.ask("b", "x") == "b"
    (server.home / "a.script.json").write_text("{")
    assert "is not JSON" in (await server.apply(models))["models"]["a"]["message"]
    _write(server, "again")
    assert (await server.apply(models))["outcome"] == "applied"
    assert await server.ask("a", "x") == "again"


async def test_requests_that_wait_during_the_change_are_answered_by_the_new_file(server: LocalServer) -> None:
    await server.apply({"a": _write(server, "old")})
    await server.ask("a", "x")
    await _unload(server)
    _replace(server.home / "a.script.json", _script("new"))

    answers = await asyncio.gather(*(server.ask("a", f"x{number}") for number in range(5)))

    assert answers == ["new"] * 5
    changes = [event for event in server.event_log.kept() if event["kind"] == "files-changed"]
    assert len(changes) == 1, "described again once"


async def test_the_new_description_changes_no_other_model(server: LocalServer) -> None:
    """A client has unloaded `b`; that `a` changed on disk does not load it."""
    models = {"a": _write(server, "old"), "b": {**_write(server, "b", "b"), "residency": {"load": "at_start"}}}
    await server.apply(models)
    await server.ask("a", "x")
    for name in models:
        server.pool.keep_alive(name, 0.0)
    await until(lambda: server.pool.pids() == ())
    _replace(server.home / "a.script.json", _script("new"))

    assert await server.ask("a", "x") == "new"
    assert server.status("b")["state"] == "idle"


async def test_a_changed_adapter_is_another_context(server: LocalServer) -> None:
    path = server.home / "style.gguf"
    path.write_bytes(ggufs.adapter("scripted").bytes())
    models = {"a": {**_write(server, "old"), "adapters": [{"from": "./style.gguf"}]}}
    await server.apply(models)
    await server.ask("a", "x")
    before = server.snapshot.deployments["a"]

    _overwrite(path, ggufs.adapter("scripted", alpha=4.0).bytes())
    (step,) = (await _plan(server, models)).steps
    assert f"{path} changed on disk" in step.detail
    await _unload(server)
    assert await server.ask("a", "x") == "old"

    after = server.snapshot.deployments["a"]
    assert after.unit.weights == before.unit.weights
    assert after.options.state_key != before.options.state_key
    assert (await _plan(server, models)).empty

    _overwrite(path, b"GGUF")
    await _unload(server)
    with pytest.raises(MullamaError, match=r"style\.gguf"):
        await server.ask("a", "x")
