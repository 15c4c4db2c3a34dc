"""The block of metrics, logs, captures, exported traces and webhooks."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from mullama.manifest.spec.readers import check_collector_url, check_header_name, check_hook_url, secret_form
from mullama.manifest.spec.server import SecretRef
from mullama.manifest.spec.values import Block, Duration, Flag, Number, Size

EventKind = Literal[
    "applied", "not-applied", "invalid-manifest", "held", "degraded", "recovered", "fetch-failed", "evicted", "worker",
    "worker-failed", "files-changed", "certificate", "certificate-refused", "usage-not-recorded", "git-commit",
    "git-failed", "git-edited", "keys", "listening", "not-listening", "pruned", "refreshed", "telemetry-failed",
    "telemetry-recovered", "watch-failed", "peer-ejected", "peer-recovered", "tool-call", "tool-failed",
    "tools-listed", "tools-lost", "tools-changed", "tools-accepted", "warning",
]  # fmt: skip
"""Events that a webhook may select."""


HookUrl = Annotated[
    Annotated[str, Field(min_length=1), AfterValidator(check_hook_url), Tag("address")]
    | Annotated[SecretRef, Tag("reference")],
    Discriminator(secret_form),
]


LogLevel = Literal["debug", "info", "warning", "error"]


class LogParts(Block):
    """Minimum levels of parts of the log; the other parts have the level of the log."""

    requests: LogLevel | None = None
    """A line for each request; debug adds those of health probes and of /metrics."""
    http: LogLevel | None = None
    """Listeners, certificates, connections and faults of streams."""
    manifest: LogLevel | None = None
    """Changes of the manifest: what was applied or not, the git repository, and the files that are watched."""
    models: LogLevel | None = None
    """States and downloads of models."""
    workers: LogLevel | None = None
    """Starts and ends of workers; debug adds the log lines of llama.cpp, for models that load from then on."""
    scheduler: LogLevel | None = None
    """Decisions of the scheduler, at debug: each event with the loads, unloads and requests that it leads to."""
    telemetry: LogLevel | None = None
    """Webhooks, exported traces and metrics, and records of usage."""


class Logs(Block):
    """Log of the server."""

    format: Literal["text", "json"] = "text"
    """Format of the lines: text for people, json for programs."""
    level: LogLevel = "info"
    """Minimum level of the lines."""
    parts: LogParts = Field(default=LogParts(), examples=[{"scheduler": "debug", "requests": "warning"}])
    """Minimum levels of parts of the log."""
    prompts: Flag = False
    """Log prompts and answers."""


class Webhook(Block):
    """A program that is called for events of the server."""

    url: HookUrl = Field(examples=["https://hooks.example.org/mullama", {"from_env": "SLACK_HOOK"}])
    """Address that receives a POST for each event; a reference for an address that is a secret itself."""
    events: tuple[EventKind, ...] = Field(default=("applied", "not-applied", "degraded", "recovered"), min_length=1)
    """Kinds of events."""
    form: Literal["standard", "slack", "pagerduty"] = "standard"
    """Form of the body: the event as JSON with the headers of Standard Webhooks, `text` for Slack, Mattermost and
    Discord, or an event of PagerDuty, whose routing key is the secret."""
    secret: SecretRef | None = Field(default=None, examples=[{"from_env": "HOOK_SECRET"}])
    """Secret that signs the body (HMAC-SHA256), or the routing key of PagerDuty."""


class Otlp(Block):
    """Export of traces and metrics to a collector by OTLP over HTTP. It needs the extra `mullama[otlp]`."""

    endpoint: Annotated[str, Field(min_length=1), AfterValidator(check_collector_url)] = Field(
        examples=["http://localhost:4318"]
    )
    """Address of the collector; traces are sent to `/v1/traces` below it, metrics to `/v1/metrics`."""
    headers: dict[Annotated[str, AfterValidator(check_header_name)], SecretRef] = Field(
        default={}, max_length=16, examples=[{"Authorization": {"from_env": "OTLP_AUTHORIZATION"}}]
    )
    """Headers of the requests to the collector, by name; each value is a reference to a secret."""
    traces: Flag = True
    """Export a trace of each request: its wait, load, prefill and decode, without any text."""
    metrics: Flag = True
    """Export the values of /metrics."""
    interval: Duration = Field(default=30.0, ge=1.0, le=86_400.0, examples=["30s"])
    """Time between two exports of the metrics."""
    sample: Number = Field(default=1.0, ge=0.0, le=1.0, examples=[0.1])
    """Share of the traces that begin at this server and are exported. A trace of a client is exported if the client
    samples it."""


class UsageRecords(Block):
    """Records of usage: sums of requests and tokens by key, route and model, and no text of any request."""

    keep: Duration = Field(default=90 * 86400.0, examples=["90d"])
    """Time for which the sums of a day are kept; those of an hour for at most 31 days, those of a minute for 2. `0s`
    records nothing."""


class Captures(Block):
    """The last requests with their prompts, answers and times, for administrators."""

    size: Size = Field(default=16 * 1024**2, ge=65_536, le=2**30, examples=["16MiB"])
    """Maximum size of all captures in memory; the oldest are dropped first."""
    bodies: Literal["none", "errors", "all"] = "errors"
    """Requests whose prompt and answer are kept: those that fail, all, or none."""


class Observability(Block):
    """Metrics, logs, captures, records of usage and webhooks."""

    metrics: Flag = True
    """Serve Prometheus metrics at /metrics."""
    metric_names: tuple[Literal["mullama", "llamacpp"], ...] = Field(
        default=("mullama",), min_length=1, examples=[["mullama", "llamacpp"]]
    )
    """Families of metrics: mullama's own, and those of llama.cpp's server under its names."""
    logs: Logs = Logs()
    """Log of the server."""
    usage: UsageRecords = UsageRecords()
    """Records of usage."""
    captures: Captures | None = None
    """The last requests for administrators; without the block, nothing is captured."""
    otlp: Otlp | None = None
    """Export of traces and metrics; without the block, nothing is exported."""
    webhooks: tuple[Webhook, ...] = Field(default=(), max_length=16)
    """Programs that are called for events of the server."""
