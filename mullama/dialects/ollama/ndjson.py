"""The parts that the lines of Ollama's answers share: head, metrics, reason of the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, assert_never

from mullama.chat import types
from mullama.dialects import schema
from mullama.dialects.base import Frame, Reply
from mullama.dialects.ollama.errors import message_of
from mullama.dialects.reply_values import LOGPROB_SCHEMA, nanoseconds, rfc3339
from mullama.dialects.tools import arguments_object
from mullama.errors import MullamaError
from mullama.names import JSONValue


def head(model: str, created: float) -> dict[str, JSONValue]:
    """Return the first members of every line; `model` is the name that the client sent."""
    return {"model": model, "created_at": rfc3339(created)}


def rendered(request: types.RenderRequest, text: str, created: float) -> Reply:
    """Return the rendered prompt instead of an answer."""
    parts = [part for message in request.chat.messages for part in message.content]
    shown: JSONValue = {
        "rendered_template": text,
        "image_count": sum(isinstance(part, types.MediaPart) for part in parts),
    }
    return Reply(body={**head(request.chat.model, created), "_debug_info": shown})


def done_reason(reason: types.StopReason) -> str:
    """Return Ollama's word for the reason, which has none for tool calls. A cancelled answer reached a limit."""
    match reason:
        case types.StopReason.STOP | types.StopReason.STOP_SEQUENCE | types.StopReason.TOOL_CALLS:
            return "stop"
        case types.StopReason.LENGTH | types.StopReason.TOOL_LIMIT | types.StopReason.CANCELLED:
            return "length"
        case _:
            assert_never(reason)


def metrics(usage: types.Usage, timings: types.Timings) -> dict[str, JSONValue]:
    """Return all token counts and durations in nanoseconds, including zeros."""
    return {
        "total_duration": nanoseconds(timings.total),
        "load_duration": nanoseconds(timings.load),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_cached_count": usage.cached_tokens,
        "prompt_eval_duration": nanoseconds(timings.prompt),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(timings.decode),
    }


def tool_call(index: int, call: types.ToolCall) -> dict[str, JSONValue]:
    return {
        "id": call.id,
        "function": {"index": index, "name": call.name, "arguments": arguments_object(call)},
    }


class LineStream:
    """Base of the streams of lines. `_ended` is set with the last line."""

    media: Literal["text/event-stream", "application/x-ndjson"] = "application/x-ndjson"
    whole: JSONValue = None
    _ended = False

    def fail(self, error: MullamaError) -> Iterable[Frame]:
        """Return the error as the last line, unless the stream has ended."""
        if self._ended:
            return ()
        self._ended = True
        return (Frame(data={"error": self._error(error)}),)

    def _error(self, error: MullamaError) -> JSONValue:
        return message_of(error)

    def ping(self) -> Iterable[Frame]:
        """Return nothing: NDJSON has no comments, and clients parse every line."""
        return ()


HEAD_SCHEMA = {"model": schema.STRING, "created_at": schema.TIME, "done": schema.BOOLEAN}
METRICS_SCHEMA = {
    "done_reason": schema.one_of("stop", "length", "load", "unload"),
    "total_duration": schema.COUNT,
    "load_duration": schema.COUNT,
    "prompt_eval_count": schema.COUNT,
    "prompt_eval_cached_count": schema.COUNT,
    "prompt_eval_duration": schema.COUNT,
    "eval_count": schema.COUNT,
    "eval_duration": schema.COUNT,
    "logprobs": schema.listed(LOGPROB_SCHEMA),
}
