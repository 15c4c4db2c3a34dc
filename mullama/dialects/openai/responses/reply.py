"""The response object of the Responses API, with every member that its schema requires."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.chat.types import Effective, Sampling, Usage
from mullama.dialects import schema
from mullama.dialects.base import ReplyContext, ResponseRequest
from mullama.dialects.openai.responses.tools import echoed
from mullama.names import JSONValue


def usage_of(usage: Usage) -> dict[str, JSONValue]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _or(value: JSONValue, default: JSONValue) -> JSONValue:
    return default if value is None else value


def _settings(echo: Mapping[str, JSONValue], operation: ResponseRequest) -> dict[str, JSONValue]:
    """Return the settings of the request that are no settings of the generation, with the API's defaults."""
    reasoning = echo.get("reasoning")
    text = echo.get("text")
    plain: JSONValue = {"format": {"type": "text"}}
    blank: dict[str, JSONValue] = {"effort": None, "summary": None}
    return {
        "instructions": echo.get("instructions"),
        "max_tool_calls": echo.get("max_tool_calls"),
        "metadata": _or(echo.get("metadata"), {}),
        "parallel_tool_calls": operation.parallel_tool_calls,
        "previous_response_id": operation.previous,
        "prompt_cache_key": echo.get("prompt_cache_key"),
        "reasoning": {**blank, **reasoning} if isinstance(reasoning, Mapping) else blank,
        "safety_identifier": echo.get("safety_identifier"),
        "service_tier": "default",
        "store": operation.store,
        "background": _or(echo.get("background"), False),
        "top_logprobs": _or(echo.get("top_logprobs"), 0),
        "text": {"format": {"type": "text"}, **text} if isinstance(text, Mapping) else plain,
        "tool_choice": _or(echo.get("tool_choice"), "auto"),
        "tools": echoed(echo.get("tools")),
        "truncation": _or(echo.get("truncation"), "disabled"),
        "user": echo.get("user"),
    }


def _generation(sampling: Sampling, limit: int | None) -> dict[str, JSONValue]:
    """Return the settings by which the answer is generated, under the API's names."""
    return {
        "max_output_tokens": None if limit is None or limit < 0 else limit,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }


class ResponseObject:
    """Builds the response object of one request in any status.

    The settings of the generation that the request does not set are null until the model that answers is known.
    """

    def __init__(self, context: ReplyContext[ResponseRequest, None]) -> None:
        self._head: dict[str, JSONValue] = {
            "id": f"resp_{context.id}",
            "object": "response",
            "created_at": int(context.created),
            "model": context.operation.model,
            **_settings(context.operation.echo, context.operation),
            **_generation(context.operation.sampling, context.operation.max_tokens),
        }

    def begin(self, effective: Effective | None) -> None:
        """Report the settings of the answer from now on."""
        if effective is not None:
            self._head |= _generation(effective.sampling, effective.max_tokens)
            self._head["parallel_tool_calls"] = effective.parallel_tool_calls

    def at(
        self,
        status: str,
        output: list[JSONValue],
        *,
        completed_at: int | None = None,
        usage: JSONValue = None,
        error: JSONValue = None,
        incomplete: JSONValue = None,
    ) -> dict[str, JSONValue]:
        """Return the object with this status and output."""
        return {
            **self._head,
            "status": status,
            "completed_at": completed_at,
            "output": output,
            "usage": usage,
            "error": error,
            "incomplete_details": incomplete,
        }


USAGE_SCHEMA = schema.exact(
    input_tokens=schema.COUNT,
    input_tokens_details=schema.exact(cached_tokens=schema.COUNT, cache_write_tokens=schema.COUNT),
    output_tokens=schema.COUNT,
    output_tokens_details=schema.exact(reasoning_tokens=schema.COUNT),
    total_tokens=schema.COUNT,
)
RESPONSE_SCHEMA = schema.record(
    """id object created_at completed_at status incomplete_details model previous_response_id
    instructions output error tools tool_choice truncation parallel_tool_calls text top_p
    presence_penalty frequency_penalty top_logprobs temperature reasoning usage max_output_tokens
    max_tool_calls store background service_tier metadata safety_identifier prompt_cache_key""",
    id=schema.STRING,
    object=schema.constant("response"),
    created_at=schema.COUNT,
    completed_at=schema.nullable(schema.COUNT),
    status=schema.one_of("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
    incomplete_details=schema.nullable(schema.exact(reason=schema.STRING)),
    model=schema.STRING,
    output=schema.listed(schema.record("type id", type=schema.STRING, id=schema.STRING)),
    error=schema.nullable(schema.exact(code=schema.STRING, message=schema.STRING)),
    usage=schema.nullable(USAGE_SCHEMA),
)
