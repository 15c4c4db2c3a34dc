"""The contract of executors on one server, and on two of which the first has its model at the second."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, stack_in
from tests.targets import contract


def asking(url: str) -> contract.Ask:
    def ask(path: str, body: Any = None, *, key: str = contract.KEY) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {key}"}
        answer = httpx.request("GET" if body is None else "POST", url + path, json=body, headers=headers, timeout=60)
        return answer.status_code, answer.text

    return ask


def serve(stack: Stack, **blocks: Any) -> str:
    stack.variables["TEAM_KEY"] = contract.KEY
    stack.write(blocks.pop("models", {}), auth=contract.AUTH, **blocks)
    stack.serve()
    return stack.ready()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("one")
    (home / "a.script.json").write_text(json.dumps(contract.SCRIPT))
    with stack_in(home) as stack:
        yield serve(stack, models={"a": {"from": "./a.script.json"}}, routes={"default": "a"})


@pytest.fixture(scope="module")
def two(one: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    peers = {"b": {"url": one, "key": {"from_env": "TEAM_KEY"}}}
    routes = {name: {"to": [{"peer": "b", "model": "a"}]} for name in ("a", "default")}
    with stack_in(Path(tmp_path_factory.mktemp("two"))) as stack:
        yield serve(stack, peers=peers, routes=routes)


@pytest.mark.parametrize("case", contract.CASES, ids=lambda case: case.__name__)
def test_one_server(one: str, case: contract.Case) -> None:
    case(asking(one))


@pytest.mark.parametrize("case", contract.FORWARDED, ids=lambda case: case.__name__)
def test_two_servers(two: str, case: contract.Case) -> None:
    case(asking(two))
