"""Commands of one server with a fleet: they ask all hosts, one that serves the model, or are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.cli.on_fleet.serving import host_for
from mullama.client.address import ServerAddress
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, Asked, TcpServer, TinyServer, handler, serving

Run = Callable[..., Ran]
Fleet = dict[str, TinyServer]


def row(name: str, state: str = "ready", active: int = 0) -> dict[str, Any]:
    return {"name": name, "state": state, "active": active, "waiting": 0, "memory": 1 << 30 if state == "ready" else 0}


def status(*models: dict[str, Any], **routes: str) -> dict[str, Any]:
    return {"state": "ready", "version": "1", "generation": 1, "models": [*models], "routes": routes, "listen": ["x"]}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Host `a` has m and n, host `b` has m, and the manifest names both."""
    hosts = {name: TinyServer(ServerAddress(port=0)) for name in "ab"}
    https = [TcpServer(("127.0.0.1", 0), handler(server)) for server in hosts.values()]
    for server, http in zip(hosts.values(), https, strict=True):
        server.address = ServerAddress(port=http.server_address[1])
        server.answers["GET /api/models/m"] = Answer({"name": "m", "capabilities": ["completion"]})
    hosts["a"].answers["GET /api/v1/status"] = Answer(status(row("m", active=2), row("n", "idle")))
    hosts["b"].answers["GET /api/v1/status"] = Answer(status(row("m"), n="n"))
    listed = {"digest": "sha256:1", "size": 7, "quantization": "Q8_0", "modified": 0, "source": "builtin:tiny"}
    for server, names in zip(hosts.values(), ("mn", "m"), strict=True):
        server.answers["GET /api/models"] = Answer({"models": [{"name": name, **listed} for name in names]})
    urls = ", ".join(f"{name}: {{url: '{server.url}'}}" for name, server in hosts.items())
    (tmp_path / "mullama.yaml").write_text(
        f"mullama: v1\nfleet: {{hosts: {{{urls}}}}}\nmodels: {{m: builtin:tiny, n: builtin:tiny}}\n"
    )
    for _ in serving(https[0]):
        yield from (hosts for _ in serving(https[1]))


def gone(fleet: Fleet, tmp_path: Path, name: str) -> None:
    """Let the manifest name an address of a host where no server is."""
    path = tmp_path / "mullama.yaml"
    path.write_text(path.read_text().replace(fleet[name].url, "http://127.0.0.1:1"))


def first_cells(text: str, count: int = 2) -> list[tuple[str, ...]]:
    return [tuple(line.split()[:count]) for line in text.splitlines()]


def test_ps_lists_the_models_in_memory_with_their_host(run: Run, fleet: Fleet) -> None:
    ran = run("ps")
    assert (ran.code, first_cells(ran.out)) == (0, [("HOST", "NAME"), ("a", "m"), ("b", "m")])
    assert first_cells(run("ps", "--all", "n").out)[1:] == [("a", "n")]
    tree = json.loads(run("ps", "--json").out)
    assert [(model["host"], model["name"]) for model in tree["models"]] == [("a", "m"), ("b", "m")]


def test_list_has_the_models_of_all_hosts(run: Run, fleet: Fleet) -> None:
    ran = run("list")
    assert ran.code == 0
    assert first_cells(ran.out) == [("HOST", "NAME"), ("a", "m"), ("a", "n"), ("b", "m"), ("2", "models")]
    tree = json.loads(run("list", "--json", "n").out)
    assert [(model["host"], model["name"]) for model in tree["models"]] == [("a", "n")]


@pytest.mark.parametrize("command", ["ps", "list"])
def test_a_host_that_does_not_answer_is_a_line_and_the_code_8(
    run: Run, fleet: Fleet, tmp_path: Path, command: str
) -> None:
    gone(fleet, tmp_path, "b")
    ran = run(command)
    assert (ran.code, "error: b: no server answers" in ran.err) == (8, True)
    assert "a " in ran.out


def test_run_asks_the_host_with_the_fewest_requests(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    last = {"model": "m", "message": {"role": "assistant", "content": "Paris"}, "done": True, "done_reason": "stop"}
    for server in fleet.values():
        server.answers["POST /api/models/chat"] = Answer(pieces=(json.dumps(last).encode() + b"\n",))
    assert (run("run", "m", "Hi").code, chats(fleet)) == (0, {"a": 0, "b": 1})
    gone(fleet, tmp_path, "b")
    assert (run("run", "m", "Hi").code, chats(fleet)) == (0, {"a": 1, "b": 1})


def test_top_has_the_models_of_all_hosts_with_their_speed(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    for name, server in fleet.items():
        tree = server.answers["GET /api/v1/status"]
        assert isinstance(tree, Answer)
        updates = ({"status": tree.body}, {"sample": {"tokens": {"m": 7.0 if name == "a" else 21.0}}})
        pieces = tuple(f"data: {json.dumps(update)}\n\n".encode() for update in updates)
        server.answers["GET /api/v1/live"] = Answer(pieces=pieces)
    ran = run("top", "--sort", "speed")
    assert (ran.code, first_cells(ran.out)) == (0, [("HOST", "MODEL"), ("b", "m"), ("a", "m"), ("a", "n")])
    tree = json.loads(run("top", "--json", "--filter", "m").out)
    speeds = [(model["host"], model["name"], model["tokens_per_second"]) for model in tree["models"]]
    assert speeds == [("a", "m", 7.0), ("b", "m", 21.0)]
    gone(fleet, tmp_path, "b")
    ran = run("top", "--once")
    assert (ran.code, first_cells(ran.out)[1:]) == (8, [("a", "m"), ("a", "n")])
    assert "error: b: no server answers" in ran.err


def chats(fleet: Fleet) -> dict[str, int]:
    def is_chat(asked: Asked) -> bool:
        return asked.path == "/api/models/chat"

    return {name: sum(map(is_chat, server.asked)) for name, server in fleet.items()}


def test_run_changes_no_model_of_a_fleet(run: Run, fleet: Fleet) -> None:
    ran = run("run", "nosuch", "Hi")
    assert "no host of the fleet serves nosuch" in ran.err
    ran = run("run", "m", "Hi", "--ctx-size", "512")
    assert (ran.code, "the models of a fleet are declared in its manifest" in ran.err) == (4, True)
    assert not any(asked.path != "/api/v1/status" for server in fleet.values() for asked in server.asked)


@pytest.mark.parametrize("command", [["load", "m"], ["reload"], ["apply", "--refresh-only"]])
def test_a_command_of_one_server_names_the_hosts(run: Run, fleet: Fleet, command: list[str]) -> None:
    ran = run(*command)
    assert (ran.code, "the manifest describes a fleet" in ran.err) == (4, True)
    assert f"a {fleet['a'].url}, b {fleet['b'].url}" in ran.err
    assert not fleet["a"].asked


def test_down_needs_a_word_and_stops_all_servers(run: Run, fleet: Fleet) -> None:
    refused = run("down")
    assert (refused.code, "there is no terminal to confirm it" in refused.err) == (9, True)
    assert "a:\n  - m  ready: unload, frees 1 GiB; files kept" in refused.out
    stops = [asked for server in fleet.values() for asked in server.asked if asked.path == "/api/v1/shutdown"]
    assert not stops
    for server in fleet.values():
        server.answers["POST /api/v1/shutdown"] = Answer({})
    ran = run("down", "--yes")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "2 servers stopped")


def test_down_waits_for_no_other_controller(run: Run, fleet: Fleet) -> None:
    held = {"error": {"kind": "conflict", "message": "ann@box changes the fleet now", "hint": ""}}
    for server in fleet.values():
        server.answers["GET /api/v1/fleet/lease"] = Answer({"fence": 1})
        server.answers["PUT /api/v1/fleet/lease"] = Answer(held, 409)
        server.answers["DELETE /api/v1/fleet/lease"] = Answer({})
    ran = run("down", "--yes")
    assert (ran.code, "ann@box changes the fleet now" in ran.err) == (10, True)


def test_the_host_of_a_model() -> None:
    busy, idle, failed = status(row("m", active=3)), status(row("m", "idle")), status(row("M", "failed"))
    assert host_for({"a": idle, "b": busy, "c": failed}, "m") == "b"
    assert host_for({"a": idle, "c": failed}, "M") == "a"
    assert host_for({"a": status(), "b": status(m="other")}, "m") == "b"
    assert host_for({"a": status(), "b": status()}, "m") is None
    assert host_for({"a": status(), "b": status(default="m")}, None) == "b"
    assert host_for({"a": status(), "b": status()}, None) == "a"
    assert host_for({"a": status(row("m"))}, "hf:org/repo") is None
