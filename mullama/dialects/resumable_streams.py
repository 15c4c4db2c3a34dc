"""Streams that a client takes up again after it lost its connection, by the id of its conversation. Pure."""

from __future__ import annotations

from mullama.struct import Struct

CONVERSATION_HEADER = "x-conversation-id"
"""The header of a request for a stream that can be taken up again, as in llama-server."""


class ResumeStream(Struct, frozen=True, kw_only=True):
    """Send the bytes of a stream from this offset on. Raises `NotFound` for a stream that this caller did not start."""

    conversation: str
    offset: int = 0


class FindStreams(Struct, frozen=True, kw_only=True):
    """Return the caller's streams of these conversations, and of their variants `ID::MODEL`."""

    conversations: tuple[str, ...]


class CancelStream(Struct, frozen=True, kw_only=True):
    """End the generation of a stream and drop it, if there is one."""

    conversation: str


ResumableOperation = ResumeStream | FindStreams | CancelStream


class StreamState(Struct, frozen=True, kw_only=True):
    """A stream that can be taken up again. Times are Unix seconds."""

    conversation: str
    started: int
    completed: int
    """0 while it is generated."""
    total: int
    """Bytes so far, with those that are no longer kept."""


class StreamStates(Struct, frozen=True, kw_only=True):
    """The streams that were found."""

    streams: tuple[StreamState, ...]
