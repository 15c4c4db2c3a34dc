"""The spans of one inference: its wait, load, prefill and decode, by the GenAI semantic conventions.

Names: https://opentelemetry.io/docs/specs/semconv/gen-ai/. A span holds settings, counts and times, and no text of the
request or its answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping

from mullama.chat import types as chat
from mullama.errors import MullamaError
from mullama.runtime.base import Caller, Tracer
from mullama.runtime.pool import Lease
from mullama.trace_context import AttributeValue, Span, TraceContext

Traced = chat.ChatRequest | chat.CompletionRequest | chat.EmbedRequest | chat.RerankRequest
_OPERATIONS = {
    chat.ChatRequest: "chat", chat.CompletionRequest: "text_completion", chat.EmbedRequest: "embeddings",
    chat.RerankRequest: "rerank",
}  # fmt: skip
_SAMPLING = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed")
_TEXT = (
    chat.TextDelta | chat.ThinkingDelta | chat.ToolCallStarted | chat.ToolCallDelta | chat.ToolCallFinished
    | chat.Finished
)  # fmt: skip


def begin_trace(tracer: Tracer, request: Traced, caller: Caller) -> InferenceTrace | None:
    """Return the trace of an attempt to answer a request; None if it is not exported."""
    if caller.trace is None or not caller.trace.sampled or not tracer.active:
        return None
    return InferenceTrace(tracer, request, caller, caller.trace)


class InferenceTrace:
    """Collects the times of one attempt, and makes its spans at the end."""

    def __init__(self, tracer: Tracer, request: Traced, caller: Caller, context: TraceContext) -> None:
        self._tracer, self._request, self._caller, self._context = tracer, request, caller, context
        self._begun = time.monotonic()
        self._first: float | None = None
        self._finish: list[str] = []
        self._calls = 0
        self._timings: chat.Timings | None = None
        self._id = secrets.token_hex(8)

    def take(self, events: Iterable[chat.Event]) -> None:
        """Note the times and ends of events."""
        for event in events:
            if self._first is None and isinstance(event, _TEXT):
                self._first = time.monotonic()
            match event:
                case chat.ToolCallFinished():
                    self._calls += 1
                case chat.Finished(reason=reason):
                    self._finish.append(reason.value)
                case chat.Completed(timings=timings):
                    self._timings = timings
                case _:
                    pass

    def end(self, error: BaseException | None, *, model: str, usage: chat.Usage, lease: Lease | None) -> None:
        """Add the spans. error: the reason of the end; None for a complete answer. lease: None if it got none."""
        now, offset = time.monotonic(), time.time() - time.monotonic()
        kind = error.kind.value if isinstance(error, MullamaError) else "cancelled" if error is not None else None
        asked, operation = self._caller.route or self._request.model, _OPERATIONS.get(type(self._request), "chat")
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "mullama",
            "gen_ai.request.model": asked,
            "gen_ai.response.model": model,
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "mullama.request.id": self._caller.request_id,
            **_settings(self._request),
            **_present(
                {
                    "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
                    "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
                    "gen_ai.response.finish_reasons": tuple(self._finish),
                    "gen_ai.response.time_to_first_chunk": self._first and self._first - self._begun,
                    "mullama.tools.called": self._calls,
                    "mullama.key": self._caller.key,
                    "error.type": kind,
                }
            ),
        }
        spans = [self._span(f"{operation} {asked}", self._begun + offset, now + offset, attributes, kind)]
        for name, begin, end, more in self._phases(now, usage, lease):
            spans.append(self._span(name, begin + offset, end + offset, more, None, child=True))
        self._tracer.add(*spans)

    def _phases(
        self, now: float, usage: chat.Usage, lease: Lease | None
    ) -> Iterator[tuple[str, float, float, Mapping[str, AttributeValue]]]:
        """Yield the name, begin, end and attributes of each phase. Times are monotonic seconds."""
        if lease is None:
            yield "queue", self._begun, now, {}
            return
        granted = lease.asked + lease.load_seconds
        opened = lease.opened_at if lease.asked < lease.opened_at <= granted else lease.asked
        if opened > lease.asked:
            yield "load", lease.asked, opened, {}
        yield "queue", opened, granted, {}
        if not isinstance(self._request, chat.TextRequest):
            return
        first = now if self._first is None else self._first
        tokens = usage.prompt_tokens - usage.cached_tokens
        computed: dict[str, AttributeValue] = {"mullama.prompt.computed_tokens": tokens}
        if self._timings is not None:
            computed["mullama.engine.seconds"] = self._timings.prompt
        yield "prefill", granted, first, computed
        if self._first is None:
            return
        decoded: dict[str, AttributeValue] = {"gen_ai.usage.output_tokens": usage.completion_tokens}
        if usage.draft_tokens:
            decoded |= {"mullama.draft.tokens": usage.draft_tokens, "mullama.draft.accepted": usage.draft_accepted}
        if self._timings is not None:
            decoded["mullama.engine.seconds"] = self._timings.decode
        yield "decode", first, now, decoded

    def _span(
        self,
        name: str,
        begin: float,
        end: float,
        attributes: Mapping[str, AttributeValue],
        error: str | None,
        *,
        child: bool = False,
    ) -> Span:
        return Span(
            trace_id=self._context.trace_id, span_id=secrets.token_hex(8) if child else self._id,
            parent_id=self._id if child else self._context.span_id, state=self._context.state,
            name=name, begin=begin, end=max(begin, end), attributes=attributes,
            error=None if error == "cancelled" else error,
        )  # fmt: skip


def _settings(request: Traced) -> dict[str, AttributeValue]:
    """Return the settings that the request has, under the names of the conventions. Stop sequences are texts."""
    if not isinstance(request, chat.TextRequest):
        return {}
    sampling = {f"gen_ai.request.{name}": getattr(request.sampling, name) for name in _SAMPLING}
    tools = len(request.tools) if isinstance(request, chat.ChatRequest) else 0
    form = request.format.kind if request.format is not None else ""
    return {
        "gen_ai.output.type": "json" if form.startswith("json") else "text",
        "gen_ai.request.stream": request.stream,
        **{name: value for name, value in sampling.items() if value is not None},
        **_present(
            {
                "gen_ai.request.max_tokens": request.max_tokens,
                "gen_ai.request.choice.count": request.n if request.n > 1 else None,
                "mullama.format": form,
                "mullama.tools.offered": tools,
            }
        ),
    }


def _present(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    """Return the attributes that have a value other than none, 0 and empty."""
    return {name: value for name, value in attributes.items() if value}
