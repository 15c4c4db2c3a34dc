"""Objects that clients store on the server, and the operations on them: responses and chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mullama.names import JSONValue
from mullama.struct import Struct, field

ObjectKind = Literal["response", "chat.completion"]


class StoredObject(Struct, frozen=True, kw_only=True):
    """An object as it was sent, with the input that led to it."""

    id: str
    body: Mapping[str, JSONValue]
    items: tuple[Mapping[str, JSONValue], ...]
    """Input items of a response, messages of a chat completion."""
    kind: ObjectKind = "response"
    model: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    events: tuple[JSONValue, ...] | None = None
    """The data of all events of a stream that ran in the background; None for other objects."""


class StoredPage(Struct, frozen=True, kw_only=True):
    """Some objects of a list, in order."""

    objects: tuple[StoredObject, ...]
    more: bool
    """Further objects follow."""


class FetchStored(Struct, frozen=True, kw_only=True):
    """Return the object. Raises `NotFound` for one that this caller did not store."""

    kind: ObjectKind
    id: str


class DeleteStored(Struct, frozen=True, kw_only=True):
    kind: ObjectKind
    id: str


class UpdateStored(Struct, frozen=True, kw_only=True):
    """Replace the metadata of an object, and return the object."""

    kind: ObjectKind
    id: str
    metadata: Mapping[str, str]


class ListStored(Struct, frozen=True, kw_only=True):
    """Return one page of the caller's objects."""

    kind: ObjectKind
    limit: int = 20
    after: str | None = None
    newest_first: bool = False
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class ReplayStream(FetchStored, frozen=True, kw_only=True):
    """Stream the events of a response again, and follow it while it is generated."""

    starting_after: int = -1
    """The number of the last event that the client has."""


class CancelStored(FetchStored, frozen=True, kw_only=True):
    """End a response that is generated in the background, and return it."""


StoredOperation = FetchStored | DeleteStored | UpdateStored | ListStored
