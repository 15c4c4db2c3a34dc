"""The seam of the dialects: an endpoint decodes a request into an operation and encodes the operation's result.

Pure: time and ids are values of the `ReplyContext`. One generic HTTP handler serves every endpoint of every dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from mullama.chat import inventory, types
from mullama.errors import MullamaError
from mullama.names import JSONValue

Op_co = TypeVar("Op_co", covariant=True)
Res_co = TypeVar("Res_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """A request as decoders see it. Header names are in lower case; path and query values are decoded strings."""

    body: JSONValue = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyContext(Generic[Op_co, Res_co]):
    """The one argument of an encoder: the operation, its result, and the identity and time of the request.

    Each id in an answer is a prefix, `id`, and a counter where there are several; the request id is `req_` + `id`.
    """

    operation: Op_co
    """The operation as the endpoint decoded it. Its `model` is the name that the client sent; the answer repeats it."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRequest(types.ChatRequest):
    """A request of the Responses API: a conversation, and what its answer and its successors need of it.

    needs: ids of stored responses without which the conversation is not complete; the server fetches
    them (NotFound when one is not stored) and calls `Endpoint.resume`, after which it is empty.
    items: all input items, with those of the responses before. previous: the response that it follows.
    store: whether the answer is to be kept. echo: request fields that the response object repeats.
    """

    needs: tuple[str, ...] = ()
    items: tuple[Mapping[str, JSONValue], ...] = ()
    previous: str | None = None
    store: bool = True
    echo: Mapping[str, JSONValue] = field(default_factory=dict)


# What stored responses of the Responses API can be asked for.
@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResponse:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteResponse:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelResponse:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListResponseItems:
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """A response object as it was sent, with the input items that led to it."""

    id: str
    body: Mapping[str, JSONValue]
    items: tuple[Mapping[str, JSONValue], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticReply:
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
    | inventory.ListModels
    | inventory.ListRunning
    | inventory.ShowModel
    | inventory.LoadModel
    | inventory.PullModel
    | inventory.CreateModel
    | inventory.CopyModel
    | inventory.DeleteModel
    | inventory.SetDefault
    | inventory.FindBlob
    | inventory.StoreBlob
    | FetchResponse
    | DeleteResponse
    | CancelResponse
    | ListResponseItems
    | StaticReply
)

Result = (
    types.Answer
    | types.Vectors
    | types.Ranking
    | types.Tokens
    | types.DetokenizedText
    | types.TokenCount
    | inventory.Inventory
    | inventory.ModelCard
    | inventory.Loaded
    | inventory.TaskStatus
    | inventory.Done
    | StoredResponse
)

StreamEvent = types.Event | inventory.TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One whole answer. body None means empty; a str is sent as text, anything else as JSON."""

    body: JSONValue = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One event of a stream: `event` is the SSE event name; data that is a str is sent as it is ("[DONE]")."""

    data: JSONValue
    event: str | None = None
    comment: bool = False


class StreamEncoder(Protocol):
    """Turns the events of one request into frames; holds what the wire format needs to remember.

    Exactly one terminal frame comes of `feed(Completed)` or of `fail`; nothing after it.
    """

    media: Literal["text/event-stream", "application/x-ndjson"]

    def feed(self, event: StreamEvent) -> Iterable[Frame]: ...

    def fail(self, error: MullamaError) -> Iterable[Frame]: ...

    def ping(self) -> Iterable[Frame]:
        """What keeps the connection alive while nothing happens; may be nothing."""
        ...


def encode_static(context: ReplyContext[StaticReply, None]) -> Reply:
    """Return the reply that the operation holds."""
    return context.operation.reply


def fixed(operation: Operation) -> Callable[[WireRequest], Operation]:
    """Return a decoder that returns this operation for every request."""
    return lambda _: operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method and path (Starlette syntax). `stream` exists where the operation can stream.

    decode, encode and `stream` may raise any `MullamaError`. An answer is streamed when `stream` exists and the
    operation's own `stream` is True; operations without that field never stream. A model of "" means the default model.

    access: infer needs a key that may use the model, admin one with that role, public none.
    when: for a path that dialects share, whether these request headers mean this one. Among the
    endpoints of one method and path the first whose `when` is true wins, then the first without
    `when`, then the first.
    resume: completes a ResponseRequest from the stored responses that it needs, by their ids.
    remember: what to keep of an answer, None for nothing, given the operation and the body of its
    reply, or the data of its stream's last frame. The id of a stored response is `resp_` + `ReplyContext.id`.
    raw: the body is bytes for the blob store, not JSON; the operation is a StoreBlob.
    """

    method: str
    path: str
    decode: Callable[[WireRequest], Operation]
    encode: Callable[[ReplyContext[Any, Any]], Reply] = encode_static
    stream: Callable[[ReplyContext[Any, None]], StreamEncoder] | None = None
    access: Literal["infer", "admin", "public"] = "infer"
    when: Callable[[Mapping[str, str]], bool] | None = None
    resume: Callable[[Any, Mapping[str, StoredResponse]], Operation] | None = None
    remember: Callable[[Any, JSONValue], StoredResponse | None] | None = None
    summary: str = ""
    request_schema: JSONValue = None
    response_schema: JSONValue = None
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A family of clients: its endpoints, and how it says an error.

    error: the reply for an error before the first byte; the second argument is the request id.
    id_header: the header that carries the request id, on every reply, also on streams.
    error_schema: the JSON Schema of that reply's body.
    prefixes: beginnings of paths that belong to it, so that an unknown path is answered in its words.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    error: Callable[[MullamaError, str], Reply]
    id_header: str = "x-request-id"
    error_schema: JSONValue = None
    prefixes: tuple[str, ...] = ()
