"""Export by OTLP: what a collector decodes with OpenTelemetry's own protobuf, and a collector that fails."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mullama.controller.event_log import EventLog
from mullama.controller.telemetry.export import TelemetryExport
from mullama.controller.webhooks.delivery import HookReply, post
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.runtime.metrics import Gauge, Metrics
from mullama.runtime.metrics_text import families
from mullama.runtime.span_queue import SpanQueue
from mullama.trace_context import Span
from tests.hook_receiver import receiver_on_loopback
from tests.runtime.runtime_fixture import until

pytest.importorskip("opentelemetry.exporter.otlp.proto.common", reason="the extra otlp is not installed")
pytestmark = pytest.mark.anyio

PARENT = Span(
    trace_id="1" * 32, span_id="2" * 16, parent_id="3" * 16, state="a=1,b=2", name="POST /v1/chat/completions",
    begin=1000.5, end=1002.25, attributes={"http.request.method": "POST", "http.response.status_code": 503},
    serves=True, error="busy",
)  # fmt: skip
CHILD = Span(
    trace_id="1" * 32, span_id="4" * 16, parent_id="2" * 16, name="chat demo", begin=1001.0, end=1002.0,
    attributes={"gen_ai.request.temperature": 0.5, "gen_ai.response.finish_reasons": ("stop",), "x": True},
)  # fmt: skip


class Exporting:
    """An export to an address, with a clock and a sender of the test."""

    def __init__(self, endpoint: str = "http://collector:4318", send: Any = None, **fields: Any) -> None:
        self.manifest = manifest(endpoint, **fields)
        self.metrics, self.log, self.now = Metrics(), EventLog(), 100.0
        self.spans = SpanQueue(lambda: self.manifest.observability.otlp, self.metrics.spans)
        gauge = Gauge(name="mullama_requests_active", help="Running requests.", value=3.0)
        self.sent: list[tuple[str, Mapping[str, str], bytes]] = []
        self.replies: list[HookReply] = []
        self.export = TelemetryExport(
            self.spans, lambda: families(self.metrics, (gauge,)), self.metrics, lambda: self.manifest, self.log,
            {"KEY": "Bearer s3cret"}, send=send or self.send, clock=lambda: self.now,
        )  # fmt: skip

    def send(self, url: str, headers: Mapping[str, str], body: bytes, cancelled: Callable[[], bool]) -> HookReply:
        self.sent.append((url, headers, body))
        return self.replies.pop(0) if self.replies else HookReply(200)

    async def once(self, after: float = 0.0) -> None:
        self.now += after
        otlp = self.manifest.observability.otlp
        assert otlp is not None
        await self.export.export(otlp)

    def events(self) -> list[tuple[str, str]]:
        return [(event["kind"], event["message"]) for event in self.log.kept()]


def manifest(endpoint: str, **fields: Any) -> Manifest:
    otlp = {"endpoint": endpoint, **fields}
    return parse_resolved({"mullama": "v1", "metadata": {"name": "box"}, "models": {}, "observability": {"otlp": otlp}})


def value_of(value: Any) -> Any:
    found = getattr(value, value.WhichOneof("value"))
    return [value_of(one) for one in found.values] if value.WhichOneof("value") == "array_value" else found


def attributes(entry: Any) -> dict[str, Any]:
    return {pair.key: value_of(pair.value) for pair in entry.attributes}


async def test_a_collector_decodes_spans_and_metrics() -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with receiver_on_loopback() as (url, got):
        here = Exporting(url.removesuffix("/hook"), post, headers={"Authorization": {"from_env": "KEY"}})
        counts = here.metrics.of("demo")
        counts.prompt_tokens = 7
        counts.requests["ok"] = 2
        for seconds in (0.07, 0.2, 500.0):
            counts.duration.add(seconds)
        here.spans.add(PARENT, CHILD)
        await here.once()
        await here.export.close()

    assert [headers[":path"] for headers, _ in got] == ["/v1/traces", "/v1/metrics"]
    for headers, _ in got:
        assert (headers["Authorization"], headers["content-type"]) == ("Bearer s3cret", "application/x-protobuf")
    (resource,) = ExportTraceServiceRequest.FromString(got[0][1]).resource_spans
    described = attributes(resource.resource)
    assert (described["service.name"], described["service.instance.id"]) == ("mullama", "box")
    parent, child = resource.scope_spans[0].spans
    assert (parent.trace_id.hex(), parent.span_id.hex(), parent.parent_span_id.hex()) == ("1" * 32, "2" * 16, "3" * 16)
    assert (parent.name, parent.kind, parent.trace_state) == ("POST /v1/chat/completions", 2, "a=1,b=2")  # 2: SERVER
    assert (parent.start_time_unix_nano, parent.end_time_unix_nano) == (1000_500_000_000, 1002_250_000_000)
    assert (parent.status.code, parent.status.message) == (2, "busy")  # 2: ERROR
    assert attributes(parent) == {"http.request.method": "POST", "http.response.status_code": 503}
    assert (child.parent_span_id.hex(), child.kind, child.status.code) == ("2" * 16, 1, 0)  # 1: INTERNAL
    assert attributes(child) == {
        "gen_ai.request.temperature": 0.5, "gen_ai.response.finish_reasons": ["stop"], "x": True,
    }  # fmt: skip

    (resource,) = ExportMetricsServiceRequest.FromString(got[1][1]).resource_metrics
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    (tokens,) = metrics["mullama_prompt_tokens"].sum.data_points
    assert (tokens.as_double, attributes(tokens)) == (7.0, {"model": "demo"})
    assert metrics["mullama_prompt_tokens"].sum.is_monotonic
    assert metrics["mullama_prompt_tokens"].sum.aggregation_temporality == 2  # cumulative
    assert metrics["mullama_requests_active"].gauge.data_points[0].as_double == 3.0
    (own,) = metrics["mullama_request_duration_seconds"].histogram.data_points
    (named,) = metrics["gen_ai.server.request.duration"].histogram.data_points
    for point in (own, named):
        assert list(point.bucket_counts) == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        assert (point.count, round(point.sum, 2), list(point.explicit_bounds)[:3]) == (3, 500.27, [0.05, 0.1, 0.25])
        assert [name for name in ("min", "max") if point.HasField(name)] == []
    assert attributes(named) == {"gen_ai.provider.name": "mullama", "gen_ai.request.model": "demo"}
    assert here.metrics.spans == {"exported": 2}


async def test_a_collector_that_is_away_gets_the_spans_later_and_is_reported_once() -> None:
    here = Exporting(metrics=False)
    here.replies = [HookReply(0, reason="no connection"), HookReply(503, retry_after=30.0), HookReply(200)]
    here.spans.add(PARENT)

    await here.once()
    await here.once(1.0)  # it waits
    assert len(here.sent) == 1
    await here.once(1.1)
    await here.once(29.0)
    assert len(here.sent) == 2
    here.spans.add(CHILD)
    await here.once(1.1)

    assert [url for url, _, _ in here.sent] == ["http://collector:4318/v1/traces"] * 4
    assert here.sent[0][2] == here.sent[1][2] == here.sent[2][2]
    assert (here.metrics.spans, here.metrics.otlp_failures) == ({"exported": 2}, 2)
    assert here.events() == [
        ("telemetry-failed", "traces were not exported: no connection"),
        ("telemetry-recovered", "traces are exported again"),
    ]
    await here.export.close()


@pytest.mark.parametrize(("reply", "tries"), [(HookReply(503), 5), (HookReply(400), 1), (HookReply(302), 1)])
async def test_a_batch_is_dropped_and_counted_in_the_end(reply: HookReply, tries: int) -> None:
    here = Exporting(metrics=False)
    here.replies = [reply] * 9
    here.spans.add(PARENT, CHILD)
    for _ in range(7):
        await here.once(61.0)
    assert (len(here.sent), here.metrics.spans, len(here.spans)) == (tries, {"dropped": 2}, 0)
    await here.export.close()


async def test_a_collector_of_only_one_kind_gets_all_of_it_and_is_reported_once() -> None:
    def send(url: str, *_: Any) -> HookReply:
        sent.append(url.rpartition("/")[2])
        return HookReply(404) if sent[-1] == refused else HookReply(200)

    for refused, other in (("metrics", "traces"), ("traces", "metrics")):
        here, sent = Exporting(send=send, interval="30s"), list[str]()
        for _ in range(10):
            here.spans.add(PARENT)
            await here.once(61.0)
        assert (sent.count(other), sent.count(refused)) == (10, 10)
        assert here.events() == [("telemetry-failed", f"{refused} were not exported: status 404")]
        await here.export.close()


async def test_failures_of_other_requests_take_no_try_of_a_batch() -> None:
    here = Exporting(interval="1s")
    here.replies = [HookReply(503)] * 99
    for _ in range(7):  # of the metrics
        await here.once(61.0)
    for span in (PARENT, CHILD):
        here.spans.add(span)
        for _ in range(4):
            await here.once(61.0)
        assert here.metrics.spans.get("dropped", 0) == (span is CHILD)
        await here.once(61.0)
    traces = [url for url, _, _ in here.sent if url.endswith("/v1/traces")]
    assert (len(traces), here.metrics.spans) == (10, {"dropped": 2})
    await here.export.close()


async def test_metrics_are_sent_at_their_interval_and_spans_of_before_a_reload_are_dropped() -> None:
    here = Exporting(traces=False, interval="60s")
    here.spans.add(*[PARENT] * 600)
    for seconds in (0.0, 59.0, 1.0, 30.0):
        await here.once(seconds)
    assert [url for url, _, _ in here.sent] == ["http://collector:4318/v1/metrics"] * 2
    assert (len(here.spans), here.spans.full.is_set()) == (0, False)
    await here.export.close()


@pytest.mark.parametrize(
    ("endpoint", "fields", "words"),
    [
        ("http://metadata.example:4318", {}, "metadata.example has the address 169.254.169.254"),
        ("http://localhost:1", {"headers": {"X": {"from_env": "ABSENT"}}}, "ABSENT is missing or empty"),
    ],
)
async def test_addresses_of_the_link_and_missing_secrets_are_reported(
    endpoint: str, fields: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 4318))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    here = Exporting(endpoint, post, metrics=False, **fields)
    here.spans.add(PARENT)
    await here.once()
    ((kind, message),) = here.events()
    assert kind == "telemetry-failed"
    assert words in message
    assert "s3cret" not in message
    assert here.metrics.spans == {"dropped": 1}
    await here.export.close()


async def test_a_collector_that_is_away_for_days_and_a_fault_end_no_export() -> None:
    def broken(*_: object) -> HookReply:
        raise ValueError("Bearer s3cret")

    here = Exporting(metrics=False, send=broken)
    for _ in range(1100):
        here.spans.add(PARENT)
        await here.once(61.0)
    assert here.events() == [
        ("telemetry-failed", "traces were not exported: the request could not be made (ValueError)")
    ]
    assert here.metrics.spans == {"dropped": 1100}
    await here.export.close()


async def test_without_the_extra_the_event_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mullama.controller.telemetry.otlp", None)
    here = Exporting(metrics=False)
    here.spans.add(PARENT)
    await here.once()
    assert "pip install 'mullama[otlp]'" in here.events()[0][1]
    assert here.sent == []
    await here.export.close()


async def test_spans_of_after_a_change_are_not_sent_by_the_block_of_before() -> None:
    def send(*_: Any) -> HookReply:
        here.spans.add(CHILD)
        loop.call_soon_threadsafe(here.export.follow)
        sent.append(1)
        return HookReply(200)

    sent: list[int] = []
    here, loop = Exporting(send=send, metrics=False), asyncio.get_running_loop()
    here.spans.add(PARENT)
    await here.once()
    assert (len(sent), len(here.spans)) == (1, 1)


async def test_the_export_follows_the_manifest() -> None:
    here = Exporting(metrics=False)
    declared, here.manifest = here.manifest, parse_resolved({"mullama": "v1", "models": {}})
    task = asyncio.create_task(here.export.run())
    await asyncio.sleep(0)
    here.manifest = declared
    here.export.follow()
    here.spans.add(*[PARENT] * 512)  # a full batch is sent at once
    await until(lambda: bool(here.sent))
    here.manifest = parse_resolved({"mullama": "v1", "models": {}})
    here.spans.add(CHILD)
    here.export.follow()
    await until(lambda: len(here.spans) == 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await here.export.close()
    assert len(here.sent) == 1
