"""The standard suites of LangChain for its three chat models and two embeddings, over the scripted model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

ADDRESS: dict[str, str] = {}
calls_instead = pytest.mark.xfail(reason="asks for a call where the script, which knows one answer, writes the object")


@pytest.fixture(autouse=True, scope="session")
def address(url: str) -> None:
    """The suites ask for their parameters as properties, which take no fixtures."""
    ADDRESS["url"] = url


class TestChatOllama(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> Any:
        return ChatOllama

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "script", "base_url": ADDRESS["url"]}

    @property
    def has_tool_choice(self) -> bool:
        return False  # its client has no such parameter

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "tiny"


class TestChatOpenAI(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> Any:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "script", "base_url": f"{ADDRESS['url']}/v1", "api_key": "none", "stream_usage": True}

    @calls_instead
    def test_structured_output_pydantic_2_v1(self, model: Any) -> None:
        super().test_structured_output_pydantic_2_v1(model)

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "tiny"


class TestChatOpenAIResponses(TestChatOpenAI):
    """The same over the Responses API."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        given = super().chat_model_params | {"use_responses_api": True}
        del given["stream_usage"]
        return given


class TestChatAnthropic(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> Any:
        return ChatAnthropic

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "script", "base_url": ADDRESS["url"], "api_key": "none", "max_tokens": 1000}

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

    @calls_instead
    def test_structured_output_pydantic_2_v1(self, model: Any) -> None:
        super().test_structured_output_pydantic_2_v1(model)

    @property
    def model_override_value(self) -> str:
        return "tiny"


class TestOllamaEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> Any:
        return OllamaEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_url": ADDRESS["url"]}


class TestOpenAIEmbeddings(EmbeddingsIntegrationTests):
    """Which sends arrays of tokens by default."""

    @property
    def embeddings_class(self) -> Any:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {
            "model": "tiny", "base_url": f"{ADDRESS['url']}/v1", "api_key": "none", "check_embedding_ctx_length": False,
        }  # fmt: skip
