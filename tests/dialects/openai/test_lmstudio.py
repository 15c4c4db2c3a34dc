"""LM Studio's endpoints."""

from __future__ import annotations

import pytest

from mullama.chat.inventory import ModelCard
from mullama.dialects.openai.lmstudio import model
from tests.dialects.wire import route


@pytest.mark.parametrize(
    ("capabilities", "kind"),
    [
        (("completion",), "llm"),
        (("completion", "vision"), "vlm"),
        (("embedding",), "embeddings"),
        (("completion", "embedding"), "llm"),
    ],
)
def test_the_type_of_a_model_follows_its_capabilities(capabilities: tuple[str, ...], kind: str) -> None:
    assert model(ModelCard(name="a", capabilities=capabilities))["type"] == kind


@pytest.mark.parametrize(
    ("source", "publisher"),
    [
        ("hf:org/a-GGUF:Q8_0", "org"),
        ("builtin:tiny", "mullama"),
        ("ollama:llama3.2", "mullama"),
        ("./a.gguf", "mullama"),
    ],
)
def test_the_publisher_is_the_owner_of_the_repository(source: str, publisher: str) -> None:
    assert model(ModelCard(name="a", source=source))["publisher"] == publisher


def test_a_model_that_is_not_loaded_has_no_loaded_context() -> None:
    card = ModelCard(name="a", context_size=2048, train_context=4096)
    shown = model(card)
    assert (shown["state"], shown["max_context_length"]) == ("not-loaded", 4096)
    assert "loaded_context_length" not in shown


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
def test_openais_endpoints_are_there_too(path: str) -> None:
    own, openai = route("POST", f"/api/v0/{path}", {}), route("POST", f"/v1/{path}", {})
    assert own is not None
    assert openai is not None
    assert own[1].encode is openai[1].encode
