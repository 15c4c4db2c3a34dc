"""The spans of inferences: names and attributes of the GenAI conventions, phases in order, and no text."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.errors import ContextOverflow
from mullama.struct import replace
from mullama.trace_context import Span, TraceContext
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of

pytestmark = pytest.mark.anyio

OTLP = {"otlp": {"endpoint": "http://localhost:4318"}}
TRACE = TraceContext(trace_id="1" * 32, span_id="2" * 16, flags=1, state="a=1")
TRACED = replace(CALLER, trace=TRACE, key="ci", request_id="req_1")


def spans_of(server: LocalServer) -> dict[str, Span]:
    """Return the spans so far by name; the first one is the parent of the others."""
    first, *others = server.spans.take()
    assert (first.trace_id, first.parent_id, first.state) == (TRACE.trace_id, TRACE.span_id, "a=1")
    assert {span.parent_id for span in others} == {first.span_id}
    assert len({span.span_id for span in (first, *others)}) == len(others) + 1
    for before, after in zip((first, *others), others, strict=False):
        assert before.begin <= after.begin <= after.end <= first.end
    return {span.name: span for span in (first, *others)}


async def test_an_inference_has_its_phases_and_the_attributes_of_the_conventions(server: LocalServer) -> None:
    await server.apply({"demo": {"from": server.script(), "residency": {"load": "on_demand"}}}, observability=OTLP)
    sampling = chat.Sampling(temperature=0.5, top_k=3, seed=7)
    request = request_of("demo", "say secret words", sampling=sampling, max_tokens=50, stop=("stop here",))

    await server.service.answer(request, TRACED)

    spans = spans_of(server)
    assert list(spans) == ["chat demo", "load", "queue", "prefill", "decode"]
    attributes = dict(spans["chat demo"].attributes)
    assert attributes.pop("gen_ai.response.time_to_first_chunk") > 0
    decoded = spans["decode"].attributes["gen_ai.usage.output_tokens"]
    tokens = attributes.pop("gen_ai.usage.input_tokens")
    assert attributes == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "mullama", "gen_ai.output.type": "text",
        "gen_ai.request.model": "demo", "gen_ai.response.model": "demo", "gen_ai.request.stream": False,
        "gen_ai.request.temperature": 0.5, "gen_ai.request.top_k": 3, "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 50, "gen_ai.usage.output_tokens": decoded,
        "gen_ai.response.finish_reasons": ("stop",), "mullama.key": "ci", "mullama.request.id": "req_1",
    }  # fmt: skip
    assert spans["prefill"].attributes["mullama.prompt.computed_tokens"] == tokens
    assert not [text for text in ("secret", "stop here") if text in repr(spans)]

    await server.service.answer(request, TRACED)
    assert list(spans_of(server)) == ["chat demo", "queue", "prefill", "decode"]  # the model is loaded


async def test_embeddings_have_a_span(server: LocalServer) -> None:
    await server.apply({"demo": server.script()}, observability=OTLP)
    await server.service.answer(chat.EmbedRequest(model="demo", inputs=("a secret",)), TRACED)
    spans = spans_of(server)
    assert list(spans) == ["embeddings demo", "queue"]
    assert spans["embeddings demo"].attributes["gen_ai.usage.input_tokens"] > 0  # type: ignore[operator]
    assert "secret" not in repr(spans)


async def test_a_failure_and_a_cancelled_request_end_their_span(server: LocalServer) -> None:
    await server.apply({"demo": {"from": server.script(), "context": {"size": 256}}}, observability=OTLP)
    with pytest.raises(ContextOverflow):
        await server.service.answer(request_of("demo", "say " + "long " * 2000), TRACED)
    failed = spans_of(server)["chat demo"]
    assert (failed.error, failed.attributes["error.type"]) == ("invalid", "invalid")

    stream = server.service.events(request_of("demo", "say one two three"), TRACED)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    cancelled = spans_of(server)["chat demo"]
    assert (cancelled.error, cancelled.attributes["error.type"]) == (None, "cancelled")


@pytest.mark.parametrize(
    ("caller", "blocks"),
    [
        (CALLER, OTLP),
        (replace(TRACED, trace=replace(TRACE, flags=0)), OTLP),
        (TRACED, {}),
        (TRACED, {"otlp": {**OTLP["otlp"], "traces": False}}),
    ],
)
async def test_nothing_is_recorded_for_other_requests(server: LocalServer, caller: Any, blocks: Any) -> None:
    await server.apply({"demo": server.script()}, observability=blocks)
    await server.service.answer(request_of("demo", "say yes"), caller)
    assert len(server.spans) == 0
