"""The values of a conversation: what a client may ask for, and the events that answer it.

Dialects decode a body into one of the requests and encode the events; nothing in here knows a wire format.
`None` in a request always means "not said": the model's own setting, then the default, applies.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Literal

from mullama.names import JSONValue

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An image as bytes already decoded from base64, or an address that has not been fetched."""

    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that an assistant made; `arguments` is an object, in the order the model wrote it."""

    id: str
    name: str
    arguments: Mapping[str, JSONValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `thinking` is the assistant's earlier reasoning; `tool_call_id`/`tool_name` belong to role tool."""

    role: Role
    content: tuple[Part, ...] = ()
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined; two that do not meet at white space stand on lines of their own."""
        joined = ""
        for part in self.content:
            if isinstance(part, TextPart):
                apart = joined and part.text and not (joined[-1].isspace() or part.text[0].isspace())
                joined += f"\n{part.text}" if apart else part.text
        return joined


def say(role: Role, text: str) -> Message:
    """A message of text alone."""
    return Message(role=role, content=(TextPart(text=text),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call; `parameters` is the client's JSON schema, kept verbatim."""

    name: str
    description: str = ""
    parameters: Mapping[str, JSONValue] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """`required` means at least one call; `names` narrows which tools may be called (empty: all)."""

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFormat:
    """The shape that the answer must have. `schema` is a JSON schema; `grammar` a regex or GBNF text."""

    kind: Literal["json", "json_schema", "regex", "gbnf"]
    schema: JSONValue = None
    grammar: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. Field names are the Modelfile's where it has one.

    temperature 0 is greedy. seed -1 is random. repeat_last_n counts tokens, -1 the whole context, 0 off.
    logit_bias maps token ids to a value added to the logit (-inf forbids the token).
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: tuple[str, ...] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None
    min_keep: int | None = None
    samplers: tuple[str, ...] | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None

    def over(self, base: Sampling) -> Sampling:
        """These settings where they are said, those of `base` elsewhere."""
        said = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(base, **said)


# The engine's defaults for whatever neither the client, the dialect nor the manifest says (Ollama's values).
DEFAULT_SAMPLING = Sampling(
    temperature=0.8,
    top_k=40,
    top_p=0.9,
    min_p=0.0,
    typical_p=1.0,
    top_n_sigma=-1.0,
    xtc_probability=0.0,
    xtc_threshold=0.1,
    dynatemp_range=0.0,
    dynatemp_exponent=1.0,
    repeat_last_n=64,
    repeat_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    dry_multiplier=0.0,
    dry_base=1.75,
    dry_allowed_length=2,
    dry_penalty_last_n=-1,
    dry_sequence_breakers=("\n", ":", '"', "*"),
    mirostat=0,
    mirostat_tau=5.0,
    mirostat_eta=0.1,
    seed=-1,
    min_keep=0,
    samplers=(),
    logit_bias=(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """What every request for text has in common.

    max_tokens: the most tokens to generate, None for as many as the limits allow, -1 likewise.
    logprobs: None for none, else how many alternatives per token (0 to 20).
    think: None as the model does by default; a level is one of low, medium, high, max.
    think_optional: a model that cannot think (or cannot stop) goes on as it can instead of an error.
    keep_alive: seconds to stay loaded after the answer; 0 unload at once; negative for ever; None as declared.
    context_size: what the client asked for as num_ctx; a hint, never a reason to load again.
    ignore_eos goes on after an end token. cache False computes the whole prompt anew.
    warnings: remarks of the decoder that the server sends as headers.
    """

    model: str
    stream: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    format: ResponseFormat | None = None
    think: bool | str | None = None
    think_optional: bool = False
    keep_alive: float | None = None
    context_size: int | None = None
    ignore_eos: bool = False
    cache: bool = True
    user: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(TextRequest):
    """A conversation to continue.

    template_arguments: extra names for the template (allow-listed by `chat.template`).
    continue_final: the last message is an assistant's and is to be continued.
    truncate: drop the oldest turns when the prompt does not fit, instead of an error.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    template_arguments: tuple[tuple[str, JSONValue], ...] = ()
    continue_final: bool = False
    truncate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest(TextRequest):
    """Text to go on from: one prompt, as text or as token ids.

    suffix: what must follow (fill in the middle). raw: no template is applied.
    system, template, images: only with Ollama's generate, where the prompt is a user's turn.
    echo: the prompt is part of the answer, with its logprobs when asked.
    want_context: `Completed.context` is asked for.
    """

    prompts: tuple[str | tuple[int, ...], ...]
    suffix: str | None = None
    raw: bool = True
    system: str | None = None
    template: str | None = None
    images: tuple[ImagePart, ...] = ()
    context: tuple[int, ...] = ()
    echo: bool = False
    truncate: bool = False
    want_context: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Inputs to turn into vectors. dimensions cuts and normalises again; truncate False makes a long input an error."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    truncate: bool = True
    normalize: bool = True
    keep_alive: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """Documents to order by how well they answer the query."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRequest:
    """How many tokens this conversation's prompt has; nothing is generated."""

    chat: ChatRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """The prompt text that the template makes of this conversation."""

    chat: ChatRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeRequest:
    model: str
    text: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DetokenizeRequest:
    model: str
    tokens: tuple[int, ...]


class StopReason(StrEnum):
    """Why generation of one choice ended."""

    STOP = "stop"  # the model ended its turn
    STOP_SEQUENCE = "stop_sequence"  # a string of the client's was met
    LENGTH = "length"  # the token limit or the context was reached
    TOOL_CALLS = "tool_calls"  # the model ended its turn with calls
    CANCELLED = "cancelled"  # the client left, or a drain deadline passed


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token's text and bytes, its natural-log probability, and its likeliest alternatives.

    logprob: nan where there is none (the first token of an echoed prompt).
    """

    id: int
    text: str
    bytes: builtins.bytes  # in this class the bare name is the field
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of a whole request. prompt_tokens includes cached_tokens; completion includes reasoning."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall-clock seconds: total from arrival, load of the model, prompt, generation."""

    total: float = 0.0
    load: float = 0.0
    prompt: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """First event: the prompt is known and admitted. Before it, a failure is an HTTP status.

    warnings: what of the request could not be had as it was asked for, a sentence each.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingDelta:
    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """`index` counts the calls of one choice from 0; `id` is unique in the world."""

    index: int
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A further piece of the arguments' JSON text."""

    index: int
    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallFinished:
    index: int
    call: ToolCall
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptProgress:
    """How far a long prompt is, in tokens; dialects may turn it into a ping."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end of one choice."""

    reason: StopReason
    stop_sequence: str | None = None
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """Last event of a request that did not fail. `context` is the conversation as tokens (Ollama's generate)."""

    usage: Usage
    timings: Timings
    context: tuple[int, ...] = ()


Event = (
    Started
    | PromptProgress
    | TextDelta
    | ThinkingDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallFinished
    | Finished
    | Completed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One whole answer, folded from its events (see `chat.answer`)."""

    index: int
    text: str
    thinking: str
    tool_calls: tuple[ToolCall, ...]
    reason: StopReason
    stop_sequence: str | None
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All choices of a request that was not streamed; `warnings` as `Started` told them."""

    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings
    context: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """One vector of floats per input, in input order."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """(document index, score) pairs, best first."""

    results: tuple[tuple[int, float], ...]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    ids: tuple[int, ...]
    pieces: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetokenizedText:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A grammar that the engine enforces on tokens: llguidance's Lark text, with a rule `start`.

    after: nothing is enforced, no trigger counts, and no end token may be chosen before this text was
    generated (the end of thinking); None binds from the first token.
    triggers: when set, the grammar binds only once one of these strings was generated, from the character
    after it on (it may end inside a token). Once matched, it rests until the next trigger if `repeat`,
    else the turn ends. Without triggers the grammar covers the whole answer to its end.
    markers: (rule, text) pairs that the grammar uses but leaves to the engine, which alone knows the
    vocabulary: `rule: <[id]>` where the text is one special token, else `rule: "text"`.
    """

    grammar: str
    triggers: tuple[str, ...] = ()
    after: str | None = None
    markers: tuple[tuple[str, str], ...] = ()
    repeat: bool = True
