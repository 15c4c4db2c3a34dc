"""apply and down against a stub server: requests, output and exit codes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.plan.steps import Action, Cause, Cost, FieldChange, Plan, Step, to_tree
from mullama.store.records import Records, instance_name
from mullama.struct import replace
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]

CHANGED = Step(
    subject="chat",
    kind="model",
    action=Action.UPDATE,
    cause=Cause.DESIRED,
    cost=Cost.LIVE,
    changes=(FieldChange(path="system", before=None, after="Hi.", cost=Cost.LIVE),),
    detail="next request",
)
REMOVED = Step(
    subject="old", kind="model", action=Action.REMOVE, cause=Cause.DESIRED, cost=Cost.WEIGHTS, destructive=True
)


def plan(*steps: Step, base: str = "rev-1") -> Plan:
    return Plan(base=base, desired="rev-2", generation=2, steps=steps)


def lines(*events: dict[str, Any]) -> Answer:
    return Answer(pieces=tuple(json.dumps(event).encode() + b"\n" for event in events))


DONE = {"event": "result", "outcome": "applied", "generation": 2, "message": "revision 2 is applied", "models": {}}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "mullama.yaml"
    path.write_text("mullama: v1\nmodels:\n  chat: builtin:tiny\n")
    return path


@pytest.fixture
def server(tiny: TinyServer, manifest: Path) -> TinyServer:
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(CHANGED)))
    tiny.answers["PUT /api/v1/stack"] = lines({"event": "phase", "phase": "swap"}, DONE)
    tiny.answers["GET /api/v1/status"] = Answer(
        {"state": "ready", "origin": {"path": str(manifest), "profiles": []}, "models": [], "listen": []}
    )
    return tiny


def test_log_levels_are_for_a_server_that_apply_starts(run: Run, server: TinyServer, manifest: Path) -> None:
    ran = run("apply", "--host", server.url, "--log-level", "workers=debug")
    assert (ran.code, "observability.logs in the manifest" in ran.err) == (4, True), ran.err
    assert server.asked == []
    unknown = run("apply", "--host", server.url, "--log-level", "worker=debug")
    assert "did you mean workers?" in unknown.err


def test_the_plan_is_shown_sent_and_its_result_returned(run: Run, server: TinyServer, manifest: Path) -> None:
    ran = run("apply", "--host", server.url)
    assert ran.code == 0
    assert ran.out.splitlines()[:4] == [
        "~ chat  live  system (none) -> Hi.  next request",
        "1 changed.",
        "switching to the new revision",
        "revision 2 is applied",
    ]
    sent = server.asked[-1].body
    assert sent["manifest"]["models"]["chat"]["from"] == "builtin:tiny"
    assert sent["origin"]["path"] == str(manifest)
    assert sent["options"]["expect"] == "rev-1"
    assert sent["options"]["trigger"] == "apply"


@pytest.mark.parametrize(
    ("outcome", "code"), [("transfer", 5), ("timeout", 6), ("partly_applied", 8), ("refused", 9), ("conflict", 10)]
)
def test_the_exit_code_is_that_of_the_outcome(run: Run, server: TinyServer, outcome: str, code: int) -> None:
    failed = DONE | {
        "outcome": outcome,
        "message": "it went wrong",
        "models": {"chat": {"ok": False, "message": "why"}},
    }
    server.answers["PUT /api/v1/stack"] = lines(failed)
    ran = run("apply", "--host", server.url)
    assert (ran.code, ran.err) == (code, "chat: why\nerror: it went wrong\n")


def test_the_second_apply_sends_nothing(run: Run, server: TinyServer) -> None:
    server.answers["POST /api/v1/plan"] = Answer(to_tree(plan()))
    ran = run("apply", "--host", server.url)
    assert (ran.code, ran.out) == (0, "Nothing to do.\n")
    assert [a.method for a in server.asked] == ["POST", "GET"]


@pytest.mark.parametrize("differs", [{"state": "degraded"}, {"origin": {"path": "/elsewhere", "profiles": []}}])
def test_an_empty_plan_is_sent_to_a_server_that_is_not_up_to_date(
    run: Run, server: TinyServer, differs: dict[str, Any]
) -> None:
    server.answers["POST /api/v1/plan"] = Answer(to_tree(plan()))
    settled = server.answers["GET /api/v1/status"]
    assert isinstance(settled, Answer)
    server.answers["GET /api/v1/status"] = Answer(settled.body | differs)
    assert run("apply", "--host", server.url).code == 0
    assert server.asked[-1].method == "PUT"


def test_a_removal_without_a_terminal_needs_yes(run: Run, server: TinyServer) -> None:
    server.answers["POST /api/v1/plan"] = Answer(to_tree(plan(CHANGED, REMOVED)))
    ran = run("apply", "--host", server.url)
    assert ran.code == 9
    assert "--yes applies it" in ran.err
    assert all(a.method != "PUT" for a in server.asked)
    assert run("apply", "--yes", "--host", server.url).code == 0


@pytest.mark.parametrize(("typed", "code", "sent"), [("y\n", 0, True), ("n\n", 9, False), ("", 9, False)])
def test_a_person_is_asked(run: Run, server: TinyServer, typed: str, code: int, sent: bool) -> None:
    ran = run("apply", "--host", server.url, stdin=typed, tty=True)
    assert ran.code == code
    assert "Apply this? [y/N]" in ran.out
    assert (server.asked[-1].method == "PUT") is sent


def test_a_manifest_without_models_is_refused_unless_that_is_meant(
    run: Run, server: TinyServer, manifest: Path
) -> None:
    manifest.write_text("mullama: v1\n")
    ran = run("apply", "--yes", "--host", server.url)
    assert (ran.code, server.asked) == (9, [])
    assert run("apply", "--yes", "--allow-empty", "--host", server.url).code == 0
    assert server.asked[-1].body["options"]["allow_empty"] is True


def test_a_mistake_in_the_manifest_reaches_no_server(run: Run, server: TinyServer, manifest: Path) -> None:
    manifest.write_text("mullama: v1\nmodels: {chat: {form: x}}\n")
    assert (run("apply", "--host", server.url).code, server.asked) == (4, [])


def test_json_is_the_events_and_nothing_else(run: Run, server: TinyServer) -> None:
    ran = run("apply", "--json", "--host", server.url)
    assert [json.loads(line)["event"] for line in ran.out.splitlines()] == ["phase", "result"]


def test_an_apply_longer_than_its_time_limit_is_left_to_the_server(run: Run, server: TinyServer) -> None:
    hold = threading.Event()
    server.answers["PUT /api/v1/stack"] = Answer(pieces=(b'{"event":"phase","phase":"fetch"}\n',), hold=hold)

    ran = run("apply", "--host", server.url, "--timeout", "0.1s")
    hold.set()

    assert ran.code == 6
    assert "the apply did not end within 0.1s" in ran.err
    assert "mullama status" in ran.err


def test_an_interrupted_apply_continues_on_the_server(
    run: Run, server: TinyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mullama.cli.manifest.apply_progress.ApplyView.run", interrupted)

    ran = run("apply", "--host", server.url)

    assert ran.code == 130
    assert "the server continues the apply; mullama status" in ran.err


def test_a_saved_plan_is_carried_out_while_it_is_fresh(run: Run, server: TinyServer, manifest: Path) -> None:
    assert run("diff", "--out", "p.json", "--host", server.url).code == 2
    assert run("apply", "--plan", "p.json", "--host", server.url).code == 0
    assert server.asked[-1].body["manifest"]["models"]["chat"]["from"] == "builtin:tiny"


@pytest.mark.parametrize("now", [plan(CHANGED, base="rev-9"), plan(CHANGED, REMOVED), plan()])
def test_a_stale_plan_is_refused(run: Run, server: TinyServer, now: Plan) -> None:
    run("diff", "--out", "p.json", "--host", server.url)
    server.answers["POST /api/v1/plan"] = Answer(to_tree(now))
    ran = run("apply", "--yes", "--plan", "p.json", "--host", server.url)
    assert ran.code == 10
    assert ran.err.startswith("error: the plan is stale")
    assert all(a.method != "PUT" for a in server.asked)


EDITS: dict[str, tuple[str, Any]] = {
    "a value": ("manifest.models.chat.system", "Obey."),
    "another source": ("manifest.models.chat.from", "builtin:other"),
    "another model": ("manifest.models.evil", {"from": "builtin:tiny"}),
    "a protection": ("manifest.models.chat.protect", True),
    "no models": ("manifest.models", {}),
    "a key": ("manifest.auth.keys", {"x": {"secret": {"from_env": "X"}, "roles": ["admin"]}}),
    "a listener": ("manifest.server.listen", ["0.0.0.0:1"]),
    "metadata": ("manifest.metadata.name", "other"),
    "an unknown field": ("manifest.models.chat.whatever", 1),
    "no manifest": ("manifest", None),
    "a step": ("steps.0.detail", "harmless"),
    "fewer steps": ("steps", []),
    "no removal": ("steps.0.destructive", True),
    "an added repair": ("drift", [{"kind": "model"}]),
    "the counts": ("summary.remove", 5),
    "the desired revision": ("desired", "0" * 64),
    "the number": ("generation", 77),
}


@pytest.mark.parametrize(("place", "value"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_plan_file_is_refused(
    run: Run, server: TinyServer, tmp_path: Path, place: str, value: object
) -> None:
    run("diff", "--out", "p.json", "--host", server.url)
    tree = json.loads((tmp_path / "p.json").read_text())
    *path, last = place.split(".")
    at: Any = tree
    for key in path:
        at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
    assert not isinstance(at, dict) or at.get(last) != value
    at[int(last) if isinstance(at, list) else last] = value
    (tmp_path / "p.json").write_text(json.dumps(tree))

    ran = run("apply", "--yes", "--plan", "p.json", "--host", server.url)

    assert ran.code in (4, 10), ran.err
    assert all(a.method != "PUT" for a in server.asked)


def test_a_saved_origin_has_no_effect(run: Run, server: TinyServer, tmp_path: Path, manifest: Path) -> None:
    """Else the server would follow another file than the one that was reviewed."""
    run("diff", "--out", "p.json", "--host", server.url)
    tree = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps(tree | {"origin": {"path": "/evil.yaml", "profiles": ["x"]}}))
    assert run("apply", "--plan", "p.json", "--host", server.url).code == 0
    origin = server.asked[-1].body["origin"]
    assert (origin["path"], origin["profiles"]) == (str(manifest), [])


def test_a_missing_file_is_named_before_a_server_is_started(run: Run, manifest: Path) -> None:
    manifest.write_text("mullama: v1\nmodels:\n  chat: ./gone.gguf\n")
    ran = run("apply", "--yes")
    gone = manifest.parent / "gone.gguf"
    assert (ran.code, ran.err) == (3, f"error: mullama.yaml:3:9: models.chat.from: {gone} does not exist\n")
    assert "server started" not in ran.out


def part(*names: str) -> Answer:
    return Answer(to_tree(replace(plan(CHANGED), targets=names)))


def test_targets_are_planned_sent_and_named_in_a_warning(run: Run, server: TinyServer) -> None:
    server.answers["POST /api/v1/plan"] = part("chat", "default")
    ran = run("apply", "--target", "chat", "--target", "default", "--host", server.url)
    assert ran.code == 0
    assert ran.out.splitlines()[1:3] == [
        "warning: only chat, default and what they need are planned: the rest of the manifest was not looked at",
        "1 changed.",
    ]
    assert [asked.body["options"].get("targets") for asked in server.asked] == [["chat", "default"]] * 2


def test_a_saved_plan_carries_its_targets(run: Run, server: TinyServer) -> None:
    server.answers["POST /api/v1/plan"] = part("chat")
    assert run("diff", "--target", "chat", "--out", "p.json", "--host", server.url).code == 2
    assert run("apply", "--plan", "p.json", "--host", server.url).code == 0
    assert [asked.body["options"].get("targets") for asked in server.asked] == [["chat"]] * 3

    other = run("apply", "--plan", "p.json", "--target", "x", "--host", server.url)
    assert (other.code, other.err.splitlines()[0]) == (4, "error: --target: the saved plan is for chat")
    server.answers["POST /api/v1/plan"] = Answer(to_tree(plan(CHANGED)))
    stale = run("apply", "--plan", "p.json", "--host", server.url)
    assert (stale.code, "targets changed since it was saved" in stale.err) == (10, True)


def test_nothing_to_do_for_targets_sends_nothing(run: Run, server: TinyServer) -> None:
    server.answers["POST /api/v1/plan"] = Answer(to_tree(replace(plan(), targets=("chat",))))
    assert run("apply", "--target", "chat", "--host", server.url).code == 0
    assert [asked.method for asked in server.asked] == ["POST"]


def test_the_whole_manifest_is_sent_after_a_part_of_it(run: Run, server: TinyServer) -> None:
    server.answers["POST /api/v1/plan"] = Answer(to_tree(plan()))
    settled = server.answers["GET /api/v1/status"]
    assert isinstance(settled, Answer)
    origin = settled.body["origin"] | {"targets": ["chat"]}
    server.answers["GET /api/v1/status"] = Answer(settled.body | {"origin": origin})
    assert run("apply", "--host", server.url).code == 0
    assert server.asked[-1].method == "PUT"


def test_targets_without_a_server_are_refused_before_one_is_started_that_watches_the_file(
    run: Run, manifest: Path
) -> None:
    ran = run("apply", "--yes", "--target", "chat")
    assert ran.code == 9
    assert f"the server watches {manifest} (sync.watch) and would apply the rest of it at once" in ran.err
    unknown = run("apply", "--yes", "--target", "chatt")
    assert (unknown.code, unknown.err) == (
        3, "error: there is no model or route 'chatt' to target\nhint: did you mean chat?\n",
    )  # fmt: skip


def test_a_manifest_that_changed_since_the_plan_was_saved_is_refused(
    run: Run, server: TinyServer, manifest: Path
) -> None:
    run("diff", "--out", "p.json", "--host", server.url)
    manifest.write_text(manifest.read_text().replace("chat:", "other:"))
    ran = run("apply", "--yes", "--plan", "p.json", "--host", server.url)
    assert (ran.code, ran.err.splitlines()[0]) == (
        10, "error: the plan is stale: it was saved for another manifest than the one on disk",
    )  # fmt: skip


def test_a_file_that_is_no_plan_is_invalid(run: Run, server: TinyServer, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"format": "other/1"}')
    assert run("apply", "--plan", "p.json", "--host", server.url).code == 4
    assert run("apply", "--plan", "none.json", "--host", server.url).code == 3


def test_a_generation_that_moved_between_plan_and_apply_is_a_conflict(run: Run, server: TinyServer) -> None:
    server.answers["PUT /api/v1/stack"] = Answer({"error": {"kind": "conflict", "message": "stale plan"}}, 409)
    assert run("apply", "--host", server.url).code == 10


def test_two_applies_at_once_are_refused_and_the_holder_named(run: Run, manifest: Path, tmp_path: Path) -> None:
    records = Records(tmp_path / "state", instance_name(("127.0.0.1:11434",), str(manifest)))
    with records.lock("apply", name="apply.lock"):
        ran = run("apply", "--yes")
    assert ran.code == 10
    assert "(apply, since" in ran.err


def test_down_shows_what_goes_and_stops_the_server(run: Run, server: TinyServer) -> None:
    status = server.answers["GET /api/v1/status"]
    assert isinstance(status, Answer)
    models = [
        {"name": "chat", "state": "ready", "memory": 2**30, "memory_own": 2**30},
        {"name": "brief", "state": "ready", "memory": 2**30, "memory_own": 0, "shared_with": "chat"},
        {"name": "old", "state": "idle", "memory": 0},
    ]
    server.answers["GET /api/v1/status"] = Answer(status.body | {"models": models})
    server.answers["POST /api/v1/shutdown"] = Answer({"stopping": True}, 202)
    ran = run("down", "--yes", "--host", server.url)
    assert ran.code == 0
    assert ran.out.splitlines()[:3] == [
        "- chat  ready: unload, frees 1 GiB; files kept",
        "- brief  ready: unload; files kept",
        "- old  idle: unload; files kept",
    ]
    assert server.asked[-1].path == "/api/v1/shutdown"
