"""llama-server's metrics: its names and types, sums over models, rates since the last scrape."""

from __future__ import annotations

import re

import pytest

from mullama.chat.types import Timings, Usage
from mullama.engines.base import Embedded, Ended
from mullama.errors import Invalid, NotFound
from mullama.runtime.llamacpp_metrics import LlamaCppMetrics
from mullama.runtime.metrics import Metrics
from tests.runtime.runtime_fixture import LocalServer

COUNTERS = (
    "prompt_tokens_total", "prompt_tokens_cached_total", "prompt_seconds_total", "tokens_predicted_total",
    "tokens_predicted_seconds_total", "n_decode_total", "n_tokens_max", "spec_decode_num_draft_tokens_total",
    "spec_decode_num_accepted_tokens_total", "spec_decode_num_drafts_total",
)  # fmt: skip
GAUGES = (
    "prompt_tokens_seconds", "predicted_tokens_seconds", "requests_processing", "requests_deferred",
    "n_busy_slots_per_decode",
)  # fmt: skip


def values(text: str) -> dict[str, float]:
    """The value of each series; each has its help and type."""
    found = {}
    for line in text.splitlines():
        if line.startswith("llamacpp:"):
            name, value = line.split(" ")
            found[name.removeprefix("llamacpp:")] = float(value)
            assert re.search(rf"^# HELP {re.escape(name.partition('{')[0])} \S", text, re.MULTILINE)
    return found


def answered(metrics: Metrics, model: str, **more: int) -> None:
    """Two answers to a prompt of ten tokens, four of them cached, in 2 s and 3 s."""
    usage = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=8, draft_tokens=6, draft_accepted=3)
    ends = (
        Ended(id=1, reason="stop", prompt_tokens=10, completion_tokens=3, drafts=2, draft_accepted_at=(1,), **more),  # type: ignore[arg-type]
        Ended(id=2, reason="stop", prompt_tokens=10, completion_tokens=5, drafts=1, draft_accepted_at=(1, 1), **more),  # type: ignore[arg-type]
    )
    metrics.of(model).add_answers(usage, Timings(prompt=2.0, decode=3.0, answers=2), ends)
    metrics.add_decodes(model, 77, ends)


def test_every_series_of_the_original_is_there_with_its_type() -> None:
    text = LlamaCppMetrics().render({}, processing=0, deferred=0)

    assert list(values(text)) == [*COUNTERS, *GAUGES]
    assert set(values(text).values()) == {0.0}
    assert all(f"# TYPE llamacpp:{name} counter\n" in text for name in COUNTERS)
    assert all(f"# TYPE llamacpp:{name} gauge\n" in text for name in GAUGES)
    assert "per_pos" not in text


def test_the_counts_are_sums_over_the_models() -> None:
    metrics = Metrics()
    answered(metrics, "a", engine_decodes=4, engine_requests=6)
    answered(metrics, "b", engine_decodes=10, engine_requests=15)

    found = values(LlamaCppMetrics().render(metrics.models, processing=2, deferred=1))

    assert found == {
        "prompt_tokens_total": 12,
        "prompt_tokens_cached_total": 8,
        "prompt_seconds_total": 4.0,
        "tokens_predicted_total": 16,
        "tokens_predicted_seconds_total": 6.0,
        "n_decode_total": 10,
        "n_tokens_max": 15,
        "spec_decode_num_draft_tokens_total": 12,
        "spec_decode_num_accepted_tokens_total": 6,
        "spec_decode_num_drafts_total": 6,
        "prompt_tokens_seconds": 3.0,
        "predicted_tokens_seconds": 2.0,  # of each answer's tokens, the first needs no decode
        "requests_processing": 2,
        "requests_deferred": 1,
        "n_busy_slots_per_decode": 1.5,
        'spec_decode_num_accepted_tokens_per_pos_total{position="0"}': 4,
        'spec_decode_num_accepted_tokens_per_pos_total{position="1"}': 2,
    }


def test_rates_are_those_since_the_last_scrape() -> None:
    metrics, scraped = Metrics(), LlamaCppMetrics()
    seen = []
    for again in (True, False, True):
        if again:
            answered(metrics, "a")
        found = values(scraped.render(metrics.models, processing=0, deferred=0))
        seen.append((found["prompt_tokens_seconds"], found["predicted_tokens_seconds"], found["prompt_tokens_total"]))

    assert seen == [(3.0, 2.0, 6), (0.0, 0.0, 6), (3.0, 2.0, 12)]


def test_decodes_are_counted_once_also_after_a_restart_and_with_vectors() -> None:
    metrics = Metrics()
    for pid, decodes in ((1, 5), (1, 5), (1, 8), (2, 3), (1, 2)):  # the last has the id of a worker that ended
        metrics.add_decodes("a", pid, (Embedded(id=1, vectors=(), tokens=1, engine_decodes=decodes),))
    metrics.add_decodes("a", 3, ())

    assert metrics.of("a").decodes == 8 + 3 + 2


@pytest.mark.anyio
async def test_the_manifest_chooses_the_names(server: LocalServer) -> None:
    models = {"a": server.script(), "b": server.script("b")}
    await server.apply(models, observability={"metric_names": ["mullama", "llamacpp"]}, routes={"front": "a"})
    await server.ask("a", "count to 3")
    await server.ask("a", "count to 3")

    text = server.operator.metrics()
    assert "mullama_requests_total" in text
    both = values(text)
    assert both["tokens_predicted_total"] > 0
    assert both["n_decode_total"] > 0
    assert both["requests_processing"] == 0
    assert values(server.operator.metrics("front"))["tokens_predicted_total"] == both["tokens_predicted_total"]
    assert values(server.operator.metrics("b"))["tokens_predicted_total"] == 0
    assert "mullama_" not in server.operator.metrics("b")
    with pytest.raises(NotFound, match="'c' not found"):
        server.operator.metrics("c")

    await server.apply(models, observability={"metric_names": ["llamacpp"]})
    assert "mullama_" not in server.operator.metrics()
    await server.apply(models)
    assert values(server.operator.metrics()) == {}
    with pytest.raises(Invalid, match="only llama-server's series"):
        server.operator.metrics("a")
