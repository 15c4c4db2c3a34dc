"""The blocks of one model."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mullama.manifest.spec.context import Context
from mullama.manifest.spec.draft import Draft
from mullama.manifest.spec.fleet import HostChoice
from mullama.manifest.spec.hardware import Gpu, Memory
from mullama.manifest.spec.parameters import Parameters
from mullama.manifest.spec.readers import (
    DialectName,
    adapter_sources,
    all_sources,
    check_mmproj,
    model_sources,
    projector_source,
)
from mullama.manifest.spec.routes import RequestParameters, Strip
from mullama.manifest.spec.server import RateLimit
from mullama.manifest.spec.tools import Approval
from mullama.manifest.spec.values import (
    AnyValue,
    Block,
    Duration,
    Expression,
    Flag,
    Number,
    Size,
    Source,
    Text,
    Whole,
)


class Template(Block):
    """The chat template: exactly one of `text`, `file` and `go`. A layer replaces the complete block."""

    text: Text | None = Field(default=None, examples=["{% for m in messages %}{{ m.content }}{% endfor %}"])
    """The template. Loading a manifest puts the content of `file` or `go` here."""
    file: Text | None = Field(default=None, examples=["./templates/qwen3.jinja"])
    """File with the template, relative to the manifest."""
    go: Text | None = Field(default=None, examples=["{{ .System }} {{ .Prompt }}"])
    """Template of a Modelfile, in Go syntax."""
    syntax: Literal["jinja", "go"] = "jinja"
    """Template language of `text` or `file`."""


class ThinkingMode(Block):
    """Reasoning of the model before its answers."""

    default: Literal["none", "auto", "low", "medium", "high"] = "auto"
    """Reasoning for requests that do not choose: `none` for no reasoning, an effort, or `auto` for the default of the
    chat template. A template without efforts reasons for each of them."""
    budget: Whole | None = Field(default=None, ge=0, le=2**31 - 1, examples=[1024])
    """Most tokens of reasoning; then it is closed and the answer begins. A request may ask for fewer."""


class ToolUse(Block):
    """Calls of tools by the model."""

    parallel: Flag = True
    """Allow several calls in one answer; with false, no request can allow them."""


class ManifestMessage(Block):
    """One message at the start of every conversation."""

    role: Literal["system", "user", "assistant"]
    """Role of the message."""
    content: str
    """Text of the message."""


class Keep(Block):
    """States that outlive the model in memory."""

    conversations: Size = Field(default=0, examples=["1GiB"])
    """Bytes on disk for the states of conversations when the model is unloaded or replaced by an equal revision; the
    least recently used of all models are deleted first. A change applies at the next load."""
    ram: Size = Field(default=0, examples=["1GiB"])
    """Bytes in main memory for the same states, until the server stops. Needs Linux (`/dev/shm`). With `conversations`
    as well, the states are kept in both places and read from memory."""
    prefixes: Size = Field(default=4 * 2**30, examples=["4GiB"])
    """Bytes on disk for computed beginnings of prompts (`system`, `messages` and tools of the manifest), `0` for none.
    The least recently used of all models are deleted first."""


PromptName = Annotated[str, Field(min_length=1, max_length=80)]


class Embedding(Block):
    """Vectors of the model: the prompts that its training expects before a text, and their length."""

    prompts: dict[PromptName, str] = Field(
        default={}, max_length=64, examples=[{"query": "query: ", "passage": "passage: "}]
    )
    """Prompts by name. A request chooses one by `prompt_name`, and it is put before each text of its input."""
    default_prompt: PromptName | None = Field(default=None, examples=["passage"])
    """Name of the prompt for requests that choose none."""
    dimensions: Whole | None = Field(default=None, ge=1, le=2**20, examples=[256])
    """Length of the vectors: the first numbers of each, scaled to length 1 again. It suits models that are trained for
    shorter vectors (Matryoshka). A request may ask for fewer."""


class Voice(Block):
    """Voice activity: where speech begins and ends in a sound."""

    detector: Literal["auto", "energy", "silero"] = "auto"
    """Detector: `silero`, a small network that needs `mullama[audio]`; `energy`, which takes each sound that is louder
    than the background for speech; or `auto` for silero where it is installed."""
    threshold: Number = Field(default=0.5, ge=0, le=1)
    """Score from which sound is speech, from 0 to 1. A higher one hears less noise and fewer quiet words."""
    speech: Duration = Field(default=0.1, ge=0, le=10, examples=["100ms"])
    """Speech that is shorter is ignored."""
    silence: Duration = Field(default=0.5, ge=0, le=60, examples=["500ms"])
    """A pause of this length ends speech."""
    pad: Duration = Field(default=0.2, ge=0, le=10, examples=["200ms"])
    """Sound that is kept before and after speech."""


class SpeechToText(Block):
    """Transcription of speech by the model."""

    instruction: str | None = Field(default=None, max_length=4096, examples=["Transcribe the audio[ in {language}]."])
    """Text that asks for the transcript. `{language}` stands for the English name of the language; a part in brackets
    is used if the language is known. Default: that of the kind of model, by its projector."""
    translation: str | None = Field(default=None, max_length=4096, examples=["Translate the speech into English."])
    """Text that asks for a translation into English, likewise."""
    language: str | None = Field(default=None, examples=["de"])
    """Language of requests that name none, as a code of ISO 639-1. Default: the model recognises it."""
    window: Duration = Field(default=30.0, ge=1, le=600, examples=["30s"])
    """Most sound that the model hears at once. Longer sounds are cut at pauses."""
    overlap: Duration = Field(default=2.0, ge=0, le=30, examples=["2s"])
    """Sound that two windows share where speech without a pause is cut. It takes a quarter of a window at most."""
    voice: Voice = Voice()
    """Voice activity: where speech begins and ends in a sound."""


class Residency(Block):
    """Loading and unloading of the model."""

    load: Literal["at_start", "on_demand", "when_room"] = "at_start"
    """Load the model when the server starts, on the first request, or whenever nothing else needs its memory: such a
    model is unloaded first, and loaded again when there is room."""
    ttl: Duration | None = Field(default=None, examples=["15m"])
    """Time without a request after which the model is unloaded. Default: `never`, or `5m` with on_demand.
    A model with when_room has none."""
    priority: Whole = Field(default=0, ge=-1000, le=1000)
    """Priority when memory is short: models with a lower number are unloaded first."""
    keep: Keep = Keep()
    """States that outlive the model in memory."""


class Limits(Block):
    """Limits on requests to this model."""

    parallel: Whole = Field(default=4, ge=1, le=256)
    """Number of requests that run at the same time; each has its own `context.size`."""
    queue: Whole = Field(default=64, ge=0, le=1_000_000)
    """Number of requests that may wait; further requests fail with a retry hint."""
    timeout: Duration = Field(default=600.0, gt=0, examples=["10m"])
    """Maximum time that one request may run. A request waits for a model that loads at most for this time or for
    `server.limits.queue_timeout`, the longer of the two."""
    max_tokens: Whole | None = Field(default=None, ge=1, le=2**31 - 1, examples=[4096])
    """Maximum number of tokens of an answer; a request cannot raise it."""
    rate: RateLimit | None = Field(default=None, examples=[{"tokens": "1M/h"}])
    """Rate limits for all clients of the model together."""
    rate_per_key: RateLimit | None = Field(default=None, examples=[{"requests": "10/m"}])
    """Rate limits of each API key on the model."""


class Probe(Block):
    """A request that the model must answer before it serves."""

    prompt: str = Field(default="", examples=["Say ok."])
    """Prompt of the request; an empty prompt generates one token."""
    expect: Expression | None = Field(default=None, examples=["(?i)ok"])
    """Regular expression that must match a part of the answer."""
    timeout: Duration = Field(default=60.0, gt=0, examples=["60s"])
    """Maximum time of the request."""


class Rollout(Block):
    """Replacement of a running model by its new revision."""

    strategy: Literal["auto", "surge", "recreate"] = "auto"
    """surge: load the new revision next to the old one, and refuse a change for which both do not fit into memory;
    recreate: unload the old one first, so requests wait; auto: surge if both fit, else recreate."""
    drain_timeout: Duration = Field(default=120.0, examples=["2m"])
    """Maximum time for running requests to end on the old revision."""


class Scale(Block):
    """Number of replicas on a cluster of Ray, by the requests in progress. A server of one machine refuses it."""

    min: Whole = Field(default=1, ge=0, le=1000)
    """Fewest replicas; with 0, the first request after a pause waits for the load."""
    max: Whole = Field(default=1, ge=1, le=1000)
    """Most replicas."""
    target_ongoing: Number | None = Field(default=None, gt=0, le=1000, examples=[2])
    """Requests in progress that each replica should have; more add a replica. Default: `limits.parallel`."""
    idle: Duration = Field(default=600.0, ge=0, examples=["10m"])
    """Time with too few requests after which a replica is removed."""


class AdapterRef(Block):
    """A LoRA adapter."""

    from_: Source = Field(alias="from", examples=["hf:acme/house-style-lora", "./adapters/house-style.gguf"])
    """Source of the GGUF file of the adapter: hf:org/repo[:file][@rev], ollama:name[:tag], https://…, path."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$", examples=["sha256:" + "0" * 64])
    """Required SHA-256 of the adapter file, compared before each load."""
    name: Text | None = Field(default=None, examples=["house"])
    """Name of the adapter in `lora` of a request."""
    scale: Number = Field(default=1.0, ge=-100, le=100, examples=[0.8])
    """Scale of the adapter; a change applies to the next request."""
    expose: Flag = False
    """Serve the adapter as a model of its `name`; requests to the model itself are answered without it."""


class Model(Block):
    """One model: a name that clients call, its weights and its settings."""

    description: str | None = Field(default=None, examples=["general chat"])
    """Short description for people."""
    from_: Source = Field(
        alias="from",
        examples=["builtin:tiny", "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M@main", "./gguf/llama-3.2-1b.Q8_0.gguf"],
    )
    """Source of weights: builtin:NAME, alias, hf:org/repo[:file|:QUANT][@rev], ollama:name[:tag], https://…, path."""
    adapters: tuple[AdapterRef, ...] = Field(default=(), max_length=16)
    """LoRA adapters."""
    mmproj: Annotated[str, AfterValidator(check_mmproj), Field(min_length=1)] = Field(
        default="auto", examples=["auto", "none", "hf:ggml-org/gemma-3-4b-it-GGUF:mmproj-model-f16.gguf"]
    )
    """Projector for images and sound: `none`, a source, or `auto` for the one beside the weights: an `mmproj-*.gguf` of
    the repository or folder, or the projector of an Ollama model."""
    draft: Draft | None = None
    """Speculative decoding: tokens are guessed ahead. A text is short for `from`."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$", examples=["sha256:" + "0" * 64])
    """Required SHA-256 of the weights file, compared before each load."""
    gpu: Gpu = Gpu()
    """Offload of layers to GPUs."""
    memory: Memory = Memory()
    """Loading of the weights into memory."""
    context: Context = Context()
    """Context: the memory of conversations."""
    system: str | None = Field(default=None, examples=["You answer briefly."])
    """System prompt; a system message of a request replaces it."""
    template: Template | None = None
    """Chat template; without it, the template in the weights file."""
    template_arguments: dict[str, AnyValue] = Field(default={}, max_length=64, examples=[{"preserve_thinking": True}])
    """Arguments of the chat template; those of a request win. The template must read an argument of another name than
    the usual ones."""
    thinking: ThinkingMode = ThinkingMode()
    """Reasoning of the model before its answers."""
    tools: ToolUse = ToolUse()
    """Calls of tools by the model."""
    mcp: tuple[Text, ...] = Field(default=(), max_length=64, examples=[["docs"]])
    """Names of the servers of tools that the model may use; the server calls them for it."""
    search: Flag = False
    """Offer the model a search of the web, as the block `search` of the manifest declares it."""
    tool_turns: Whole = Field(default=8, ge=1, le=100)
    """Most turns of one request that end with calls of such tools."""
    approve: Approval = Field(default="never", examples=["always", ["write_*"]])
    """Calls of such tools that wait for an approval of the client: `never`, `always`, or patterns of their names, as
    `TOOL`, `SERVER/TOOL` or `SERVER__TOOL`."""
    messages: tuple[ManifestMessage, ...] = Field(default=(), max_length=4096)
    """Messages at the start of every conversation."""
    parameters: Parameters = Parameters()
    """Sampling and length of answers."""
    force: RequestParameters = RequestParameters()
    """Parameters that a request cannot change."""
    strip: Strip = Field(default=(), max_length=64, examples=[["logit_bias"]])
    """Parameters that are removed from requests."""
    license: str | None = Field(default=None, examples=["apache-2.0"])
    """License, for people."""
    dialects: tuple[DialectName, ...] | None = Field(default=None, min_length=1)
    """API dialects that serve this model; without it, all dialects of the server."""
    residency: Residency = Residency()
    """Loading and unloading of the model."""
    limits: Limits = Limits()
    """Limits on requests to this model."""
    probe: Probe | None = None
    """A request that the model must answer before it serves."""
    rollout: Rollout = Rollout()
    """Replacement of a running model by its new revision."""
    scale: Scale | None = Field(default=None, examples=[{"min": 1, "max": 4}])
    """Number of replicas on a cluster of Ray, by the requests in progress. A server of one machine refuses it."""
    requires: tuple[Literal["completion", "tools", "thinking", "vision", "audio", "embedding", "insert"], ...] = Field(
        default=(), examples=[["tools"]]
    )
    """Capabilities that the weights must have; they are checked before the model serves."""
    hosts: HostChoice = Field(default="any", examples=["any", ["a", "b"], {"gpu": "h200"}])
    """Hosts of `fleet` that may have the model: `any`, a list of names, or labels that a host must have."""
    replicas: Whole = Field(default=1, ge=1, le=10_000)
    """Number of hosts of `fleet` that have the model."""
    protect: Flag = False
    """Refuse changes that remove or pause the model."""
    task: Literal["chat", "transcription", "embedding", "rerank"] = "chat"
    """Use of the model. One for `transcription` writes down speech and answers no conversations without a sound; a
    model for `chat` whose projector hears does both."""
    transcription: SpeechToText = SpeechToText()
    """Transcription of speech by the model."""
    embedding: Embedding = Embedding()
    """Vectors of the model: the prompts that its training expects before a text, and their length."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of weights: its own, and that of a draft model."""
        return model_sources(self)

    @property
    def projector_source(self) -> str | None:
        """The source of the projector; None where it comes with the weights, and without one."""
        return projector_source(self)

    @property
    def all_sources(self) -> tuple[str, ...]:
        """The sources of all files: of weights, a projector and adapters."""
        return all_sources(self)

    @property
    def adapter_sources(self) -> tuple[str, ...]:
        """The sources of the adapters, in the order of their numbers."""
        return adapter_sources(self)
