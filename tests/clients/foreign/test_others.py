"""litellm and llm, which others build upon: one answer, one stream, one call, one vector of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import litellm
import pytest

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
OSLO = [{"role": "user", "content": "What is the weather in Oslo?"}]
LONG = [{"role": "user", "content": "word " * 20_000}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture(params=["ollama_chat", "ollama", "openai", "anthropic"])
def given(request: pytest.FixtureRequest, url: str) -> dict[str, Any]:
    """The names by which litellm reaches a model, one for each API."""
    base = f"{url}/v1" if request.param == "openai" else url
    return {"model": f"{request.param}/script", "api_base": base, "api_key": "none", "max_retries": 0}


def test_litellm_answers_and_counts(given: dict[str, Any]) -> None:
    answer: Any = litellm.completion(messages=FRANCE, **given)

    assert answer.choices[0].message.content == "Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens > 0


def test_litellm_streams(given: dict[str, Any]) -> None:
    chunks: list[Any] = list(litellm.completion(messages=FRANCE, stream=True, **given))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris."
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_litellm_calls_tools(given: dict[str, Any]) -> None:
    if given["model"].startswith("ollama/"):
        pytest.skip("litellm writes tools into the prompt there")
    answer: Any = litellm.completion(messages=OSLO, tools=TOOLS, **given)
    [call] = answer.choices[0].message.tool_calls

    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})


def test_litellm_knows_an_overflow(url: str) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model="openai/tiny", messages=LONG, api_base=f"{url}/v1", api_key="none", max_retries=0)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model="anthropic/tiny", messages=LONG, api_base=url, api_key="none", max_retries=0)


def test_litellm_embeds(url: str) -> None:
    for given in ({"model": "openai/tiny", "api_base": f"{url}/v1"}, {"model": "ollama/tiny", "api_base": url}):
        answer = litellm.embedding(input=["one", "two"], api_key="none", **given)
        assert len(answer.data) == 2


def llm(url: str, home: Path, *arguments: str) -> str:
    """The command, with the address of the server and a home of its own."""
    keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "llm", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={**keep, "HOME": str(home), "LLM_USER_PATH": str(home), "OLLAMA_HOST": url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_llm_lists_asks_and_fills_in_a_schema(url: str, tmp_path: Path) -> None:
    assert "script" in llm(url, tmp_path, "ollama", "models")
    assert llm(url, tmp_path, "-m", "script", "What is the capital of France?") == "Paris."
    assert llm(url, tmp_path, "-m", "script", "--no-stream", "What is the capital of France?") == "Paris."
    joke = llm(url, tmp_path, "-m", "script", "--schema", "setup,punchline", "Tell me a joke about cats.")
    assert set(json.loads(joke)) == {"setup", "punchline"}
