"""`mullama apply` of a fleet refuses before it changes anything; the rollout itself is tried end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran

Run = Callable[..., Ran]
FLEET = """
mullama: v1
models: {m: builtin:tiny}
fleet:
  hosts:
    a: {url: "http://127.0.0.1:1"}
    b: {url: "http://127.0.0.1:2"}
"""


def write(text: str) -> None:
    Path("mullama.yaml").write_text(text)


@pytest.mark.parametrize("option", [["--no-wait"]])
def test_an_option_for_one_server_is_refused(run: Run, option: list[str]) -> None:
    write(FLEET)
    ran = run("apply", "--yes", *option)
    assert (ran.code, f"{option[0]} is for one server, and the manifest is of a fleet" in ran.err) == (4, True)


def test_a_locked_apply_names_what_is_not_pinned_before_it_asks_a_host(run: Run) -> None:
    write(FLEET.replace("builtin:tiny", "'hf:org/tiny-GGUF:Q8_0'"))
    ran = run("apply", "--yes", "--locked")
    assert (ran.code, "--locked: mullama.lock lacks hf:org/tiny-GGUF:Q8_0" in ran.err) == (9, True)
    write(FLEET.replace("builtin:tiny", "/srv/tiny.gguf"))
    ran = run("apply", "--yes", "--locked")
    assert (ran.code, "/srv/tiny.gguf of models.m is a path of each host, and has no digest" in ran.err) == (9, True)
    write(FLEET.replace("builtin:tiny", f"{{from: /srv/tiny.gguf, digest: 'sha256:{'a' * 64}'}}"))
    assert run("apply", "--yes", "--locked").code == 11


def test_hosts_that_do_not_answer_are_named_and_nothing_is_changed(run: Run) -> None:
    write(FLEET)
    ran = run("apply", "--yes")
    assert ran.code == 11
    assert "a: no server answers at http://127.0.0.1:1" in ran.out + ran.err
    assert "b: no server answers at http://127.0.0.1:2" in ran.out
    plan = json.loads(run("apply", "--yes", "--json").out.splitlines()[0])["plan"]
    assert (plan["complete"], plan["hosts"]["a"]["error"]["kind"]) == (False, "unavailable")


def test_a_key_that_is_missing_here_is_named_with_its_host(run: Run) -> None:
    write(FLEET.replace('"http://127.0.0.1:2"', '"http://127.0.0.1:2", key: {from_env: NO_SUCH_KEY_OF_B}'))
    ran = run("apply", "--yes")
    assert "NO_SUCH_KEY_OF_B is missing or empty" in ran.out + ran.err
    assert ran.code in (3, 11)


def test_a_fleet_without_models_needs_a_word(run: Run) -> None:
    write(FLEET.replace("models: {m: builtin:tiny}", "models: {}"))
    ran = run("apply", "--yes")
    assert (ran.code, "would remove every model of the fleet" in ran.err) == (9, True)
    assert run("apply", "--yes", "--allow-empty").code == 11


def test_one_server_by_address_is_not_a_fleet(run: Run) -> None:
    write(FLEET)
    ran = run("apply", "--yes", "--host", "http://127.0.0.1:1")
    assert (ran.code, "--host is one server" in ran.err) == (4, True)


@pytest.mark.parametrize("command", ["status", "usage", "history", "logs", "undo"])
def test_the_views_name_the_hosts_that_do_not_answer(run: Run, command: str) -> None:
    write(FLEET)
    ran = run(command)
    assert ran.code == 11
    assert "a: no server answers at http://127.0.0.1:1" in ran.err
