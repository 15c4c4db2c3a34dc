"""The document of one model, over a real reconciler, pool and worker with scripted models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mullama.chat.inventory import PullModel
from mullama.controller.runs.change import Change
from mullama.errors import NotFound
from mullama.manifest.load import load
from mullama.runtime.base import ApplyOptions, Origin
from mullama.server.operator_api.response_schemas import MODEL_DOCUMENT, WORKER_LOG
from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio

TEXT = """mullama: v1
server: {listen: ["127.0.0.1:0"]}
defaults: {context: {size: 2048}}
models:
  a: {from: ./a.script.json, system: You answer., residency: {ttl: 5m}}
  b: {like: a, context: {size: 1024}}
"""


async def apply_file(server: LocalServer, path: Path, text: str) -> None:
    path.write_text(text)
    loaded = load(str(path), env=server.env)
    change = Change(desired=loaded.manifest, origin=Origin(path=str(path)), options=ApplyOptions())
    async for _ in server.reconciler.apply(change):
        pass


async def document(server: LocalServer, name: str, *, paths: bool = True) -> dict[str, Any]:
    found = await server.operator.model(name, paths=paths)
    Draft202012Validator(MODEL_DOCUMENT).validate(found)  # type: ignore[arg-type]
    return found


def value(found: dict[str, Any], path: str) -> dict[str, Any]:
    return next(one for one in found["values"] if one["path"] == path)


async def test_each_value_of_a_model_has_its_origin_and_its_cost(server: LocalServer, tmp_path: Path) -> None:
    server.script("a")
    path = tmp_path / "m.yaml"
    await apply_file(server, path, TEXT)

    b = await document(server, "b")

    assert b["values_problem"] == ""
    size = value(b, "context.size")
    assert (size["value"], size["layer"], size["line"], size["cost"]) == (1024, "model", 6, "context")
    system = value(b, "system")
    assert (system["layer"], system["name"], system["file"], system["line"]) == ("like", "a", str(path), 5)
    assert value(b, "residency.ttl")["value"] == "5m"
    assert value(b, "limits.parallel")["layer"] == "builtin"
    assert value(await document(server, "a"), "context.size")["layer"] == "defaults"


async def test_a_changed_file_gives_no_wrong_place(server: LocalServer, tmp_path: Path) -> None:
    server.script("a")
    path = tmp_path / "m.yaml"
    await apply_file(server, path, TEXT)
    path.write_text(TEXT.replace("You answer.", "You ask.").replace("defaults:", "# new\ndefaults:"))

    a = await document(server, "a")

    assert "other values" in a["values_problem"]
    assert (value(a, "system")["value"], value(a, "system")["layer"], value(a, "system")["line"]) == (
        "You answer.", "applied", None,
    )  # fmt: skip
    assert value(a, "context.size")["line"] == 4
    path.write_text("models: [")
    broken = await document(server, "a")
    assert "m.yaml" in broken["values_problem"]
    assert value(broken, "system")["layer"] == "applied"


async def test_a_manifest_without_a_file_and_models_of_commands_have_their_layer(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script("a"), "system": "x"}})
    async for _ in server.commands.pull(PullModel(source=str(server.home / server.script("c")), name="c")):
        pass

    assert value(await document(server, "a"), "system")["layer"] == "applied"
    assert "without a file" in (await document(server, "a"))["values_problem"]
    assert value(await document(server, "c"), "residency.load")["layer"] == "command"


async def test_the_contexts_over_the_same_weights_and_their_content(server: LocalServer) -> None:
    source = server.script("a")
    await server.apply({"a": source, "b": {"from": source, "context": {"size": 512}}, "c": server.script("other")})

    a = await document(server, "a")

    assert [one["models"] for one in a["contexts"]] == [["a"], ["b"]]
    assert [one["state"] for one in a["contexts"]] == ["ready", "ready"]
    assert a["contexts"][1]["size"] == 512
    assert a["contexts"][0]["cells"] > 0
    assert a["worker"]["pid"] == server.status("a")["worker"]
    assert a["model"]["name"] == "a"


async def test_places_of_files_are_for_administrators(server: LocalServer, tmp_path: Path) -> None:
    server.script("a")
    await apply_file(server, tmp_path / "m.yaml", TEXT)

    (shown,) = (await document(server, "a"))["files"]
    (hidden,) = (await document(server, "a", paths=False))["files"]

    assert (shown["path"], shown["lock"], shown["stored"]) == (str(tmp_path / "a.script.json"), "local", True)
    assert hidden == {**shown, "path": None}


async def test_a_route_leads_to_its_model_and_an_unknown_name_to_similar_ones(server: LocalServer) -> None:
    await server.apply({"chat": server.script("a")}, routes={"default": "chat"})

    found = await document(server, "default")

    assert (found["model"]["name"], found["aliases"]) == ("chat", ["default"])
    with pytest.raises(NotFound, match="model 'chst' not found"):
        await server.operator.model("chst", paths=False)


async def test_the_log_of_a_worker_ends_with_it(server: LocalServer) -> None:
    await server.apply(
        {"a": server.script("a"), "idle": {"from": server.script("i"), "residency": {"load": "on_demand"}}}
    )
    log = await server.operator.worker_log("a")
    Draft202012Validator(WORKER_LOG).validate(log)  # type: ignore[arg-type]
    assert log["pid"] == server.status("a")["worker"]
    with pytest.raises(NotFound, match="idle has no worker") as raised:
        await server.operator.worker_log("idle")
    assert "load" in raised.value.hint


async def test_a_worker_that_does_not_answer_delays_the_document_only_for_a_moment(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullama.controller.model_page.document._PATIENCE", 0.05)
    await server.apply({"a": server.script("a")})
    with server.suspended("a"):
        found = await document(server, "a")
        log = await server.operator.worker_log("a")
    assert found["worker"]["decodes"] == 0
    assert log["lines"] == []
