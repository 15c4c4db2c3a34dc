"""One real server with a real and a scripted model, and the official clients that talk to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, serving
from tests.official_clients import anthropic, ollama, openai

# What the scripted model says is in the request itself; constraints are promised to be kept by the tests.
SCRIPT = {"constraints": True, "rules": [{"when": "capital of France", "say": "Paris."}]}
MODELS: dict[str, Any] = {
    "tiny": {"from": "builtin:tiny", "parameters": {"temperature": 0}, "limits": {"parallel": 4}},
    # Each request runs alone, so equal requests are computed in batches of equal shapes and rounded alike.
    "single": {"from": "builtin:tiny", "limits": {"parallel": 1}},
    "script": {"from": "./words.script.json", "limits": {"parallel": 4}},
}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server of both models, for every test of this folder."""
    home: Path = tmp_path_factory.mktemp("clients")
    (home / "words.script.json").write_text(json.dumps(SCRIPT))
    with serving(home, MODELS, routes={"default": "tiny", "gpt-4o-mini": "script"}) as found:
        yield found


@pytest.fixture(scope="session")
def url(stack: Stack) -> str:
    return stack.url


@pytest.fixture(scope="session")
def http(url: str) -> Iterator[httpx.Client]:
    """What the official clients cannot be made to send."""
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def gpt(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def llama(url: str) -> Iterator[ollama.Client]:
    client = ollama.Client(host=url, timeout=60)
    yield client
    client._client.close()
