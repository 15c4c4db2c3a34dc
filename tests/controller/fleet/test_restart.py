"""A host of a fleet that starts again."""

from __future__ import annotations

import pytest

from mullama.controller.fleet.restart import from_fleet
from mullama.manifest.load import load_text
from mullama.runtime.base import UNDO, Origin
from mullama.struct import replace
from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio
FILE = "mullama: v1\nmodels: {own: builtin:tiny}\n"


async def test_it_serves_the_models_of_the_fleet_until_another_manifest_is_applied(server: LocalServer) -> None:
    own = Origin(path="/etc/host.yaml")
    loaded = load_text(FILE, name="host.yaml", base_dir="/", profiles=(), env={})
    models = {"a": {"from": server.script(), "description": "one"}}

    async def start_after(origin: Origin, **change: str) -> tuple[list[str], Origin]:
        models["a"] |= change
        given = replace(server.change(models), origin=origin)
        assert [line async for line in server.reconciler.apply(given)][-1]["outcome"] == "applied"
        found, source = from_fleet(loaded, own, server.records)
        return [model.description or name for name, model in found.manifest.models.items()], source

    assert from_fleet(loaded, own, server.records) == (loaded, own)
    assert await start_after(own) == (["own"], own)
    assert await start_after(Origin(fleet="prod/4.1"), description="two") == (["two"], Origin(fleet="prod/4.1"))
    assert [line async for line in server.operator.undo(None, UNDO, "prod/5.1")][-1]["outcome"] == "applied"
    assert server.operator.history()[0]["origin"]["fleet"] == "prod/5.1"
    assert server.operator.status()["origin"]["fleet"] == "prod/5.1"
    assert from_fleet(loaded, own, server.records)[1] == Origin(fleet="prod/5.1")
    assert await start_after(own, description="three") == (["own"], own)
