"""One missing or damaged file keeps no other model from being served: after a restart, and in changes of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.chat.inventory import DeleteModel, Loaded, LoadModel, PullModel
from mullama.controller.runs import retries
from mullama.errors import NotFound, Unavailable
from mullama.manifest.tree import parse_resolved, revision
from mullama.runtime.base import ApplyOptions
from mullama.store.records import Revision
from tests.e2e.stack import TINY, tiny_variant
from tests.runtime.runtime_fixture import CALLER, LocalServer, local_server, until

pytestmark = pytest.mark.anyio
START = ApplyOptions(trigger="start")
ON_DEMAND = {"residency": {"load": "on_demand"}}


@pytest.fixture(autouse=True)
def _short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", 0.01)


def remove(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_bytes(b"noise" * 100)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_script(path: Path) -> None:
    path.write_text("{")


CASES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing weights": ("my.gguf", remove, "does not exist"),
    "damaged weights": ("my.gguf", damage, "my.gguf"),
    "truncated weights": ("my.gguf", cut, "my.gguf"),
    "a folder in place of weights": ("my.gguf", folder, "my.gguf"),
    "missing script": ("my.script.json", remove, "No such file"),
    "damaged script": ("my.script.json", other_script, "my.script.json"),
}


@pytest.mark.parametrize(("file", "harm", "words"), CASES.values(), ids=CASES)
async def test_a_restart_serves_what_is_there(
    tmp_path: Path, file: str, harm: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / file
    path.write_text(json.dumps({"name": "my"})) if file.endswith("json") else path.write_bytes(tiny_variant(1))
    content = path.read_bytes()
    async with local_server(tmp_path) as server:
        models: dict[str, Any] = {"my": {"from": f"./{file}", **ON_DEMAND}, "other": server.script("other")}
        await server.apply(models)
    harm(path)
    async with local_server(tmp_path) as server:
        done = await server.apply(models, START)

        assert done["outcome"] == "partly_applied"
        assert await server.ask("other", "say yes") == "yes"
        my = server.status("my")
        assert my["state"] == "failed"
        assert my["conditions"][0]["reason"] == "FetchFailed"
        assert words in my["conditions"][0]["message"]
        assert server.operator.status()["state"] == "degraded"
        with pytest.raises(Unavailable, match=words):
            await server.ask("my", "say yes")

        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)
        await until(lambda: server.operator.status()["state"] == "ready")
        assert server.status("my")["state"] in ("ready", "idle")


def commit(server: LocalServer, models: dict[str, Any]) -> None:
    """Write the revision that an earlier server applied."""
    tree = server.tree(models)
    digest = revision(parse_resolved(tree))
    made = Revision(
        generation=1, revision=digest, manifest=tree, when=1.0, trigger="apply", by="", origin={}, summary={}
    )
    server.records.commit(made)


async def test_a_restart_commits_no_revision(tmp_path: Path) -> None:
    async with local_server(tmp_path) as server:
        await server.apply({"a": server.script("a"), "b": {"from": server.script("b"), **ON_DEMAND}})
    (tmp_path / "b.script.json").unlink()
    async with local_server(tmp_path) as server:
        await server.apply({"a": "./a.script.json", "b": {"from": "./b.script.json", **ON_DEMAND}}, START)

        assert server.snapshot.generation == 1
        assert [kept["generation"] for kept in server.operator.history()] == [1]


async def test_a_new_or_changed_model_without_files_is_not_applied(tmp_path: Path, server: LocalServer) -> None:
    await server.apply({"a": server.script("a")})

    new = await server.apply({"a": "./a.script.json", "n": "./gone.gguf"})
    changed = await server.apply({"a": "./gone.gguf"})

    assert (new["outcome"], changed["outcome"]) == ("not_found", "not_found")
    assert server.snapshot.generation == 1


async def test_a_first_start_is_all_or_nothing(server: LocalServer) -> None:
    done = await server.apply({"a": server.script("a"), "n": "./gone.gguf"}, START)

    assert done["outcome"] == "not_found"
    assert not server.reconciler.current.started


async def test_an_adapter_that_is_gone_fails_its_model_alone(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(TINY.read_bytes())
    async with local_server(tmp_path) as server:
        my = {"from": "./a.gguf", "adapters": [{"from": "./style.gguf"}]}
        models = {"my": my, "other": server.script("other")}
        commit(server, models)
        await server.apply(models, START)

        assert server.status("my")["state"] == "failed"
        assert "style.gguf does not exist" in server.status("my")["conditions"][0]["message"]
        assert await server.ask("other", "say yes") == "yes"


async def test_a_key_without_its_secret_is_left_out_at_a_restart(tmp_path: Path) -> None:
    keys = {name: {"secret": {"from_file": f"./{name}.key"}} for name in ("a", "b")}
    for name in keys:
        (tmp_path / f"{name}.key").write_text(f"secret-{name}")
        (tmp_path / f"{name}.key").chmod(0o600)
    async with local_server(tmp_path) as server:
        await server.apply({"my": server.script("my")}, auth={"keys": keys})
    for name, left in (("a", ["b"]), ("b", [""])):
        (tmp_path / f"{name}.key").unlink()
        async with local_server(tmp_path) as server:
            await server.apply({"my": "./my.script.json"}, START, auth={"keys": keys})

            assert [key.name for key in server.service.access().keys] == left
            assert server.operator.status()["state"] == "degraded"
            assert f"{name}.key is missing or empty" in server.condition("Synced")["message"]


@pytest.mark.parametrize("source", ["hf:org/my", "https://127.0.0.1:9/my.gguf", "ollama:127.0.0.1:9/org/my"])
async def test_an_unreachable_source_delays_no_restart(tmp_path: Path, source: str) -> None:
    async with local_server(tmp_path) as server:
        server.env["HF_ENDPOINT"] = "http://127.0.0.1:9"
        models = {"my": {"from": source, **ON_DEMAND}, "other": server.script("other")}
        commit(server, models)
        done = await server.apply(models, START)

        assert done["outcome"] == "partly_applied"
        assert await server.ask("other", "say yes") == "yes"
        assert server.status("my")["conditions"][0]["reason"] in ("Pulling", "FetchFailed")
        with pytest.raises(Unavailable, match="model 'my' cannot be served") as refused:
            await server.ask("my", "say yes")
        assert refused.value.retry_after == 5.0
        await server.reconciler.stop()


async def test_commands_on_models_need_no_file_of_another_model(tmp_path: Path) -> None:
    """Pull, copy, unload and remove work with a file missing, and say so where it is their own."""
    async with local_server(tmp_path) as server:
        server.records.save_overlay({})
        await server.apply({})
        path = tmp_path / "my.script.json"
        server.script("my"), server.script("new")
        pulled = PullModel(source=str(path), name="my")
        assert [s.status async for s in server.commands.pull(pulled)][-1] == "success"
    path.unlink()
    async with local_server(tmp_path) as server:
        await server.apply({}, START)

        assert server.status("my")["state"] == "failed"
        with pytest.raises(NotFound):
            [s async for s in server.commands.pull(pulled)]
        other = PullModel(source=str(tmp_path / "new.script.json"), name="new")
        assert [s.status async for s in server.commands.pull(other)][-1] == "success"
        assert await server.ask("new", "say yes") == "yes"
        unloaded = await server.service.answer(LoadModel(model="my", keep_alive=0), CALLER)
        assert isinstance(unloaded, Loaded)
        await server.commands.delete(DeleteModel(model="my"))
        assert list(server.snapshot.deployments) == ["new"]
        assert server.operator.status()["state"] == "ready"
