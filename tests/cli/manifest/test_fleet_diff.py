"""diff of a fleet: every host is asked, and one that cannot be planned makes the code 1."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mullama
from mullama.client.address import ServerAddress
from mullama.plan.steps import Action, Cause, Cost, Plan, Step, to_tree
from mullama.struct import replace
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, Asked, TcpServer, TinyServer, handler, serving

Run = Callable[..., Ran]
Fleet = dict[str, TinyServer]

ADD = Step(
    subject="x", kind="model", action=Action.ADD, cause=Cause.DESIRED, cost=Cost.FILES, detail="new", pause=False,
)  # fmt: skip


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Two hosts without models, and a manifest with one for each."""
    monkeypatch.setenv("FLEET_KEY", "secret-of-the-fleet")
    first, second = TinyServer(ServerAddress(port=0)), TinyServer(ServerAddress(port=0))
    https = [TcpServer(("127.0.0.1", 0), handler(server)) for server in (first, second)]
    hosts = {}
    for name, server, http in zip("ab", (first, second), https, strict=True):
        server.address = ServerAddress(port=http.server_address[1])
        machine = {"ram_total": 8 << 30, "ram_available": 8 << 30, "gpus": [], "cores": 2}
        server.answers["GET /api/v1/status"] = Answer({"version": mullama.__version__, "machine": machine})
        server.answers["GET /api/v1/stack"] = Answer({"manifest": {"mullama": "v1"}, "revision": f"r{name}"})
        server.answers["POST /api/v1/plan"] = planned
        hosts[name] = server
    urls = ", ".join(f"{name}: {{url: '{server.url}', key: {{from_env: FLEET_KEY}}}}" for name, server in hosts.items())
    text = f"mullama: v1\nfleet: {{hosts: {{{urls}}}}}\nmodels: {{x: builtin:tiny, y: builtin:tiny}}\n"
    (tmp_path / "mullama.yaml").write_text(text)
    for _ in serving(https[0]):
        yield from (hosts for _ in serving(https[1]))


def planned(asked: Asked) -> Answer:
    """The plan of a host: its models are new."""
    steps = tuple(
        Step(subject=name, kind="model", action=Action.ADD, cause=Cause.DESIRED, cost=Cost.FILES, detail="new")
        for name in asked.body["manifest"].get("models", {})
    )
    return Answer(to_tree(Plan(base="", desired="d", generation=1, steps=steps)))


def asked_for(server: TinyServer) -> dict[str, Any]:
    found: dict[str, Any] = next(asked.body["manifest"] for asked in server.asked if asked.path == "/api/v1/plan")
    return found


def test_every_host_shows_its_plan(run: Run, fleet: Fleet) -> None:
    ran = run("diff")
    assert (ran.code, ran.err) == (2, "")
    assert ran.out.splitlines() == [
        "a:", "  + x  files  new", "  1 added.",
        "b:", "  + y  files  new", "  1 added.",
        "step 1: models of a, b", "2 hosts of 2 to change",
    ]  # fmt: skip
    assert {asked.headers.get("Authorization") for asked in fleet["a"].asked} == {"Bearer secret-of-the-fleet"}
    manifest = asked_for(fleet["a"])
    assert [*manifest["models"]] == ["x"]
    assert manifest["routes"]["y"]["to"] == [{"model": "y", "peer": "b", "weight": 1}]
    assert manifest["peers"]["b"]["key"] == {"from_env": "FLEET_KEY", "optional": False}
    assert "hosts" not in manifest["fleet"] or manifest["fleet"]["hosts"] == {}


def test_the_json_form_has_the_placement_and_the_plan_of_each_host(run: Run, fleet: Fleet) -> None:
    ran = run("diff", "--format", "json")
    tree = json.loads(ran.out)
    assert (ran.code, tree["format"], tree["complete"]) == (2, "mullama.fleet-plan/1", True)
    assert tree["placement"] == {"x": ["a"], "y": ["b"]}
    assert tree["hosts"]["a"]["plan"]["steps"][0]["line"] == 3
    assert [(step["kind"], step["hosts"]) for step in tree["steps"]] == [("change", ["a", "b"])]


@pytest.mark.parametrize(("option", "code"), [("--fail-on=drift", 0), ("--fail-on=desired", 2), ("--exit-zero", 0)])
def test_the_code_counts_the_steps_of_all_hosts(run: Run, fleet: Fleet, option: str, code: int) -> None:
    assert run("diff", option).code == code


@pytest.mark.parametrize("form", ["markdown", "github", "sarif", "junit"])
def test_each_format_has_the_changes_of_both_hosts(run: Run, fleet: Fleet, form: str) -> None:
    ran = run("diff", "--format", form)
    assert ran.code == 2
    assert "x" in ran.out
    assert "y" in ran.out


def test_a_host_that_cannot_be_reached_is_named(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "mullama.yaml"
    path.write_text(path.read_text().replace(fleet["b"].url, "http://127.0.0.1:1"))
    ran = run("diff", "--exit-zero")
    assert ran.code == 1
    first, second, last = ran.out.splitlines()
    assert first == "a: answers, and is not planned"
    assert second.startswith("b: no server answers at http://127.0.0.1:1")
    assert last == "1 host cannot be planned: apply would change nothing; --skip b plans without it"


def test_a_host_can_be_left_out(run: Run, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run("diff", "--skip", "b")
    assert (ran.code, ran.err) == (2, "")
    assert ran.out.splitlines() == [
        "a:", "  + x  files  new", "  + y  files  new", "  2 added.",
        "b: away, and left out", "step 1: models of a", "1 host of 1 to change",
    ]  # fmt: skip
    assert not fleet["b"].asked
    path = tmp_path / "mullama.yaml"
    head, tail = path.read_text().split("b: {url", 1)
    path.write_text(head + "b: {away: true, url" + tail.replace("FLEET_KEY", "NO_KEY"))
    assert run("diff").out == ran.out
    assert not fleet["b"].asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--skip", "c"], "--skip: the fleet has no host 'c'"),
        (["--skip", "a", "--skip", "b"], "--skip: every host of the fleet would be away"),
        (["--base", "HEAD", "--skip", "b"], "--skip is for hosts of a fleet, which this command does not ask"),
    ],
)
def test_a_host_that_cannot_be_left_out_is_named(run: Run, fleet: Fleet, options: list[str], message: str) -> None:
    ran = run("diff", *options)
    assert (ran.code, message in ran.err) == (1, True)


def test_a_host_with_another_key_or_an_old_version_is_named(run: Run, fleet: Fleet) -> None:
    denied = {"error": {"kind": "denied", "message": "the key is not known", "hint": ""}}
    fleet["a"].answers["GET /api/v1/status"] = Answer(denied, 401)
    fleet["b"].answers["GET /api/v1/status"] = Answer({"version": "9.1.0", "machine": {}})
    ran = run("diff")
    assert ran.code == 1
    assert "a: the key is not known (see fleet.hosts.a.key)" in ran.out
    assert f"b: runs mullama 9.1.0, and this is {mullama.__version__}" in ran.out


def test_a_host_that_refuses_its_manifest_is_named(run: Run, fleet: Fleet) -> None:
    refused = {"error": {"kind": "invalid", "message": "models.y.gpu: no such field", "hint": ""}}
    fleet["b"].answers["POST /api/v1/plan"] = Answer(refused, 400)
    ran = run("diff")
    assert ran.code == 1
    assert "  + x  files  new" in ran.out
    assert "b: models.y.gpu: no such field" in ran.out


def test_a_key_that_this_machine_lacks_is_named(run: Run, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_KEY")
    ran = run("diff")
    assert ran.code == 1
    assert "a: fleet.hosts.a.key: the environment variable FLEET_KEY is missing or empty" in ran.out


def test_options_for_one_server_are_refused(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    for options in (["--host", fleet["a"].url], ["--policy", "q"]):
        ran = run("diff", *options)
        assert ran.code == 1
        assert "the manifest" in ran.err
        assert "fleet" in ran.err


def test_a_target_limits_the_plan_of_each_host(run: Run, fleet: Fleet) -> None:
    ran = run("diff", "--target", "y")
    assert ran.code == 2
    assert "  + x  files  new" not in ran.out
    assert "only y and what they need are planned: the rest was not looked at" in ran.out
    asked = [asked.body for server in fleet.values() for asked in server.asked if asked.path == "/api/v1/plan"]
    assert (asked[0]["options"]["targets"], [*asked[0]["manifest"]["models"]]) == (["y"], ["y"])
    assert "there is no model or route 'nosuch' to target" in run("diff", "--target", "nosuch").err


def test_a_saved_plan_is_applied_only_if_the_hosts_answer_the_same(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    assert run("diff", "--out", "p.json", "--target", "x", "--skip", "b").code == 2
    saved = json.loads((tmp_path / "p.json").read_text())
    assert (saved["targets"], saved["away"], saved["hosts"]["a"]["revision"]) == (["x"], ["b"], "ra")
    assert "secret-of-the-fleet" not in json.dumps(saved)

    fleet["a"].answers["GET /api/v1/fleet/lease"] = Answer({"error": {"kind": "conflict", "message": "held"}}, 409)
    ran = run("apply", "--yes", "--plan", "p.json")
    assert "stale" not in ran.err  # the plan is the same, and the lease is what is missing
    assert not fleet["b"].asked

    fleet["a"].answers["GET /api/v1/stack"] = Answer({"manifest": {"mullama": "v1"}, "revision": "r9"})
    ran = run("apply", "--yes", "--plan", "p.json")
    assert (ran.code, "the plan is stale: a changed since it was saved" in ran.err) == (10, True)
    (tmp_path / "mullama.yaml").write_text((tmp_path / "mullama.yaml").read_text() + "metadata: {name: other}\n")
    ran = run("apply", "--yes", "--plan", "p.json")
    assert (ran.code, "saved for another manifest than the one on disk" in ran.err) == (10, True)


def test_a_file_that_is_no_plan_of_a_fleet_is_named(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    for text in (
        "",
        "[]",
        "{}",
        '{"format": "mullama.plan/1", "manifest": {}, "targets": [], "away": [], "hosts": {}}',
    ):
        (tmp_path / "p.json").write_text(text)
        ran = run("apply", "--yes", "--plan", "p.json")
        assert "p.json" in ran.err
        assert "Traceback" not in ran.err
        assert ran.code != 0
    fleet["b"].answers["GET /api/v1/status"] = Answer({"version": "9.1.0", "machine": {}})
    ran = run("diff", "--out", "q.json")
    assert "q.json is not written: b: runs mullama 9.1.0" in ran.err
    assert not (tmp_path / "q.json").exists()


def test_a_fleet_downloads_nothing_offline(run: Run, fleet: Fleet) -> None:
    def lacking(asked: Asked) -> Answer:
        step = replace(ADD, bytes_download=9)
        return Answer(to_tree(Plan(base="", desired="d", generation=1, steps=(step,))))

    fleet["a"].answers["POST /api/v1/plan"] = lacking
    ran = run("apply", "--yes", "--offline")
    assert (ran.code, "--offline: a lacks the files of x" in ran.err) == (11, True)
    assert not any(asked.path == "/api/v1/fleet/lease" for asked in fleet["a"].asked)


def test_a_git_base_compares_the_manifests_without_any_host(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    ran = run("diff", "--base", "HEAD")
    assert ran.code != 2  # no repository here
    assert not fleet["a"].asked
