"""The fleet as one of its hosts sees it, where every host wants keys: a reader of one host gets no key of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.stack import Stack, stack_in

ADMIN, READER, USER = "admin-secret-of-the-fleet", "reader-secret", "user-secret"
KEYS = {
    "ops": {"secret": {"from_env": "FLEET_KEY"}, "roles": ["admin"]},
    "look": {"secret": {"from_env": "READER"}, "roles": ["read"]},
    "use": {"secret": {"from_env": "USER_KEY"}},
}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, Stack]]:
    """Two hosts, each with a model of the fleet, after an apply."""
    for name in ("control", "a", "b"):
        (tmp_path / name).mkdir()
    with stack_in(tmp_path / "control") as control, stack_in(tmp_path / "a") as a, stack_in(tmp_path / "b") as b:
        found = {"a": a, "b": b}
        for stack in (control, a, b):
            stack.variables |= {"FLEET_KEY": ADMIN, "READER": READER, "USER_KEY": USER}
        for stack in found.values():
            stack.write({}, auth={"keys": KEYS})
            stack.serve()
        urls = {name: stack.ready() for name, stack in found.items()}
        fleet = {
            "mullama": "v1",
            "metadata": {"name": "prod"},
            "auth": {"keys": KEYS},
            "models": {name: {"from": "builtin:tiny", "hosts": [name]} for name in urls},
            "fleet": {"hosts": {n: {"url": url, "key": {"from_env": "FLEET_KEY"}} for n, url in urls.items()}},
        }
        control.write_text(yaml.safe_dump(fleet))
        control.run("apply", "-f", control.name, "--yes")
        yield found


def asked(stack: Stack, key: str, path: str = "/api/v1/fleet") -> httpx.Response:
    return httpx.get(f"{stack.url}{path}", headers={"authorization": f"Bearer {key}"}, timeout=60)


def test_a_reader_of_one_host_sees_all_and_no_key(hosts: dict[str, Stack]) -> None:
    answer = asked(hosts["a"], READER)
    view: dict[str, Any] = answer.json()
    assert (view["name"], view["host"], view["rollout"]["state"]) == ("prod", "a", "applied")
    assert {row["name"]: (row["state"], row["ready"]) for row in view["hosts"]} == {
        "a": ("ready", 1),
        "b": ("ready", 1),
    }
    assert {row["name"]: [place["host"] for place in row["places"]] for row in view["models"]} == {
        "a": ["a"],
        "b": ["b"],
    }
    assert ADMIN not in answer.text
    assert asked(hosts["b"], READER, "/api/v1/status").json()["fleet"]["host"] == "b"

    assert asked(hosts["a"], USER).status_code == 403
    assert asked(hosts["a"], "wrong").status_code == 401
    body = {**asked(hosts["a"], READER, "/api/v1/fleet/rollout").json()["rollout"], "number": 99}
    written = httpx.put(
        f"{hosts['a'].url}/api/v1/fleet/rollout", json=body, headers={"authorization": f"Bearer {READER}"}, timeout=60
    )
    assert written.status_code == 403
