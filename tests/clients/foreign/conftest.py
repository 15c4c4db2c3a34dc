"""Clients of other projects, in an environment of their own (`make clients`); passed over without it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, serving

collect_ignore_glob = [] if find_spec("langchain_tests") else ["test_*.py"]

MODELS = {
    "script": {"from": "./words.script.json"},
    "tiny": {"from": "builtin:tiny", "parameters": {"temperature": 0}},
}
# What the scripted model says to the questions that the suites ask; the first rule that fits answers.
SCRIPT = Path(__file__).with_name("words.script.json")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home: Path = tmp_path_factory.mktemp("foreign")
    (home / "words.script.json").write_text(SCRIPT.read_text())
    with serving(home, MODELS) as found:
        yield found


@pytest.fixture(scope="session")
def url(stack: Stack) -> str:
    return stack.url
