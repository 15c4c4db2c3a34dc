"""The metrics of llama.cpp's server under its names, for its dashboards and autoscalers.

Names, help and types are those of `server_task_result_metrics::to_metrics` in llama.cpp's tools/server. Its series have
no labels: they are the sums over the models, or one model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest

from mullama.runtime.metrics import ModelMetrics
from mullama.struct import Struct, field

Rates = tuple[float, float, float, float]
"""Computed tokens of prompts, their seconds, decodes of answers, their seconds."""

_PER_POSITION = "spec_decode_num_accepted_tokens_per_pos_total"


class LlamaCppMetrics(Struct):
    """Renders the counters. The two rates are those since the last scrape, as llama-server's are."""

    _last: dict[str, Rates] = field(default_factory=dict)

    def render(self, models: Mapping[str, ModelMetrics], *, processing: int, deferred: int) -> str:
        """Return the Prometheus text. processing, deferred: requests that run and wait now."""
        counts = tuple(models.values())
        prompt_rate, decode_rate = self._rates(models)

        def total(pick: Callable[[ModelMetrics], float]) -> float:
            return sum(map(pick, counts))

        decodes = total(lambda m: m.decodes)
        items: tuple[tuple[str, str, str, float], ...] = (
            ("prompt_tokens_total", "counter", "Number of prompt tokens processed, excluding cached tokens",
             total(lambda m: m.prompt_tokens - m.cached_tokens)),
            ("prompt_tokens_cached_total", "counter", "Number of prompt tokens reused from the cache",
             total(lambda m: m.cached_tokens)),
            ("prompt_seconds_total", "counter", "Total time spent processing prompts",
             total(lambda m: m.prompt_seconds)),
            ("tokens_predicted_total", "counter", "Number of generation tokens processed",
             total(lambda m: m.completion_tokens)),
            ("tokens_predicted_seconds_total", "counter", "Total time spent generating tokens",
             total(lambda m: m.decode_seconds)),
            ("n_decode_total", "counter", "Total number of llama_decode() calls", decodes),
            ("n_tokens_max", "counter", "Largest observed sequence length (prompt + generation)",
             max((m.longest for m in counts), default=0)),
            ("spec_decode_num_draft_tokens_total", "counter", "Speculative: Total draft tokens generated",
             total(lambda m: m.draft_tokens)),
            ("spec_decode_num_accepted_tokens_total", "counter",
             "Speculative: Total draft tokens accepted by the target model", total(lambda m: m.draft_accepted)),
            ("spec_decode_num_drafts_total", "counter",
             "Speculative: Total speculative decoding verification steps", total(lambda m: m.drafts)),
            ("prompt_tokens_seconds", "gauge", "Average prompt throughput in tokens/s", prompt_rate),
            ("predicted_tokens_seconds", "gauge", "Average generation throughput in tokens/s", decode_rate),
            ("requests_processing", "gauge", "Number of requests processing", processing),
            ("requests_deferred", "gauge", "Number of requests deferred", deferred),
            ("n_busy_slots_per_decode", "gauge", "Average number of busy slots per llama_decode() call",
             total(lambda m: m.decode_requests) / max(decodes, 1)),
        )  # fmt: skip
        lines = [line for name, kind, text, value in items for line in (*_head(name, kind, text), _line(name, value))]
        accepted = [sum(at) for at in zip_longest(*(m.draft_accepted_at for m in counts), fillvalue=0)]
        if accepted:
            lines += _head(_PER_POSITION, "counter", "Accepted tokens per draft position")
            lines += [_line(f'{_PER_POSITION}{{position="{at}"}}', count) for at, count in enumerate(accepted)]
        return "".join(f"{line}\n" for line in lines)

    def _rates(self, models: Mapping[str, ModelMetrics]) -> tuple[float, float]:
        """Return tokens per second of prompts and answers since the last scrape of these models."""
        prompt = prompt_seconds = steps = seconds = 0.0
        for name, m in models.items():
            now = (m.prompt_tokens - m.cached_tokens, m.prompt_seconds, m.decode_steps, m.decode_seconds)
            before = self._last.get(name, (0, 0, 0, 0))
            self._last[name] = now
            prompt += now[0] - before[0]
            prompt_seconds += now[1] - before[1]
            steps += now[2] - before[2]
            seconds += now[3] - before[3]
        return (prompt / prompt_seconds if prompt_seconds > 0 else 0.0), (steps / seconds if seconds > 0 else 0.0)


def _head(name: str, kind: str, text: str) -> Iterable[str]:
    return f"# HELP llamacpp:{name} {text}", f"# TYPE llamacpp:{name} {kind}"


def _line(name: str, value: float) -> str:
    return f"llamacpp:{name} {value}"
