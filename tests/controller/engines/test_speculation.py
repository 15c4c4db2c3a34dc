"""Speculative decoding from the manifest to the status, with the built-in model as its own draft model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mullama.chat.types import Completed
from tests.engines.llamacpp import builders
from tests.runtime.runtime_fixture import LocalServer

pytestmark = pytest.mark.anyio

TINY: dict[str, Any] = {"from": "builtin:tiny", "context": {"size": 512}}


async def test_a_declared_draft_model_guesses_and_the_status_counts(server: LocalServer) -> None:
    done = await server.apply({"chat": {**TINY, "draft": {"from": "builtin:tiny", "tokens": 4}}})
    assert done["outcome"] == "applied"
    asked = [event async for event in server.events("chat", "Tell me a story about a king.", max_tokens=40)]
    usage = next(event for event in asked if isinstance(event, Completed)).usage
    (model,) = server.operator.status()["models"]
    assert model["draft"]["kind"] == "model"
    assert model["draft"]["guessed"] == usage.draft_tokens >= usage.draft_accepted == model["draft"]["accepted"]
    assert sum(model["draft"]["accepted_at"]) == usage.draft_accepted
    alone = (await server.apply({"chat": TINY}), server.operator.status()["models"][0])[1]
    assert alone["draft"] is None
    assert alone["memory"] < model["memory"], "the draft model is a part of the memory"


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        ("mtp", "chat: draft.from is mtp, and builtin:tiny has no layers that predict further tokens"),
        ("./small.gguf", "the draft model small.gguf has another vocabulary than"),
        ("./absent.gguf", "absent.gguf"),
    ],
)
async def test_a_draft_that_does_not_fit_is_refused_with_the_reason(
    draft: str, reason: str, server: LocalServer
) -> None:
    """The headers show no difference of `small.gguf`: one token has another text, which the load finds."""
    builders.llama(Path(server.home) / "small.gguf", renamed=1000)
    done = await server.apply({"chat": {**TINY, "draft": draft}})
    assert done["outcome"] != "applied"
    assert reason in str(done)
