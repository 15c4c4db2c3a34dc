"""Token counts, timings and finish reasons in the forms of OpenAI and llama-server."""

from __future__ import annotations

from typing import assert_never

from mullama.chat.types import StopReason, Timings, Usage
from mullama.dialects import schema
from mullama.names import JSONValue


def usage_of(usage: Usage) -> dict[str, JSONValue]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def timings_of(usage: Usage, timings: Timings) -> dict[str, JSONValue]:
    """Return llama-server's counts and rates; `prompt_n` excludes cached tokens.

    The rates of an answer are those of its decodes: its first token comes from the last decode of the prompt.
    """
    computed = max(0, usage.prompt_tokens - usage.cached_tokens)
    steps = max(0, usage.completion_tokens - timings.answers)
    drafts: dict[str, JSONValue] = {"draft_n": usage.draft_tokens, "draft_n_accepted": usage.draft_accepted}
    return {
        "cache_n": usage.cached_tokens,
        **_rates("prompt", computed, computed, timings.prompt),
        **_rates("predicted", usage.completion_tokens, steps, timings.decode),
        **(drafts if usage.draft_tokens else {}),
    }


def _rates(name: str, count: int, steps: int, seconds: float) -> dict[str, JSONValue]:
    return {
        f"{name}_n": count,
        f"{name}_ms": seconds * 1000,
        f"{name}_per_token_ms": seconds * 1000 / steps if steps else 0.0,
        f"{name}_per_second": steps / seconds if seconds > 0 else 0.0,
    }


def finish_reason(reason: StopReason, calls: str = "tool_calls") -> str:
    """Return the finish reason; `calls` is the word for tool calls. A cancelled answer is one that reached a limit."""
    match reason:
        case StopReason.STOP | StopReason.STOP_SEQUENCE:
            return "stop"
        case StopReason.LENGTH | StopReason.TOOL_LIMIT | StopReason.CANCELLED:
            return "length"
        case StopReason.TOOL_CALLS:
            return calls
        case _:
            assert_never(reason)


def fingerprint(version: str) -> str:
    return f"fp_mullama_{version}" if version else "fp_mullama"


USAGE_SCHEMA = schema.record(
    "prompt_tokens completion_tokens total_tokens",
    prompt_tokens=schema.COUNT,
    completion_tokens=schema.COUNT,
    total_tokens=schema.COUNT,
    prompt_tokens_details=schema.exact(cached_tokens=schema.COUNT, audio_tokens=schema.COUNT),
    completion_tokens_details=schema.exact(
        reasoning_tokens=schema.COUNT,
        audio_tokens=schema.COUNT,
        accepted_prediction_tokens=schema.COUNT,
        rejected_prediction_tokens=schema.COUNT,
    ),
)
