"""llama-server's resumable streams: taken up again, looked up and cancelled by the id of their conversation."""

from __future__ import annotations

from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, WireRequest
from mullama.dialects.resumable_streams import CancelStream, FindStreams, ResumeStream, StreamStates
from mullama.errors import Invalid

_MOST_CONVERSATIONS = 10_000
_LONGEST_OFFSET = 19  # digits of a 64-bit number
_CONVERSATIONS = fields.many("conversation_ids", fields.to_text, schema.STRING, _MOST_CONVERSATIONS)


def _conversation(request: WireRequest) -> str:
    if not (conversation := request.query.get("conv_id", "")):
        raise Invalid("conv_id is required: the id of a conversation", field="conv_id")
    return conversation


def decode_resume(request: WireRequest) -> ResumeStream:
    offset = request.query.get("from", "") or "0"
    if not (offset.isascii() and offset.isdigit() and len(offset) <= _LONGEST_OFFSET):
        raise Invalid(f"from must be an offset in bytes, not {offset[:40]!r}", field="from")
    return ResumeStream(conversation=_conversation(request), offset=int(offset))


def decode_cancel(request: WireRequest) -> CancelStream:
    return CancelStream(conversation=_conversation(request))


def decode_find(request: WireRequest) -> FindStreams:
    given = fields.body_of(request.body).get(_CONVERSATIONS) or ()
    return FindStreams(conversations=tuple(dict.fromkeys(id for id in given if id)))


def encode_found(context: ReplyContext[FindStreams, StreamStates]) -> Reply:
    return Reply(
        body=[
            {
                "conversation_id": stream.conversation,
                "is_done": stream.completed > 0,
                "total_bytes": stream.total,
                "started_at": stream.started,
                "completed_at": stream.completed,
            }
            for stream in context.result.streams
        ]
    )


def encode_cancelled(_: ReplyContext[CancelStream, None]) -> Reply:
    return Reply(status=204)


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/v1/stream",
        decode=decode_resume,
        summary="Take up a stream of server-sent events again, by ?conv_id= and ?from=BYTES",
    ),
    Endpoint(
        method="DELETE",
        path="/v1/stream",
        decode=decode_cancel,
        encode=encode_cancelled,
        summary="Cancel the generation of a stream and drop it, by ?conv_id=",
    ),
    Endpoint(
        method="POST",
        path="/v1/streams/lookup",
        decode=decode_find,
        encode=encode_found,
        summary="Find the streams of conversations that can be taken up again",
        request_schema=fields.request_schema(_CONVERSATIONS),
        response_schema=schema.listed(
            schema.exact(
                conversation_id=schema.STRING,
                is_done=schema.BOOLEAN,
                total_bytes=schema.COUNT,
                started_at=schema.COUNT,
                completed_at=schema.COUNT,
            )
        ),
    ),
)
