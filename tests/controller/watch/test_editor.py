"""The text of the followed manifest: planned with its mistakes, and saved only where nothing is lost."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mullama.controller.runs import planner
from mullama.controller.runs.change import Change
from mullama.controller.watch.editor import ManifestEditor
from mullama.errors import Conflict, ManifestError, NotFound, Refused
from mullama.manifest.load import load
from mullama.plan.make import make_plan
from mullama.runtime.base import ApplyOptions, Origin, TextEdit
from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio

TEXT = "mullama: v1\nmodels:\n  # the only one\n  a: {from: ./a.script.json, system: one}\n"


@pytest.fixture
async def edited(server: LocalServer) -> tuple[LocalServer, ManifestEditor, Path]:
    """A server that follows a file, its editor, and the file."""
    path = server.home / "mullama.yaml"
    path.write_text(TEXT)
    path.chmod(0o640)
    server.script("a")
    loaded = load(str(path), env=server.env)
    origin = Origin(path=loaded.path, digest=loaded.digest)
    async for _ in server.reconciler.apply(Change(desired=loaded.manifest, origin=origin, options=ApplyOptions())):
        pass
    return server, ManifestEditor(server.reconciler, server.env), path


DIGEST = hashlib.sha256(TEXT.encode()).hexdigest()


async def saved(editor: ManifestEditor, text: str, digest: str = DIGEST, **options: Any) -> list[dict[str, Any]]:
    edit = TextEdit(text=text, digest=digest, profiles=options.pop("profiles", None))
    return [line async for line in editor.save(edit, ApplyOptions(trigger="api", by="page", **options))]


async def test_a_text_is_planned_without_a_change_of_the_file(edited: Any) -> None:
    _, editor, path = edited
    found = await editor.plan(TEXT.replace("one}", "two}"), None)
    (step,) = found["plan"]["steps"]
    assert (found["profiles"], found["removes_all"]) == ([], False)
    assert (step["subject"], step["changes"][0]["after"], step["line"]) == ("a", "two", 4)
    assert path.read_text() == TEXT


async def test_the_mistakes_of_a_text_have_their_places(edited: Any) -> None:
    _, editor, path = edited
    found = await editor.plan(TEXT.replace("system", "sistem"), None)
    assert found["plan"] is None
    assert [(one["line"], one["file"]) for one in found["problems"]] == [(4, str(path))]


async def test_a_saved_text_is_applied_with_its_comments_and_its_mode(edited: Any) -> None:
    server, editor, path = edited
    read = await editor.read()
    assert (read["text"], read["readonly"]) == (TEXT, "")
    lines = await saved(editor, TEXT.replace("one}", "two}"), read["digest"])
    assert lines[-1]["outcome"] == "applied"
    assert server.snapshot.manifest.models["a"].system == "two"
    assert "# the only one" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert server.reconciler.history.listed()[0]["by"] == "page"


async def test_a_file_behind_a_link_is_replaced_and_the_link_stays(edited: Any) -> None:
    _, editor, path = edited
    target = path.with_name("real.yaml")
    path.rename(target)
    path.symlink_to(target)
    await saved(editor, TEXT.replace("one}", "two}"), hashlib.sha256(TEXT.encode()).hexdigest())
    assert path.is_symlink()
    assert "two" in target.read_text()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (TEXT.replace("one}", "two}"), Conflict),
        (TEXT.replace("system", "sistem"), ManifestError),
    ],
    ids=["changed since", "a mistake"],
)
async def test_nothing_is_saved_where_something_would_be_lost(edited: Any, text: str, error: type[Exception]) -> None:
    server, editor, path = edited
    digest = "0" * 64 if error is Conflict else hashlib.sha256(TEXT.encode()).hexdigest()
    with pytest.raises(error):
        await saved(editor, text, digest)
    assert path.read_text() == TEXT
    assert server.snapshot.manifest.models["a"].system == "one"


PROTECTED = TEXT.replace("system: one", "system: one, protect: true")


@pytest.mark.parametrize(
    ("applied", "text", "options"),
    [
        (TEXT, "mullama: v1\n", {}),
        (TEXT, TEXT.replace("one}", "two}"), {"expect": "another"}),
        (PROTECTED, "mullama: v1\nmodels: {b: ./a.script.json}\n", {}),
    ],
    ids=["no models", "a stale plan", "a protected model"],
)
async def test_a_text_whose_apply_is_refused_is_not_saved(edited: Any, applied: str, text: str, options: Any) -> None:
    server, editor, path = edited
    await saved(editor, applied)
    (*_, result) = await saved(editor, text, hashlib.sha256(applied.encode()).hexdigest(), **options)
    assert result["outcome"] in ("refused", "conflict")
    assert result["hint"]
    assert path.read_text() == applied
    assert server.condition("Synced")["status"] is True  # with the file


async def test_a_save_is_planned_once(edited: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, editor, _ = edited
    plans: list[object] = []
    monkeypatch.setattr(planner, "make_plan", lambda *a, **k: plans.append(1) or make_plan(*a, **k))
    await saved(editor, TEXT.replace("one}", "two}"))
    assert len(plans) == 1


async def test_a_text_without_models_is_planned_as_what_removes_all(edited: Any) -> None:
    server, editor, _ = edited
    found = await editor.plan("mullama: v1\n", None)
    assert found["removes_all"]
    assert [step["action"] for step in found["plan"]["steps"]] == ["remove"]
    (*_, result) = await saved(editor, "mullama: v1\n", allow_empty=True)
    assert (result["outcome"], dict(server.snapshot.deployments)) == ("applied", {})


async def test_another_profile_is_planned_and_followed_after_its_apply(edited: Any) -> None:
    server, editor, _ = edited
    text = f"{TEXT}profiles:\n  night: {{models: {{a: {{system: two}}}}}}\n"
    found = await editor.plan(text, ("night",))
    assert found["profiles"] == ["night"]
    assert [step["subject"] for step in found["plan"]["steps"]] == ["a"]
    await saved(editor, text, profiles=("night",))
    assert server.snapshot.manifest.models["a"].system == "two"
    assert server.reconciler.current.origin.profiles == ("night",)
    assert (await editor.read())["profiles"] == ["night"]


async def test_a_file_that_is_not_text_is_not_saved(edited: Any) -> None:
    _, editor, path = edited
    path.write_bytes(TEXT.encode() + b"# caf\xe9\n")
    assert "UTF-8" in (await editor.read())["readonly"]


async def test_the_file_of_a_repository_is_not_saved(edited: Any) -> None:
    server, editor, path = edited
    server.reconciler.state.update(origin=Origin(path="m.yaml", checkout=str(path)))
    assert "git" in (await editor.read())["readonly"]
    with pytest.raises(Refused, match="git"):
        await saved(editor, TEXT, hashlib.sha256(TEXT.encode()).hexdigest())


async def test_a_server_without_a_file_says_so(server: LocalServer) -> None:
    with pytest.raises(NotFound, match="follows no manifest file"):
        await ManifestEditor(server.reconciler, server.env).read()
