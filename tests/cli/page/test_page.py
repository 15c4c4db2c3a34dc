"""The page in Textual's pilot, against a scripted server: what is shown, and what its keys do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.cli.page.server_access import PageServer
from mullama.plan.steps import to_tree
from tests.cli.manifest.test_apply import CHANGED, plan
from tests.cli.page.scripted import (
    HOSTILE,
    LiveStream,
    ScriptedServer,
    event,
    failed,
    model,
    page_call,
    page_server,
    press,
    running,
    sample,
    screen_text,
    status,
    until,
)
from tests.cli.tinyserver import Answer, TinyServer

pytest.importorskip("textual")
pytestmark = pytest.mark.anyio

MODELS = (model("chat", is_default=True), model("coder", active=2, waiting=1), failed("big", "no memory on CUDA0"))


@pytest.fixture
def server(tiny: TinyServer) -> Iterator[ScriptedServer]:
    scripted = ScriptedServer(tiny, status(*MODELS), event(1, "applied", "revision 3"), event(2, "degraded", "big"))
    yield scripted
    scripted.close()


@pytest.fixture
def page(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page of `mullama top`."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    return new_page(server.tiny, tmp_path)


def new_page(tiny: TinyServer, folder: Path, **options: Any) -> Any:
    from mullama.cli.page.screens.app import PageApp
    from mullama.cli.page.start import top_panes

    return PageApp(page_server(tiny, folder), top_panes(), **options)


async def shown(app: Any, text: str) -> None:
    await until(lambda: text in screen_text(app), lambda: f"{text!r} is not on the screen:\n{screen_text(app)}")


async def test_the_models_are_shown_with_state_memory_requests_and_error(page: Any) -> None:
    async with running(page, 120, 20):
        await shown(page, "8 GiB budget")
        lines = screen_text(page).splitlines()
        assert "live · ready · revision 3 of mullama.yaml" in lines[0]
        assert next(line.split() for line in lines if "coder" in line) == [
            "coder",
            "●",
            "ready",
            "4",
            "GiB",
            "2+1",
            "-",
        ]
        assert "LoadFailed: no memory on CUDA0" in next(line for line in lines if " big " in line)


async def test_updates_are_shown_as_they_come(page: Any, server: ScriptedServer) -> None:
    async with running(page):
        await shown(page, "chat *")
        server.send(models=[model("chat", state="idle", memory=0)], **sample(coder=12.5))
        await shown(page, "○ idle")
        await shown(page, "12")
        server.send(status=status(*MODELS, model("added")), **sample())
        await shown(page, "added")
        assert "4 models" in screen_text(page)


async def test_the_cursor_stays_on_its_model_while_rows_move(page: Any, server: ScriptedServer) -> None:
    async with running(page) as pilot:
        await shown(page, "coder")
        await press(pilot, "down")
        table = page.query_one("#model-table")
        await until(lambda: table.chosen == "coder", lambda: str(table.chosen))
        server.send(status=status(model("first"), *MODELS), **sample())
        await shown(page, "first")
        assert table.chosen == "coder"
        await press(pilot, "s")
        await shown(page, "by name")
        assert table.chosen == "coder"


async def test_a_filter_is_typed_kept_and_cleared(page: Any) -> None:
    async with running(page) as pilot:
        await shown(page, "coder")
        await press(pilot, "slash", *"cod", "enter")
        await shown(page, '1 of 3 models, with "cod"')
        table = page.query_one("#model-table")
        assert [line.split()[0] for line in table.lines] == ["coder"]
        await press(pilot, "slash", *"xyz")
        await shown(page, "No model has these words")
        await press(pilot, "escape")
        await until(lambda: len(table.lines) == 3, lambda: str(table.lines))


async def test_load_and_unload_ask_the_server(page: Any, server: ScriptedServer) -> None:
    server.tiny.answers["POST /api/models/load"] = Answer({})
    server.tiny.answers["POST /api/models/coder/unload"] = Answer({})
    async with running(page) as pilot:
        await shown(page, "coder")
        await press(pilot, "down", "l")
        await shown(page, "coder is loaded")
        assert server.bodies("POST /api/models/load") == [{"name": "coder"}]
        await press(pilot, "x")
        await shown(page, "2 requests of it end first")
        await press(pilot, "enter")  # no has the focus
        await press(pilot, "x", "y")
        bodies = server.bodies
        await until(lambda: bodies("POST /api/models/coder/unload") == [{"force": False}], lambda: str(bodies))


async def test_a_key_that_may_only_read_is_refused_with_the_hint(page: Any, server: ScriptedServer) -> None:
    error = {"kind": "denied", "message": "this key has no role admin", "hint": "use a key with the role admin"}
    server.tiny.answers["POST /api/models/load"] = Answer({"error": error}, 403)
    async with running(page) as pilot:
        await shown(page, "coder")
        await press(pilot, "l")
        await shown(page, "this key has no role admin")
        await shown(page, "use a key with the role admin")


async def test_enter_shows_the_details_and_they_are_live(page: Any, server: ScriptedServer) -> None:
    async with running(page, 100, 40) as pilot:
        await shown(page, "coder")
        await press(pilot, "down", "enter")
        await shown(page, "2 running, 1 waiting")
        server.send(models=[model("coder", active=0)], **sample())
        await shown(page, "0 running, 0 waiting")
        await press(pilot, "escape")
        await until(lambda: "0 running" not in screen_text(page), lambda: screen_text(page))


async def test_a_lost_server_is_told_and_found_again(page: Any, server: ScriptedServer) -> None:
    async with running(page, 100):
        await shown(page, "live · ready")
        server.refusal = Answer({"error": {"kind": "unavailable", "message": "it is stopping", "hint": ""}}, 503)
        server.streams[0].end()
        await shown(page, "it is stopping. The page asks again.")
        assert "lost · ready" in screen_text(page)
        assert "coder" in screen_text(page), "the last known state stays"
        server.tree, server.refusal = status(model("after")), None
        await shown(page, "after")
        await shown(page, "live · ready")
        await until(lambda: "asks again" not in screen_text(page), lambda: screen_text(page))


async def test_a_wrong_key_is_told_with_the_hint(page: Any, server: ScriptedServer) -> None:
    server.refusal = Answer({"error": {"kind": "denied", "message": "the API key is not valid", "hint": ""}}, 401)
    async with running(page, 100):
        await shown(page, "the API key is not valid")
        await shown(page, "--key-file")


async def test_text_of_others_is_shown_inertly(page: Any, server: ScriptedServer) -> None:
    server.tree = status(model(HOSTILE), failed("bad", HOSTILE))
    server.events = [event(1, "degraded", HOSTILE, HOSTILE)]
    inert = "\\x1b[31mred\\x1b[0m [bold red]big[/] \\u202egnp.exe"
    async with running(page, 200, 30) as pilot:
        await shown(page, inert)
        await press(pilot, "2")
        await shown(page, f"{inert}  {inert}")
        await press(pilot, "enter")
        await shown(page, "Event 1")
        for line in screen_text(page).splitlines():
            assert "\x1b" not in line
            assert "\u202e" not in line


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 20)])
async def test_nothing_is_cut_at_any_size(page: Any, server: ScriptedServer, width: int, height: int) -> None:
    server.tree = status(*MODELS, model("a-model-with-quite-a-long-name-Q4_K_M"))
    async with running(page, width, height) as pilot:
        await shown(page, "coder")
        text = screen_text(page)
        assert "● ready" in text
        assert "? help" in text
        assert "4 GiB" in text
        for number in "12345":
            await press(pilot, number)
            heads = [line for line in screen_text(page).splitlines() if line]
            assert max(map(len, heads)) <= width


async def test_two_hundred_models_are_one_list_that_scrolls(page: Any, server: ScriptedServer) -> None:
    server.tree = status(*(model(f"m{i:03}") for i in range(200)))
    async with running(page) as pilot:
        await shown(page, "m000")
        await press(pilot, "end")
        await shown(page, "m199")
        assert "200 models" in screen_text(page)
        server.send(models=[model("m199", state="idle", memory=0)], **sample())
        await shown(page, "○ idle")
        assert page.query_one("#model-table").chosen == "m199"


async def test_events_are_filtered_and_opened(page: Any, server: ScriptedServer) -> None:
    async with running(page) as pilot:
        await press(pilot, "2")
        await shown(page, "2 events, newest first")
        server.send(events=[event(3, "held", "/srv/mullama.yaml", "it removes every model")], **sample())
        await shown(page, "! held")
        await press(pilot, "slash", *"degr", "enter", "enter")
        await shown(page, "Event 2")


async def test_usage_by_subject_and_time(page: Any, server: ScriptedServer) -> None:
    row = {"requests": 3, "errors": 0, "prompt_tokens": 7, "cached_tokens": 0, "generated_tokens": 12345, "seconds": 61}
    answers = server.tiny.answers
    answers["GET /api/v1/usage?since=604800s&by=model"] = Answer({"rows": [{"model": "chat", **row}]})
    answers["GET /api/v1/usage?since=604800s&by=key"] = Answer({"rows": [{"key": "ci", **row}]})
    answers["GET /api/v1/usage?since=2592000s&by=key"] = Answer({"rows": []})
    async with running(page) as pilot:
        await press(pilot, "5")
        await shown(page, "12,345")
        await press(pilot, "b")
        await shown(page, "by key, the last 7 d")
        await shown(page, "ci")
        await press(pilot, "t")
        await shown(page, "No request in the last 30 d.")


async def test_the_log_is_followed_and_filtered(page: Any, server: ScriptedServer) -> None:
    def line(id: int, text: str) -> dict[str, Any]:
        return {"id": id, "when": 1e9, "level": "info", "part": "", "models": [], "text": text}

    server.tiny.answers["GET /api/v1/logs?tail=5000"] = Answer({"last": 2, "lines": [line(1, "one"), line(2, HOSTILE)]})
    stream = LiveStream()
    server.tiny.answers["GET /api/v1/logs/events?after=2"] = stream
    async with running(page, 100) as pilot:
        await press(pilot, "3")
        await shown(page, "2 lines, followed")
        await shown(page, "[bold red]big[/]")
        stream.send({**line(9, "nine"), "dropped": 6})
        await shown(page, "6 lines came too fast")
        await shown(page, "info nine")
        await press(pilot, "slash", *"nine")
        await shown(page, "1 of 4 lines, followed")
        await until(lambda: "info one" not in screen_text(page), lambda: screen_text(page))
        assert not {"\x1b", "\u202e"} & set(screen_text(page))
    stream.end()


async def test_ten_thousand_hostile_lines_are_kept_in_bounds_and_inert(page: Any, server: ScriptedServer) -> None:
    line = {"when": 1e9, "level": "warning", "part": "workers", "models": []}
    lines = [{**line, "id": number, "text": f"{number} {HOSTILE}"} for number in range(10_000)]
    lines.append({**line, "id": 10_000, "text": HOSTILE * 30_000})
    server.tiny.answers["GET /api/v1/logs?tail=5000"] = Answer({"last": 10_000, "lines": lines})
    stream = LiveStream()
    server.tiny.answers["GET /api/v1/logs/events?after=10000"] = stream
    async with running(page, 100) as pilot:
        await press(pilot, "3")
        await shown(page, "5000 lines, followed")
        await shown(page, "9999 \\x1b[31mred\\x1b[0m [bold red]big[/]")
        await press(pilot, "home")
        await shown(page, "5001 \\x1b[31mred")
        assert not {"\x1b", "\u202e"} & set(screen_text(page))
        assert page.query_one("#log-lines").line_count <= 5001
    stream.end()


async def test_the_log_of_a_key_that_may_only_read_is_refused(page: Any, server: ScriptedServer) -> None:
    error = {"kind": "denied", "message": "this key has no role admin", "hint": "use one that has it"}
    server.tiny.answers["GET /api/v1/logs?tail=5000"] = Answer({"error": error}, 403)
    async with running(page, 100) as pilot:
        await press(pilot, "3")
        await shown(page, "this key has no role admin (use one that has it)")


async def test_the_help_has_every_key_of_every_pane(page: Any) -> None:
    from mullama.cli.page.screens.app import help_rows
    from mullama.cli.page.start import top_panes

    panes = top_panes()
    rows = help_rows(panes)
    for pane in panes:
        assert all(any(fact.text.startswith(b.description.lower()) for _, fact in rows) for b in pane.BINDINGS)
    async with running(page) as pilot:
        await press(pilot, "question_mark")
        await shown(page, "move the cursor")


PROGRESS = (
    {"event": "phase", "phase": "load"},
    {"event": "step", "model": "chat", "state": "ready", "message": ""},
    {"event": "result", "outcome": "applied", "generation": 4, "message": "revision 4 is applied"},
)


def applied(*events: dict[str, Any]) -> Answer:
    return Answer(pieces=tuple(json.dumps(one).encode() + b"\n" for one in events))


async def test_the_manifest_is_planned_confirmed_and_applied(page: Any, server: ScriptedServer) -> None:
    answers = server.tiny.answers
    file = {"path": "/srv/mullama.yaml", "profiles": [], "text": "mullama: v1\n", "digest": "d", "readonly": ""}
    answers["GET /api/v1/manifest"] = Answer(file)
    tree = to_tree(plan(CHANGED))
    answers["POST /api/v1/manifest/plan"] = Answer({"problems": [], "warnings": [], "plan": tree, "removes_all": False})
    answers["PUT /api/v1/manifest"] = applied(*PROGRESS)
    async with running(page, 100) as pilot:
        await press(pilot, "4")
        await shown(page, "1 changed.")
        await press(pilot, "a")
        await shown(page, "Apply /srv/mullama.yaml?")
        await press(pilot, "n")
        await until(lambda: "Apply /srv" not in screen_text(page), lambda: screen_text(page))
        assert not server.bodies("PUT /api/v1/manifest"), "no is no"
        await press(pilot, "a", "y")
        await shown(page, "✓ revision 4 is applied")
        await shown(page, "● chat ready")
    asked = next(one for one in server.tiny.asked if one.method == "PUT")
    assert asked.body == {"text": "mullama: v1\n", "digest": "d", "allow_empty": False}
    assert asked.headers["If-Match"] == f'"{tree["base"]}"'


async def test_mistakes_and_refusals_are_shown_where_the_plan_would_be(page: Any, server: ScriptedServer) -> None:
    answers = server.tiny.answers
    problem = {"path": "models.a", "file": "m.yaml", "line": 3, "column": 5, "message": "no such field", "hint": "x"}
    answers["GET /api/v1/manifest"] = Answer({"text": "", "digest": "", "path": "m.yaml", "readonly": ""})
    answers["POST /api/v1/manifest/plan"] = Answer({"problems": [problem], "warnings": [], "plan": None})
    async with running(page, 100) as pilot:
        await press(pilot, "4")
        await shown(page, "m.yaml:3:5: models.a: no such field")
        denied = {"kind": "denied", "message": "this key has no role admin", "hint": "use one that has it"}
        answers["GET /api/v1/manifest"] = Answer({"error": denied}, 403)
        await press(pilot, "p")
        await shown(page, "this key has no role admin")
        await shown(page, "hint: use one that has it")


async def test_a_file_is_planned_and_applied_as_apply_does(
    server: ScriptedServer, tmp_path: Path, monkeypatch: Any
) -> None:
    from mullama.cli.page.screens.app import PageApp
    from mullama.cli.page.start import top_panes

    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text("mullama: v1\nmodels:\n  chat: builtin:tiny\n")
    server.tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(CHANGED)))
    server.tiny.answers["PUT /api/v1/stack"] = applied(
        {"event": "error", "error": {"kind": "conflict", "message": "the revision is another one"}}
    )
    access = PageServer(page_call(server.tiny, tmp_path, "-f", "m.yaml"))
    page = PageApp(access, top_panes())
    async with running(page, 100) as pilot:
        await press(pilot, "4")
        await shown(page, "m.yaml")
        await shown(page, "1 changed.")
        await press(pilot, "a", "y")
        await shown(page, "✗ not applied: the revision is another one")
    (body,) = server.bodies("PUT /api/v1/stack")
    assert list(body["manifest"]["models"]) == ["chat"]
    assert body["options"]["expect"] == plan(CHANGED).base
    assert body["options"]["allow_empty"] is False


async def test_an_undo_shows_its_plan_before_it_is_done(page: Any, server: ScriptedServer) -> None:
    one = {"when": 1e9, "by": "ann", "trigger": "apply", "origin": {}, "summary": {}, "result": ""}
    answers = server.tiny.answers
    answers["GET /api/v1/history"] = Answer({"generations": [{"generation": n, **one} for n in (1, 2, 3)]})
    answers["GET /api/v1/undo?to=1"] = Answer(to_tree(plan(CHANGED)))
    answers["POST /api/v1/undo"] = applied(*PROGRESS)
    async with running(page, 100) as pilot:
        await press(pilot, "4", "u")
        await shown(page, "go back to a revision")
        await press(pilot, "down", "enter")
        await shown(page, "undo: back to revision 1")
        await press(pilot, "a")
        await shown(page, "Apply undo: back to revision 1?")
        assert not server.bodies("POST /api/v1/undo")
        await press(pilot, "y")
        await shown(page, "✓ revision 4 is applied")
    assert [body["to"] for body in server.bodies("POST /api/v1/undo")] == [1]
    asked = next(one for one in server.tiny.asked if one.method == "POST")
    assert asked.headers["If-Match"] == f'"{plan(CHANGED).base}"', "another revision than that of the plan refuses it"


async def test_a_manifest_without_models_is_applied_after_a_question_that_names_it(
    page: Any, server: ScriptedServer
) -> None:
    answers = server.tiny.answers
    file = {"path": "/srv/mullama.yaml", "profiles": [], "text": "mullama: v1\n", "digest": "d", "readonly": ""}
    answers["GET /api/v1/manifest"] = Answer(file)
    planned = {"problems": [], "warnings": [], "plan": to_tree(plan(CHANGED)), "removes_all": True}
    answers["POST /api/v1/manifest/plan"] = Answer(planned)
    answers["PUT /api/v1/manifest"] = applied(*PROGRESS)
    async with running(page, 100) as pilot:
        await press(pilot, "4")
        await shown(page, "1 changed.")
        await press(pilot, "a")
        await shown(page, "The manifest has no models")
        await press(pilot, "y")
        await shown(page, "✓ revision 4 is applied")
    assert [body["allow_empty"] for body in server.bodies("PUT /api/v1/manifest")] == [True]
