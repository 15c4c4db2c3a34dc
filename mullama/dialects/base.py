"""The dialect seam: an endpoint decodes a body into an operation and encodes what came of it.

Pure: time and ids come in as a `Stamp`, and one generic HTTP handler serves every endpoint of every dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mullama.chat import inventory, types
from mullama.errors import MullamaError
from mullama.names import JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """A request as decoders see it. headers have lower-case names; path and query hold decoded strings."""

    body: JSONValue = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyContext:
    """Identity and time of one request: `id` has at least 96 random bits in hex, `created` is unix seconds.

    `version` is mullama's own. `context_size` is what one request to the model may use.
    Ids of everything in an answer are made of `id` with a prefix and, where there are many, a counter;
    the request id is `req_` + `id`.
    """

    id: str
    created: float
    version: str = ""
    context_size: int = 0


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
    """An operation that needs no model: the reply is known already, but for what `encode` adds of the stamp.

    The server calls `encode(operation, None, stamp)` and sends what comes of it.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method and path (Starlette syntax). `stream` exists where the operation can stream.

    decode, encode and `stream` may raise any `MullamaError`. `encode` and `stream` get the operation
    as it was decoded: its `model` is what the client sent, and the answer says the same name. An
    answer is streamed when `stream` exists and the operation's own `stream` is True; operations
    without that field never stream. A model of "" means the default model.

    access: infer needs a key that may use the model, admin one with that role, public none.
    when: for a path that dialects share, whether these request headers mean this one. Among the
    endpoints of one method and path the first whose `when` is true wins, then the first without
    `when`, then the first.
    resume: completes a ResponseRequest from the stored responses that it needs, by their ids.
    remember: what to keep of an answer, None for nothing, given the operation and the body of its
    reply, or the data of its stream's last frame. The id of a stored response is `resp_` + `Stamp.id`.
    raw: the body is bytes for the blob store, not JSON; the operation is a StoreBlob.
    """

    method: str
    path: str
    decode: Callable[[WireRequest], Operation]
    encode: Callable[[Any, Any, ReplyContext], Reply]
    stream: Callable[[Any, ReplyContext], StreamEncoder] | None = None
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
