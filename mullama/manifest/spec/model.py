"""The blocks of one model, in the order of what a change costs: files, weights, context, live."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mullama.chat.sampling_fields import SAMPLING_FIELDS
from mullama.manifest.spec.hardware import Context, Gpu, Memory
from mullama.manifest.spec.values import (
    Block,
    DialectName,
    Duration,
    Expression,
    Flag,
    Number,
    Source,
    Text,
    Whole,
    check_not_boolean,
)

Mirostat = Annotated[Literal[0, 1, 2], BeforeValidator(check_not_boolean)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]

MOST_STOPS = 16


class Template(Block):
    """How messages become a prompt: one of `text`, `file` and `go`. Replaced whole, never merged."""

    text: Text | None = Field(default=None, examples=["{% for m in messages %}{{ m.content }}{% endfor %}"])
    """The template itself; what `file` or `go` held is put here when the manifest is read."""
    file: Text | None = Field(default=None, examples=["./templates/qwen3.jinja"])
    """A file with the template, relative to the manifest."""
    go: Text | None = Field(default=None, examples=["{{ .System }} {{ .Prompt }}"])
    """A Modelfile's template, in Go syntax."""
    syntax: Literal["jinja", "go"] = "jinja"
    """The language of `text` or `file`."""


class ManifestMessage(Block):
    """One message that stands before every conversation."""

    role: Literal["system", "user", "assistant"]
    """Who speaks."""
    content: str
    """What is said."""


def _sampling(name: str, examples: list[Any] | None = None) -> Any:
    """A field of `Parameters` with the range and description of the sampling parameter of this name."""
    field = SAMPLING_FIELDS[name]
    return Field(
        default=None,
        ge=field.low,
        le=field.high,
        description=f"{field.description} Default: {field.default:g}.",
        examples=examples,
    )


class Parameters(Block):
    """Sampling and length of answers, under the names of a Modelfile; a request may override each."""

    temperature: Number | None = _sampling("temperature", [0.3])
    top_k: Whole | None = _sampling("top_k", [40])
    top_p: Number | None = _sampling("top_p", [0.9])
    min_p: Number | None = _sampling("min_p", [0.05])
    typical_p: Number | None = _sampling("typical_p")
    top_n_sigma: Number | None = _sampling("top_n_sigma")
    xtc_probability: Number | None = _sampling("xtc_probability")
    xtc_threshold: Number | None = _sampling("xtc_threshold")
    dynatemp_range: Number | None = _sampling("dynatemp_range")
    dynatemp_exponent: Number | None = _sampling("dynatemp_exponent")
    repeat_last_n: Whole | None = _sampling("repeat_last_n")
    repeat_penalty: Number | None = _sampling("repeat_penalty", [1.1])
    presence_penalty: Number | None = _sampling("presence_penalty")
    frequency_penalty: Number | None = _sampling("frequency_penalty")
    dry_multiplier: Number | None = _sampling("dry_multiplier")
    dry_base: Number | None = _sampling("dry_base")
    dry_allowed_length: Whole | None = _sampling("dry_allowed_length")
    dry_penalty_last_n: Whole | None = _sampling("dry_penalty_last_n")
    mirostat: Mirostat | None = _sampling("mirostat")
    mirostat_tau: Number | None = _sampling("mirostat_tau")
    mirostat_eta: Number | None = _sampling("mirostat_eta")
    seed: Whole | None = _sampling("seed", [7])
    min_keep: Whole | None = _sampling("min_keep")
    stop: tuple[Stop, ...] = Field(default=(), max_length=MOST_STOPS, examples=[["<|im_end|>"]])
    """Stop sequences: an answer ends before the first of them."""
    num_predict: Whole | None = Field(default=None, ge=-2, le=2**31 - 1, examples=[512])
    """Maximum number of tokens of an answer; -1 for no limit, -2 to fill the context."""
    num_keep: Whole | None = Field(default=None, ge=-1, le=2**31 - 1)
    """Accepted with a warning and without effect: a prompt that is too long loses complete messages only."""


class Residency(Block):
    """When the model is in memory."""

    load: Literal["at_start", "on_demand"] = "at_start"
    """With the server, or when the first request comes."""
    ttl: Duration | None = Field(default=None, examples=["15m"])
    """How long it stays without a request; `never` keeps it."""
    priority: Whole = Field(default=0, ge=-1000, le=1000)
    """When memory is short, the lowest number goes first."""


class ModelRate(Block):
    """How much all clients of the model may use together."""

    requests: str | None = Field(default=None, examples=["60/m"])
    """Requests per time."""
    tokens: str | None = Field(default=None, examples=["1M/h"])
    """Tokens per time."""


class Limits(Block):
    """What requests to this model may ask for."""

    parallel: Whole = Field(default=4, ge=1, le=256)
    """Requests that are answered at the same time; each has its own `context.size`."""
    queue: Whole = Field(default=64, ge=0, le=1_000_000)
    """Requests that may wait; one more is told to try later."""
    timeout: Duration = Field(default=600.0, gt=0, examples=["10m"])
    """How long one request may take."""
    max_tokens: Whole | None = Field(default=None, ge=1, le=2**31 - 1, examples=[4096])
    """The most tokens of an answer, whatever a request asks for."""
    rate: ModelRate | None = None
    """How much all clients of the model may use together."""


class Probe(Block):
    """What a model must answer before it serves."""

    prompt: str = Field(default="", examples=["Say ok."])
    """What it is asked; empty: one token is generated."""
    expect: Expression | None = Field(default=None, examples=["(?i)ok"])
    """A regular expression that the answer must contain."""
    timeout: Duration = Field(default=60.0, gt=0, examples=["60s"])
    """How long it may take."""


class Rollout(Block):
    """How a new revision takes over."""

    strategy: Literal["auto", "surge", "recreate"] = "auto"
    """auto: beside the old one when both fit, else one after the other."""
    drain_timeout: Duration = Field(default=120.0, examples=["2m"])
    """How long running requests may finish on the old revision."""


class AdapterRef(Block):
    """A LoRA adapter over the weights."""

    from_: Source = Field(alias="from", examples=["./adapters/house-style.gguf"])
    """The adapter's file."""
    scale: Number = Field(default=1.0, ge=-100, le=100, examples=[0.8])
    """How strongly it applies; a change is live."""


class Model(Block):
    """One name that clients can call."""

    description: str | None = Field(default=None, examples=["general chat"])
    """What it is for, in a few words for people."""
    from_: Source = Field(
        alias="from",
        examples=["builtin:tiny", "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M@main", "./gguf/llama-3.2-1b.Q8_0.gguf"],
    )
    """The weights: builtin:NAME, an alias, hf:org/repo[:file|:QUANT][@rev], ollama:name[:tag], https://…, or a path."""
    adapters: tuple[AdapterRef, ...] = Field(default=(), max_length=16)
    """LoRA adapters over the weights."""
    mmproj: Text | None = None
    """The projector for images and sound."""
    draft: Text | None = None
    """A smaller model that guesses ahead."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$", examples=["sha256:" + "0" * 64])
    """The SHA-256 that the file must have."""
    gpu: Gpu = Gpu()
    """Which layers leave the CPU."""
    memory: Memory = Memory()
    """How the weights are held in memory."""
    context: Context = Context()
    """The memory of conversations."""
    system: str | None = Field(default=None, examples=["You answer briefly."])
    """The system prompt, unless a request brings its own."""
    template: Template | None = None
    """How messages become a prompt; absent: the template in the file."""
    messages: tuple[ManifestMessage, ...] = Field(default=(), max_length=4096)
    """Messages that stand before every conversation."""
    parameters: Parameters = Parameters()
    """How the next token is chosen."""
    license: str | None = Field(default=None, examples=["apache-2.0"])
    """The license, for people."""
    dialects: tuple[DialectName, ...] | None = Field(default=None, min_length=1)
    """The wire formats that this model is served in; absent: all of the server's."""
    residency: Residency = Residency()
    """When the model is in memory."""
    limits: Limits = Limits()
    """What requests to this model may ask for."""
    probe: Probe | None = None
    """What the model must answer before it serves."""
    rollout: Rollout = Rollout()
    """How a new revision takes over."""
    requires: tuple[Literal["completion", "tools", "thinking", "vision", "embedding", "insert"], ...] = Field(
        default=(), examples=[["tools"]]
    )
    """Abilities that the file must have, checked before it serves."""
    protect: Flag = False
    """Refuse to remove or pause the model."""
    task: Literal["chat", "embedding", "rerank"] = "chat"
    """What the model is used for."""
