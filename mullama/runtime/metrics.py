"""Counters and histograms of this server."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, zip_longest
from typing import Protocol

from mullama.chat.types import Timings, Usage
from mullama.engines.base import Embedded, Ended
from mullama.runtime.metering import RequestResult, ToolCallResult
from mullama.struct import Struct, field

_SHORTEST = 2**-10  # seconds: about a millisecond; a shorter time counts as this one
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Histogram(Struct):
    """A histogram of seconds in fixed buckets."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.total += seconds
        place = next((i for i, bound in enumerate(_BUCKETS) if seconds <= bound), len(_BUCKETS))
        self.counts[place] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, count of values up to it) for each bucket; the last bound is infinite."""
        bounds = (*(str(bound) for bound in _BUCKETS), "+Inf")
        return list(zip(bounds, accumulate(self.counts), strict=True))


class TimeSpread(Struct):
    """Counts of seconds by place: place p stands for 2^(p/8) s, so a quantile is exact to 5 %."""

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0

    def add(self, seconds: float) -> None:
        self.total += 1
        place = round(8 * math.log2(max(seconds, _SHORTEST)))
        self.counts[place] = self.counts.get(place, 0) + 1


class ModelMetrics(Struct):
    """One model's counters since the server started."""

    requests: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_steps: int = 0
    """Tokens generated, without the first of each answer, which needs no decode of its own."""
    longest: int = 0
    """Most tokens of prompt and answer of one sequence."""
    decodes: int = 0
    """Decodes of the engine, as far as requests that ended have reported them."""
    decode_requests: int = 0
    """Sum over the decodes of the requests in each."""
    drafts: int = 0
    draft_tokens: int = 0
    draft_accepted: int = 0
    draft_accepted_at: list[int] = field(default_factory=list)
    """Accepted guesses by their position."""
    duration: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    first_tokens: TimeSpread = field(default_factory=TimeSpread)
    """The same times as `first_token`, finer."""
    waits: TimeSpread = field(default_factory=TimeSpread)
    """The time that requests wait for a place: in the queue, and during a load."""

    def add_first_token(self, seconds: float) -> None:
        """Count the time from the arrival of a request to its first token."""
        self.first_token.add(seconds)
        self.first_tokens.add(seconds)

    def add_end(self, result: RequestResult, seconds: float) -> None:
        """Count a request that ended, or one attempt to answer it. seconds: from arrival to the end."""
        self.requests[result] += 1
        self.duration.add(seconds)

    def add_unfinished(self, spent: Usage) -> None:
        """Count the tokens of a request that was cancelled or failed."""
        self.prompt_tokens += spent.prompt_tokens
        self.cached_tokens += spent.cached_tokens
        self.completion_tokens += spent.completion_tokens

    def add_answers(self, usage: Usage, timings: Timings, ends: Iterable[Ended]) -> None:
        """Count the answers of one request."""
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        self.prompt_seconds += timings.prompt
        self.decode_seconds += timings.decode
        self.decode_steps += max(0, usage.completion_tokens - timings.answers)
        self.draft_tokens += usage.draft_tokens
        self.draft_accepted += usage.draft_accepted
        for ended in ends:
            self.longest = max(self.longest, ended.prompt_tokens + ended.completion_tokens)
            self.drafts += ended.drafts
            pairs = zip_longest(self.draft_accepted_at, ended.draft_accepted_at, fillvalue=0)
            self.draft_accepted_at = [before + more for before, more in pairs]


class Generating(Protocol):
    """A request that generates."""

    @property
    def model(self) -> str: ...
    @property
    def spent(self) -> Usage: ...
    @property
    def counted(self) -> bool:
        """True once its tokens are in the counters of its model."""
        ...


class Metrics(Struct):
    """The counters of one server."""

    models: dict[str, ModelMetrics] = field(default_factory=dict)
    reloads: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    last_reload_ok: bool = True
    last_reload_at: float = 0.0
    reconcile_seconds: Histogram = field(default_factory=Histogram)
    pulled_bytes: int = 0
    keys: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Requests, prompt tokens and generated tokens of each (key, model)."""
    rate_limited: dict[str, int] = field(default_factory=dict)
    """Requests that a rate limit refused, by the field of the limit in the manifest."""
    fallbacks: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    """Requests that went from a failed model to the next of its route, by (route, failed model, next model, failure).
    """
    streams: dict[str, int] = field(default_factory=dict)
    """Events of streams that clients may take up again: kept, resumed, cancelled, dropped, lost."""
    tool_calls: dict[tuple[str, str, ToolCallResult], int] = field(default_factory=dict)
    """Calls of tools that this server made for models, by server, tool and result."""
    tool_seconds: dict[str, Histogram] = field(default_factory=dict)
    """The times of these calls, by server."""
    spans: dict[str, int] = field(default_factory=dict)
    """Spans of requests that were exported or dropped."""
    otlp_failures: int = 0
    """Requests to the collector of traces and metrics that failed."""
    gauges: list[Callable[[], Iterable[Gauge]]] = field(default_factory=list)
    """Parts of the server with values that are computed at each scrape."""
    running: dict[int, Generating] = field(default_factory=dict)
    """The requests that generate now."""
    engines: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The last reported decodes and requests of each worker, by its process id."""

    def add_decodes(self, model: str, pid: int, reports: Iterable[Ended | Embedded]) -> None:
        """Count the decodes of a worker since its last report."""
        now = max(((r.engine_decodes, r.engine_requests) for r in reports), default=(0, 0))
        before = self.engines.get(pid, (0, 0))
        if now[0] < before[0]:
            before = (0, 0)  # another worker has the process id of one that ended
        counts = self.of(model)
        counts.decodes += now[0] - before[0]
        counts.decode_requests += now[1] - before[1]
        self.engines[pid] = now

    def add_tool_call(self, server: str, tool: str, result: ToolCallResult, seconds: float) -> None:
        """Count a call of a tool that this server made for a model."""
        group = (server, tool, result)
        self.tool_calls[group] = self.tool_calls.get(group, 0) + 1
        self.tool_seconds.setdefault(server, Histogram()).add(seconds)

    def add_request(self, key: str, model: str, usage: Usage, *, follows: bool = False) -> None:
        """Count a request of an API key. follows: only its tokens, see `Metered.follows`."""
        counts = self.keys.setdefault((key, model), [0, 0, 0])
        counts[0] += not follows
        counts[1] += usage.prompt_tokens
        counts[2] += usage.completion_tokens

    def add_fallback(self, route: str, failed: str, then: str, reason: str) -> None:
        """Count a request that another model of its route gets."""
        group = (route, failed, then, reason)
        self.fallbacks[group] = self.fallbacks.get(group, 0) + 1

    def tokens(self) -> dict[str, tuple[int, int, int]]:
        """Return the prompt tokens, cached tokens and generated tokens of each model, with those of running requests.

        The numbers never decrease, except when a running request is repeated.
        """
        found = {
            name: (counts.prompt_tokens, counts.cached_tokens, counts.completion_tokens)
            for name, counts in self.models.items()
        }
        for request in self.running.values():
            if not request.counted:
                prompt, cached, generated = found.get(request.model, (0, 0, 0))
                spent = request.spent
                found[request.model] = (
                    prompt + spent.prompt_tokens,
                    cached + spent.cached_tokens,
                    generated + spent.completion_tokens,
                )
        return found

    def generated(self) -> dict[str, int]:
        """Return the tokens that each model generated so far, those of running requests included."""
        return {name: generated for name, (_, _, generated) in self.tokens().items()}

    def of(self, model: str) -> ModelMetrics:
        return self.models.setdefault(model, ModelMetrics())


class Gauge(Struct, frozen=True, kw_only=True):
    """One value that is computed at each scrape."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
