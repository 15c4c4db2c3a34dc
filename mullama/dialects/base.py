"""The seam of the dialects: an endpoint decodes a request into an operation and encodes the operation's result.

Pure: time and ids are values of the `ReplyContext`. One generic HTTP handler serves every endpoint of every dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Literal, Protocol, TypeGuard, TypeVar

from mullama.chat import inventory, transcription, types
from mullama.dialects.rate_limits import RateReport, openai_headers
from mullama.dialects.resumable_streams import ResumableOperation, StreamStates
from mullama.dialects.sessions import OpenSession, Session, SessionFacts
from mullama.dialects.stored_objects import StoredObject, StoredOperation, StoredPage
from mullama.errors import MullamaError
from mullama.names import JSONValue
from mullama.struct import Struct, field, replace

Op_co = TypeVar("Op_co", covariant=True)
Res_co = TypeVar("Res_co", covariant=True)


class WireRequest(Struct, frozen=True, kw_only=True):
    """A request as decoders see it. Header names are in lower case; path and query values are decoded strings."""

    body: JSONValue = None
    """Of a form: its fields, as texts and lists of texts."""
    files: Mapping[str, transcription.SoundFile] = field(default_factory=dict)
    """The files of a form, by the names of their fields."""
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class ReplyContext(Struct, Generic[Op_co, Res_co], frozen=True, kw_only=True):
    """The one argument of an encoder: the operation, its result, and the identity and time of the request.

    Each id in an answer is a prefix, `id`, and a counter where there are several; the request id is `req_` + `id`.
    """

    operation: Op_co
    """The operation as the endpoint decoded it, with the default model's name where the client sent none.

    The answer repeats its `model`.
    """
    result: Res_co
    """The result of the operation; None for a stream and for a `StaticReply`."""
    id: str
    """At least 96 random bits in hex."""
    created: float
    """Unix time in seconds."""
    version: str = ""
    """The version of mullama."""
    context_size: int = 0
    """The number of tokens that one request to the model may use."""


class ResponseRequest(types.ChatRequest, frozen=True, kw_only=True):
    """A request of the Responses API: a conversation that may continue stored responses."""

    shows_calls: bool = True
    asks_approval: bool = True
    needs: tuple[str, ...] = ()
    """Ids of stored responses that complete the conversation.

    The server fetches them (`NotFound` when one is not stored) and calls `Endpoint.resume`, which empties this field.
    """
    items: tuple[Mapping[str, JSONValue], ...] = ()
    """All input items, including those of earlier responses."""
    previous: str | None = None
    """The id of the response that this request follows."""
    store: bool = True
    """Keep the answer."""
    timed: bool = False
    """The events of a stream have llama-server's timings."""
    background: bool = False
    """Generate the answer when the client has disconnected too."""
    echo: Mapping[str, JSONValue] = field(default_factory=dict)
    """Fields of the request that the response object repeats."""


class StaticReply(Struct, frozen=True, kw_only=True):
    """An operation that needs no model: `reply` is the answer, unless the endpoint's own `encode` changes it."""

    reply: Reply


Operation = (
    types.ChatRequest
    | types.CompletionRequest
    | types.EmbedRequest
    | types.RerankRequest
    | types.CountRequest
    | types.RenderRequest
    | types.TokenizeRequest
    | types.DetokenizeRequest
    | transcription.TranscriptionRequest
    | inventory.ListModels
    | inventory.ListRunning
    | inventory.ShowModel
    | inventory.LoadModel
    | inventory.PullModel
    | inventory.CreateModel
    | inventory.CopyModel
    | inventory.DeleteModel
    | inventory.SetDefault
    | inventory.SetAdapterScales
    | inventory.FindBlob
    | inventory.StoreBlob
    | inventory.WatchModels
    | StoredOperation
    | ResumableOperation
    | OpenSession
    | StaticReply
)

Streamed = (
    types.ChatRequest
    | types.CompletionRequest
    | transcription.TranscriptionRequest
    | inventory.PullModel
    | inventory.CreateModel
    | inventory.WatchModels
)

Result = (
    types.Answer
    | types.Vectors
    | types.Ranking
    | types.Tokens
    | types.DetokenizedText
    | types.TokenCount
    | transcription.Transcript
    | inventory.Inventory
    | inventory.ModelCard
    | inventory.Loaded
    | inventory.TaskStatus
    | inventory.Done
    | StoredObject
    | StoredPage
    | StreamStates
)

StreamEvent = types.Event | transcription.TranscriptEvent | inventory.TaskStatus | inventory.ModelStateReport


def is_streamed(operation: Operation) -> TypeGuard[Streamed]:
    """Return True for an operation whose answer is to be a stream."""
    return isinstance(operation, Streamed) and operation.stream


def text_request(operation: Operation) -> types.TextRequest | None:
    """Return the request for text that an operation is or contains, None for any other operation."""
    match operation:
        case types.CountRequest() | types.RenderRequest():
            return operation.chat
        case types.TextRequest():
            return operation
        case _:
            return None


def model_of(operation: Operation) -> str | None:
    """Return the name of the model that an operation uses: "" for the default model, None for an operation without."""
    match operation:
        case types.CountRequest() | types.RenderRequest():
            return operation.chat.model
        case types.TextRequest() | types.EmbedRequest() | types.RerankRequest():
            return operation.model
        case types.TokenizeRequest() | types.DetokenizeRequest() | transcription.TranscriptionRequest():
            return operation.model
        case inventory.ShowModel() | inventory.LoadModel() | inventory.DeleteModel() | inventory.SetDefault():
            return operation.model
        case inventory.SetAdapterScales():
            return operation.model
        case OpenSession():
            return operation.model or (None if operation.transcribes else "")
        case _:
            return None


def with_model(operation: Any, name: str) -> Any:
    """Return an operation for which `model_of` is not None with this name."""
    if isinstance(operation, types.CountRequest | types.RenderRequest):
        return replace(operation, chat=replace(operation.chat, model=name))
    return replace(operation, model=name)


def size_of(result: Result) -> int:
    """Return about how many values the reply of this result has, for the decision where it is encoded."""
    match result:
        case types.Answer(choices=choices, context=context):
            return len(context) + sum(map(_size_of_choice, choices))
        case types.Vectors(vectors=vectors):
            return sum(map(len, vectors))
        case types.Tokens(ids=ids, pieces=pieces):
            return len(ids) + len(pieces)
        case types.DetokenizedText(text=text) | transcription.Transcript(text=text):
            return len(text)
        case inventory.Inventory(models=models):
            return len(models) * _MEMBERS
        case inventory.ModelCard() | StoredObject() | StoredPage():  # each may hold a whole conversation
            return 2**20
        case _:
            return 0


_MEMBERS = 64  # of one entry, at most


def _size_of_choice(choice: types.Choice) -> int:
    logprobs = choice.logprobs
    alternatives = len(logprobs[0].top) if logprobs else 0
    texts = len(choice.text) + len(choice.thinking) + len(choice.raw)
    return texts + len(choice.tokens) + len(logprobs) * (alternatives + 1) * 4


class Reply(Struct, frozen=True, kw_only=True):
    """One complete answer. A body of None is empty, a str is sent as text, anything else as JSON."""

    body: JSONValue = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Frame(Struct, frozen=True, kw_only=True):
    """One event of a stream. `event` is its SSE name; data of type str is sent unchanged ("[DONE]")."""

    data: JSONValue
    event: str | None = None
    comment: bool = False


class StreamEncoder(Protocol):
    """Encodes the events of one request as frames, and keeps the state that the wire format needs.

    `feed(Completed)` or `fail` returns exactly one terminal frame; later calls return none.
    """

    media: Literal["text/event-stream", "application/x-ndjson"]
    whole: JSONValue
    """The body of the complete reply after the last event, for an operation that stores it; else None."""

    def feed(self, event: StreamEvent) -> Iterable[Frame]: ...

    def fail(self, error: MullamaError) -> Iterable[Frame]: ...

    def ping(self) -> Iterable[Frame]:
        """Return frames that keep a silent connection alive; may be empty."""
        ...


class BackgroundEncoder(StreamEncoder, Protocol):
    """An encoder whose answer has a status that a client can ask for while it is generated."""

    def at(self, status: str) -> dict[str, JSONValue]:
        """Return the body of the reply with the output so far, in this status."""
        ...

    def cancel(self) -> Iterable[Frame]:
        """Return the last frames of an answer that its client cancels."""
        ...


def encode_static(context: ReplyContext[StaticReply, None]) -> Reply:
    """Return the reply that the operation holds."""
    return context.operation.reply


def fixed(operation: Operation) -> Callable[[WireRequest], Operation]:
    """Return a decoder that returns this operation for every request."""
    return lambda _: operation


class Endpoint(Struct, frozen=True, kw_only=True):
    """One method and path (Starlette syntax).

    `decode`, `encode` and `stream` may raise any `MullamaError`. A model of "" means the default model.
    """

    method: str
    path: str
    decode: Callable[[WireRequest], Operation]
    encode: Callable[[ReplyContext[Any, Any]], Reply] = encode_static
    stream: Callable[[ReplyContext[Any, None]], StreamEncoder] | None = None
    """The encoder of a streamed answer, for operations that ask for a stream."""
    background: Callable[[ReplyContext[Any, None]], BackgroundEncoder] | None = None
    """The encoder of an answer that is generated in the background, for a `ResponseRequest` that asks for it."""
    session: Callable[[SessionFacts], Session] | None = None
    """Begins the session of an `OpenSession`, which has the connection to itself."""
    subprotocols: tuple[str, ...] = ()
    """The subprotocols of its WebSocket."""
    access: Literal["infer", "admin", "public"] = "infer"
    """infer needs a key that may use the model, admin a key with that role, public none."""
    when: Callable[[Mapping[str, str]], bool] | None = None
    """For a path that dialects share: return True if the request headers select this endpoint.

    The first endpoint whose `when` is true wins, then the first without `when`, then the first.
    """
    resume: Callable[[Any, Mapping[str, StoredObject]], Any] | None = None
    """Complete a `ResponseRequest` with the stored responses that it needs, by their ids."""
    remember: Callable[[Any, JSONValue], StoredObject | None] | None = None
    """Return the object to store, or None, from the operation and the body of its complete reply."""
    summary: str = ""
    request_schema: JSONValue = None
    response_schema: JSONValue = None
    form: bool = False
    """The body is a form with a file (multipart/form-data)."""
    raw: bool = False
    """The body is bytes for the blob store, and the operation is a `StoreBlob`."""


class Dialect(Struct, frozen=True, kw_only=True):
    """The wire format of a family of clients: its endpoints and its errors."""

    name: str
    endpoints: tuple[Endpoint, ...]
    error: Callable[[MullamaError, str], Reply]
    """Return the reply for an error before the first byte; the second argument is the request id."""
    id_header: str = "x-request-id"
    """The header that holds the request id, on every reply and stream."""
    error_schema: JSONValue = None
    """The JSON Schema of an error reply's body."""
    rate_headers: Callable[[RateReport, float], Mapping[str, str]] = openai_headers
    """Return the response headers with what is left of the rate limits at this Unix time."""
    prefixes: tuple[str, ...] = ()
    """Path prefixes of the dialect; an unknown path below them is answered with its error."""
