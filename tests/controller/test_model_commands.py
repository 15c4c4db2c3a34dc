"""Imperative commands on models, over a real reconciler."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mullama.chat.inventory import CopyModel, DeleteModel, PullModel, SetAdapterScales
from mullama.controller.model_commands import _statuses
from mullama.controller.runs.change import ProgressQueue
from mullama.errors import Conflict, Invalid, NotFound, Unsupported
from tests import ggufs
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


async def test_a_failed_pull_is_an_error_of_its_client_and_no_condition_of_the_server(server: LocalServer) -> None:
    await server.apply({"a": server.script()})

    with pytest.raises(NotFound, match="does not exist"):
        async for _ in server.commands.pull(PullModel(source=str(server.home / "absent.gguf"))):
            pass

    await until(lambda: server.condition("Reconciling")["status"] is False)
    assert server.condition("Synced")["status"] is True
    assert server.reconciler.current.overlay == {}


async def test_scales_of_adapters_are_set_for_models_beside_the_manifest(server: LocalServer) -> None:
    file = Path(server.home) / "style.gguf"
    file.write_bytes(ggufs.adapter("scripted", alpha=1.0).bytes())
    adapters = [{"from": str(file), "scale": 0.5, "name": "style"}]
    await server.apply({"a": {"from": server.script(), "adapters": adapters}})
    await server.commands.copy(CopyModel(source="a", destination="mine"))
    before = server.snapshot.deployments["mine"]

    await server.commands.set_adapter_scales(SetAdapterScales(model="mine", scales=(("style", 0.25),)))

    after = server.snapshot.deployments["mine"]
    assert [adapter.scale for adapter in after.options.adapters] == [0.25]
    assert after.unit == before.unit, "the model stays loaded"
    assert server.records.overlay()["mine"]["adapters"][0]["scale"] == 0.25
    assert [adapter.scale for adapter in server.snapshot.deployments["a"].options.adapters] == [0.5]


@pytest.mark.parametrize(
    ("scales", "error"),
    [
        (((0, 0.5),), None),
        ((("style", 0.5),), None),
        (((0, 1.0),), r"the manifest declares the scales \[0.5\] for the adapters of \"a\""),
        ((), "the manifest declares the scales"),
        (((1, 0.5),), r'\[0\].id: the model "a" has no adapter 1'),
    ],
)
async def test_scales_that_the_manifest_does_not_declare_are_refused(
    scales: tuple[tuple[int | str, float], ...], error: str | None, server: LocalServer
) -> None:
    file = Path(server.home) / "style.gguf"
    file.write_bytes(ggufs.adapter("scripted", alpha=1.0).bytes())
    await server.apply(
        {"a": {"from": server.script(), "adapters": [{"from": str(file), "scale": 0.5, "name": "style"}]}}
    )
    asked = SetAdapterScales(model="a", scales=scales)
    if error is None:
        await server.commands.set_adapter_scales(asked)
        return
    with pytest.raises((Unsupported, Invalid), match=error):
        await server.commands.set_adapter_scales(asked)
    assert not server.reconciler.current.overlay


async def test_a_command_passes_on_the_warnings_of_its_own_model() -> None:
    progress = ProgressQueue()
    for model in ("mine", "mine", "other"):
        progress.report({"event": "warning", "model": model, "message": f"{model} reads text only"})
    done = asyncio.create_task(asyncio.sleep(0))
    assert [status.status async for status in _statuses(progress, done, "mine")] == ["warning: mine reads text only"]
