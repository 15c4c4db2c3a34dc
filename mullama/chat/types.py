"""The values of a conversation: requests, and the events that answer them.

Dialects decode a body to one of the requests and encode the events; nothing here depends on a wire format. `None` in a
request means "not set": the setting of the model applies, then the default.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal

from mullama.chat.media import MediumKind
from mullama.chat.sampling_fields import SAMPLING_FIELDS
from mullama.chat.tool_servers import Approval, ToolServer
from mullama.names import JSONValue
from mullama.struct import Struct, equality_without, field, field_names, replace

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(Struct, frozen=True, kw_only=True):
    text: str


class MediaPart(Struct, frozen=True, kw_only=True):
    """An image or a sound: its bytes, or the address of one that is not fetched yet."""

    kind: MediumKind = "image"
    data: bytes | None = None
    """The bytes of the file (not base64)."""
    url: str | None = None
    place: str = ""
    """Its place in the request, for errors; no part of `==`."""

    __eq__, __hash__ = equality_without("place")


Part = TextPart | MediaPart


class ToolCall(Struct, frozen=True, kw_only=True):
    """A tool call that an assistant made."""

    id: str
    name: str
    arguments: Mapping[str, JSONValue] | str
    """The JSON object of arguments, keys in the order of the model; the text as written where it is no JSON object.

    A call that a limit cuts has the text so far.
    """


def joint(before: str, after: str) -> str:
    """Return the text between two texts that something else stood between: a line break, unless one has white space."""
    return "\n" if before and after and not (before[-1].isspace() or after[0].isspace()) else ""


def joined(texts: Iterable[str]) -> str:
    """Return separate texts as one."""
    whole = ""
    for text in texts:
        whole += joint(whole, text) + text
    return whole


class PieceJoiner:
    """Separates the texts and the reasoning of a stream as `joined` separates those of a complete answer."""

    def __init__(self) -> None:
        self._ends: dict[bool, str] = {}  # the last characters of the text (False) and of the reasoning (True)
        self._last: bool | None = None

    def call(self) -> None:
        """Note that a call stands after the texts so far."""
        self._last = None

    def piece(self, text: str, *, thinking: bool = False) -> str:
        """Return a further piece with its separator."""
        if not text:
            return text
        separator = joint(self._ends.get(thinking, ""), text) if self._last is not thinking else ""
        self._ends[thinking], self._last = text[-1], thinking
        return separator + text


class Message(Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: Role
    content: tuple[Part, ...] = ()
    thinking: str | None = None
    """Reasoning of an earlier assistant turn."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """Id of the call that this tool message answers."""
    tool_name: str | None = None
    """Name of the tool that this tool message comes from."""
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined; a line break separates two parts without white space between them."""
        return joined(part.text for part in self.content if isinstance(part, TextPart))


def text_message(role: Role, text: str) -> Message:
    """Return a message of text alone."""
    return Message(role=role, content=(TextPart(text=text),))


class Tool(Struct, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: Mapping[str, JSONValue] | None = None
    """The client's JSON Schema, unchanged."""
    strict: bool = False


class ToolChoice(Struct, frozen=True, kw_only=True):
    """Constraint on tool calls: `required` demands at least one."""

    mode: Literal["auto", "none", "required"] = "auto"
    names: tuple[str, ...] = ()
    """Tools that may be called; empty allows all."""
    server: str = ""
    """The label of a server that the request names: its tools may be called, beside `names`."""


class ResponseFormat(Struct, frozen=True, kw_only=True):
    """The format that an answer must have."""

    kind: Literal["json", "json_schema", "regex", "gbnf"]
    schema: JSONValue = None
    """JSON Schema, for kind `json_schema`."""
    grammar: str = ""
    """Regular expression or GBNF text, for the kinds `regex` and `gbnf`."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen. Field names are the Modelfile's where it has one.

    temperature 0 is greedy. seed -1 is random. repeat_last_n counts tokens, -1 the whole context, 0 off.
    logit_bias maps tokens to a value added to the logit (-inf forbids the token): ids, or texts for all their tokens.
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
    logit_bias: tuple[tuple[int | str, float], ...] | None = None

    def over(self, base: Sampling) -> Sampling:
        """Return `base` with the fields that are set here."""
        given = {name: v for name in field_names(self) if (v := getattr(self, name)) is not None}
        return replace(base, **given)


# The defaults of fields that neither the client, the dialect nor the manifest sets (Ollama's values).
DEFAULT_SAMPLING = Sampling(
    **{field.name: field.default for field in SAMPLING_FIELDS.values()},  # type: ignore[arg-type]  # a test holds the types
    dry_sequence_breakers=("\n", ":", '"', "*"),
    samplers=(),
    logit_bias=(),
)


PromptInput = str | tuple[int | str, ...]
"""A text, or token ids and texts in any order."""


LONGEST_DRAFT = 63
"""Most tokens that are guessed ahead for one request at a time."""


class DraftLimits(Struct, frozen=True, kw_only=True):
    """Limits of a request to the tokens that are guessed ahead for it, where the model has speculative decoding."""

    most: int = 1024
    """Guesses of one decode; 0 for none."""
    least: int = 0
    """Fewer guesses are not verified."""
    min_probability: float = 0.0
    """Guesses end before the first token with a lower probability."""


ANY_DRAFT = DraftLimits()


class ReasoningLimit(Struct, frozen=True, kw_only=True):
    """The most tokens of reasoning before an answer, and the texts around it."""

    tokens: int
    open: str
    close: str
    closing: str
    """The text that ends the reasoning and begins the answer; control tokens in it are recognised."""
    inside: bool = False
    """The prompt ends inside the reasoning."""


class TextRequest(Struct, frozen=True, kw_only=True):
    """Fields of every request that generates text."""

    model: str
    stream: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    """Most tokens to generate; None and -1 mean as many as the limits allow."""
    stop: tuple[str, ...] = ()
    n: int = 1
    """Number of answers."""
    logprobs: int | None = None
    """Number of alternatives reported per token, 0 to 20; None reports no probabilities."""
    post_sampling: bool = False
    """The reported probabilities are those of the last draw, after all samplers, not the model's."""
    format: ResponseFormat | None = None
    think: bool | str | None = None
    """Reasoning on, off, or a level (low, medium, high, max); None is the default of the model."""
    think_budget: int | None = None
    """Most tokens of reasoning; None and -1 mean as many as the manifest allows."""
    think_optional: bool = False
    """Ignore `think` for a model that does not support it, instead of raising an error."""
    keep_alive: float | None = None
    """Seconds to keep the model loaded after the answer: 0 unloads at once, -1 never; None uses the manifest."""
    context_size: int | None = None
    """The client's `num_ctx`, a hint: it never reloads a model."""
    ignore_eos: bool = False
    """Continue after an end token."""
    draft: DraftLimits = ANY_DRAFT
    adapters: tuple[tuple[int | str, float], ...] = ()
    """LoRA adapters by their number or name in the manifest, with their scales; one that is not listed has the scale 0.

    Empty for the scales of the model.
    """
    cache: bool = True
    """Reuse the state of a shared prompt prefix; False computes the complete prompt."""
    user: str | None = None
    conversation: str | None = None
    """The client's own name of the conversation, which its requests share."""
    details: bool = False
    """Report a `Generated` event with each piece of the answer."""
    progress: bool = False
    """Report the progress of the prompt from the cached tokens to the end."""
    want_prompt: bool = False
    """Report the prompt as the model reads it, in `ChoiceOutcome.prompt`."""
    warnings: tuple[str, ...] = ()
    """Remarks of the decoder, which the server sends as headers."""


class ChatRequest(TextRequest, frozen=True, kw_only=True):
    """A conversation to answer."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    template_arguments: tuple[tuple[str, JSONValue], ...] = ()
    """Additional names for the template; `chat.template` has the list of allowed ones."""
    continue_final: bool = False
    """Continue the last message, which is from the assistant."""
    open_answer: bool = True
    """End the prompt with the start of the assistant's turn."""
    truncate: bool = False
    """Drop the oldest turns of a prompt that does not fit, instead of raising an error."""
    server_tools: int = 0
    """Number of tools, the first ones, that this server calls. No rule of the manifest removes them."""
    tool_servers: tuple[ToolServer, ...] = ()
    """Servers of tools that the request names, beside those of the model."""
    shows_calls: bool = False
    """The reply has the calls of tools that this server makes, with their results."""
    asks_approval: bool = False
    """The reply can ask a person to approve a call."""
    approvals: tuple[Approval, ...] = ()
    """The answers of a person to such questions, for calls in the last turns."""
    max_tool_calls: int | None = None
    """Most calls of tools that this server makes for the answer; None for any number."""


class CompletionRequest(TextRequest, frozen=True, kw_only=True):
    """Prompts to complete."""

    prompts: tuple[PromptInput, ...]
    suffix: str | None = None
    """Text after the completion (fill in the middle)."""
    raw: bool = True
    """Send the prompt without a template."""
    system: str | None = None
    """System prompt (Ollama's generate, where the prompt is a user turn)."""
    template: str | None = None
    """Template (Ollama's generate)."""
    media: tuple[MediaPart, ...] = ()
    """Images and sounds: before the prompt, or in the places that a raw prompt marks with `<__media__>`."""
    context: tuple[int, ...] = ()
    """Tokens of the conversation so far (Ollama)."""
    echo: bool = False
    """Include the prompt in the answer, with its logprobs if they are requested."""
    truncate: bool = False


class EmbedRequest(Struct, frozen=True, kw_only=True):
    """Inputs to embed."""

    model: str
    inputs: tuple[PromptInput, ...]
    place: str = "input"
    """The field of the request that has the inputs, for errors; no part of `==`."""
    dimensions: int | None = None
    """Length to cut each vector to; the result is normalised again."""
    prompt: str | None = None
    """Name of the model's prompt that is put before each text; None for its default."""
    prompt_place: str = "prompt_name"
    """The field of the request that has the name, for errors; no part of `==`."""
    truncate: bool = True
    """Cut inputs that are longer than the context; False raises an error."""
    normalize: bool = True
    pooled: bool = True
    """One vector for each input; False accepts one for each token, of a model with the pooling `none`."""
    keep_alive: float | None = None

    __eq__, __hash__ = equality_without("place", "prompt_place")


class RerankRequest(Struct, frozen=True, kw_only=True):
    """Documents to rank by relevance to a query."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    """Number of best documents to return; None returns all."""


class CountRequest(Struct, frozen=True, kw_only=True):
    """Count the tokens of the prompt of a conversation, without generating."""

    chat: ChatRequest


class RenderRequest(Struct, frozen=True, kw_only=True):
    """Render the prompt of a conversation, without generating."""

    chat: ChatRequest


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    model: str
    text: PromptInput
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(Struct, frozen=True, kw_only=True):
    model: str
    tokens: tuple[int, ...]


class StopReason(StrEnum):
    """The reason for the end of one choice."""

    STOP = "stop"  # the model ended its turn
    STOP_SEQUENCE = "stop_sequence"  # a string of the client's was met
    LENGTH = "length"  # the token limit or the context was reached
    TOOL_CALLS = "tool_calls"  # the model ended its turn with calls
    TOOL_LIMIT = "tool_limit"  # the model calls tools again after its last turn with calls of the server
    CANCELLED = "cancelled"  # the client left, or a drain deadline passed


class TokenLogprob(Struct, frozen=True, kw_only=True, gc=False):
    """A token with its log probability and its most likely alternatives."""

    id: int
    text: str
    bytes: builtins.bytes  # in this class the bare name is the field
    logprob: float
    """Natural logarithm of the probability; nan for the first token of an echoed prompt."""
    top: tuple[TokenLogprob, ...] = ()
    """Alternatives, most likely first."""


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one request."""

    prompt_tokens: int = 0
    """Includes the cached tokens."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    """Includes the reasoning tokens."""
    reasoning_tokens: int = 0
    draft_tokens: int = 0
    """Tokens that were guessed ahead."""
    draft_accepted: int = 0
    """Guessed tokens that are part of the answer."""


class Timings(Struct, frozen=True, kw_only=True):
    """Wall-clock times of one request, in seconds."""

    total: float = 0.0
    """From arrival to the end."""
    load: float = 0.0
    """Load of the model."""
    prompt: float = 0.0
    """Prompt processing."""
    decode: float = 0.0
    """Generation."""
    answers: int = 1
    """Answers of the request. The first token of each needs no decode of its own."""


class Effective(Struct, frozen=True, kw_only=True):
    """The settings with which a model answers a request: of the request, the manifest and the defaults."""

    model: str
    """Name of the model, also for a request that names a route or none."""
    context_size: int
    """Tokens that one request may use."""
    sampling: Sampling
    """Every field is set; `logit_bias` has ids only."""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    end_tokens: tuple[int, ...] = ()
    """Ids of the tokens that end an answer."""
    parallel_tool_calls: bool = True
    """An answer may have several calls of tools."""
    draft: str = ""
    """How tokens are guessed ahead; "" for not at all."""
    adapters: tuple[tuple[int, float], ...] = ()
    """Number and scale of the LoRA adapters that the request names."""


class ChoiceOutcome(Struct, frozen=True, kw_only=True):
    """Counts, times and place of one choice."""

    usage: Usage
    timings: Timings
    held_tokens: int = 0
    """Tokens of prompt and answer that are in memory at the end."""
    prompt: str = ""
    """The prompt as the model reads it, if the request wants it."""
    slot: int = -1
    """Number of the place among those that decode together."""


class Started(Struct, frozen=True, kw_only=True):
    """First event: the prompt is rendered and admitted. A failure before it has an HTTP status of its own."""

    prompt_tokens: int
    cached_tokens: int = 0
    warnings: tuple[str, ...] = ()
    """Parts of the request that are not honoured, one sentence each."""
    effective: Effective | None = None


class TextDelta(Struct, frozen=True, kw_only=True):
    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class ThinkingDelta(Struct, frozen=True, kw_only=True):
    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCallStarted(Struct, frozen=True, kw_only=True):
    """A tool call begins."""

    index: int
    """Position among the calls of one choice, from 0."""
    id: str
    """Globally unique."""
    name: str
    choice: int = 0


class ToolCallDelta(Struct, frozen=True, kw_only=True):
    """A piece of the JSON text of the arguments."""

    index: int
    text: str
    choice: int = 0


class ToolCallFinished(Struct, frozen=True, kw_only=True):
    index: int
    call: ToolCall
    choice: int = 0


class ToolsListed(Struct, frozen=True, kw_only=True):
    """The tools of a server that the request names."""

    server: str
    """Its label at the client."""
    tools: tuple[Tool, ...] = ()
    """Under their names at the server."""
    error: str = ""
    """The reason why it has none now; "" for a server that answers."""


class ToolStarted(Struct, frozen=True, kw_only=True):
    """This server begins to call a tool for the model."""

    id: str
    """That of the model's call."""
    server: str
    """The label at the client of the server that has the tool."""
    name: str
    """The name of the tool at its server."""
    arguments: Mapping[str, JSONValue]
    approval: str | None = None
    """The id of the question that a person has answered; None for a call without one."""
    search: bool = False
    """It is a tool of the search of the web."""


class Citation(Struct, frozen=True, kw_only=True):
    """A page that a result of a tool quotes."""

    url: str
    title: str = ""
    text: str = ""
    """The quoted passages."""


class ToolEnded(Struct, frozen=True, kw_only=True):
    """A call of a tool by this server ends. Calls of one turn may end in any order."""

    id: str
    text: str
    """The result, or the error, as the model reads it."""
    is_error: bool = False
    citations: tuple[Citation, ...] = ()
    """The pages of a search."""
    first: int = 1
    """The number by which the result names the first of them."""


class ApprovalNeeded(Struct, frozen=True, kw_only=True):
    """A person must approve a call of the model. The answer ends; a later request has the person's answer."""

    id: str
    """That of the model's call."""
    server: str
    """The label at the client of the server that has the tool."""
    name: str
    """The name of the tool at its server."""
    arguments: Mapping[str, JSONValue]


ToolEvent = ToolsListed | ToolStarted | ToolEnded | ApprovalNeeded
"""Events of tools that this server calls."""


class PromptText(Struct, frozen=True, kw_only=True):
    """The prompt of one choice as the model reads it, with control tokens, if the request wants it."""

    text: str
    choice: int = 0


class PromptProgress(Struct, frozen=True, kw_only=True):
    """Progress of a prompt, in tokens. The first report is the cached tokens, if the request wants progress."""

    done: int
    total: int
    cached: int = 0
    seconds: float = 0.0
    """Since the prompt got its place."""
    choice: int = 0
    """The first choice of the prompt."""


class Generated(Struct, frozen=True, kw_only=True):
    """The tokens of the next piece of one choice, if the request wants details. The events of its text follow."""

    text: str
    """As the model wrote it."""
    tokens: tuple[int, ...]
    usage: Usage
    """So far."""
    timings: Timings
    """So far."""
    choice: int = 0


class Finished(Struct, frozen=True, kw_only=True):
    """The end of one choice."""

    reason: StopReason
    stop_sequence: str | None = None
    choice: int = 0
    outcome: ChoiceOutcome | None = None


class Completed(Struct, frozen=True, kw_only=True):
    """Last event of a successful request."""

    usage: Usage
    timings: Timings
    context: tuple[int, ...] = ()
    """The conversation as tokens (Ollama's generate)."""


Event = (
    Started
    | PromptText
    | PromptProgress
    | Generated
    | TextDelta
    | ThinkingDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallFinished
    | ToolEvent
    | Finished
    | Completed
)


class TextRun(Struct, frozen=True, kw_only=True):
    """Text or reasoning of an answer that nothing else interrupts."""

    text: str
    thinking: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolRun(Struct, frozen=True, kw_only=True):
    """A call of a tool that this server made."""

    started: ToolStarted
    ended: ToolEnded | None = None
    """None for a call that the end of the answer cancels."""


AnswerPart = TextRun | ToolCall | ToolRun | ToolsListed | ApprovalNeeded


class Choice(Struct, frozen=True, kw_only=True):
    """One complete answer, aggregated from its events (see `chat.answer`)."""

    index: int
    parts: tuple[AnswerPart, ...]
    """In the order of the model."""
    reason: StopReason
    stop_sequence: str | None
    outcome: ChoiceOutcome | None = None
    raw: str = ""
    """The text as the model wrote it, if the request wants details."""
    tokens: tuple[int, ...] = ()
    """Ids of the text's tokens, if the request wants details."""

    @property
    def text(self) -> str:
        """The text without the reasoning. Texts with a call between them are joined as those of a message are."""
        return joined(part.text for part in self.parts if isinstance(part, TextRun) and not part.thinking)

    @property
    def thinking(self) -> str:
        """The reasoning."""
        return joined(part.text for part in self.parts if isinstance(part, TextRun) and part.thinking)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the client makes."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """The tokens of text and reasoning with their probabilities."""
        runs = (part for part in self.parts if isinstance(part, TextRun))
        return tuple(token for run in runs for token in run.logprobs)


class Answer(Struct, frozen=True, kw_only=True):
    """All choices of a request that is not streamed."""

    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings
    context: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    """The warnings of `Started`."""
    effective: Effective | None = None
    """The settings of `Started`."""


class Vectors(Struct, frozen=True, kw_only=True):
    """One vector of floats per input, in input order."""

    vectors: tuple[tuple[float, ...], ...]
    rows: tuple[int, ...] = ()
    """Vectors of each input, for a model that has one for each token; empty for one vector per input."""
    usage: Usage
    timings: Timings = field(default_factory=Timings)
    answered_by: str = ""
    """Name of the model."""


class Ranking(Struct, frozen=True, kw_only=True):
    """Documents ordered by relevance, best first."""

    results: tuple[tuple[int, float], ...]
    """Pairs of document index and score."""
    usage: Usage
    answered_by: str = ""
    """Name of the model."""


class Tokens(Struct, frozen=True, kw_only=True):
    ids: tuple[int, ...]
    pieces: tuple[bytes, ...] = ()


class DetokenizedText(Struct, frozen=True, kw_only=True):
    text: str


class TokenCount(Struct, frozen=True, kw_only=True):
    tokens: int


class Constraint(Struct, frozen=True, kw_only=True):
    """A grammar that the engine enforces on tokens, in llguidance's Lark syntax with the rule `start`."""

    grammar: str
    triggers: tuple[str, ...] = ()
    """Strings that activate the grammar, from the character after them, which may be inside a token.

    Without triggers, the grammar covers the complete answer.
    """
    after: str | None = None
    """Text before which nothing is enforced, no trigger counts and no end token may be selected: the end of reasoning.

    None enforces from the first token.
    """
    markers: tuple[tuple[str, str], ...] = ()
    """Pairs of rule and text that the engine adds to the grammar, because it knows the vocabulary.

    The rule is `<[id]>` for a text that is one special token, else the quoted text.
    """
    repeat: bool = True
    """After a match, wait for the next trigger; False ends the turn."""
    numbers: str = ""
    """The quote or mark around the texts of the grammar. Numbers outside of them end after the digits that a double can
    have. "" for a grammar that has texts without quotes."""
