"""Imperative commands on models, over a real reconciler."""

from __future__ import annotations

import asyncio

import pytest

from mullama.chat.inventory import CopyModel, DeleteModel
from mullama.controller.change import ProgressQueue
from mullama.controller.model_commands import _statuses
from mullama.errors import Conflict
from tests.runtime.runtime_fixture import LocalServer, until

pytestmark = pytest.mark.anyio


async def test_concurrent_commands_keep_the_changes_of_each_other(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "residency": {"load": "on_demand"}}})

    await asyncio.gather(*(server.commands.copy(CopyModel(source="a", destination=f"c{i}")) for i in range(5)))
    await server.commands.delete(DeleteModel(model="c3"))

    assert set(server.reconciler.current.overlay) == {"c0", "c1", "c2", "c4"}
    assert set(server.records.overlay()) == {"c0", "c1", "c2", "c4"}
    with pytest.raises(Conflict, match="a is declared by the options of the server, or by a manifest without a file"):
        await server.commands.delete(DeleteModel(model="a"))


async def test_a_command_that_waited_for_an_apply_does_not_restore_the_old_manifest(server: LocalServer) -> None:
    on_demand = {"residency": {"load": "on_demand"}}
    await server.apply({"a": {"from": server.script(), **on_demand}})
    slow = asyncio.create_task(server.apply({"a": {"from": server.script(), **on_demand}, "new": server.script("new")}))
    await until(lambda: server.condition("Reconciling")["status"])

    await server.commands.copy(CopyModel(source="a", destination="copy"))
    await slow

    assert set(server.snapshot.deployments) == {"a", "new", "copy"}


async def test_a_command_passes_on_the_warnings_of_its_own_model() -> None:
    progress = ProgressQueue()
    for model in ("mine", "mine", "other"):
        progress.report({"event": "warning", "model": model, "message": f"{model} reads text only"})
    done = asyncio.create_task(asyncio.sleep(0))
    assert [status.status async for status in _statuses(progress, done, "mine")] == ["warning: mine reads text only"]
