"""llama-server's resumable streams, which are refused by name: a stream ends with its connection."""

from __future__ import annotations

from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Reply, StaticReply, fixed
from mullama.dialects.openai.llamaserver.props import unsupported

_REFUSED = unsupported(
    "a stream cannot be taken up again after its connection has ended: its request ends with it. "
    "Send the request again, or use /v1/responses with background and stream"
)

ENDPOINTS = (
    Endpoint(method="GET", path="/v1/stream", decode=_REFUSED, summary="Not supported; returns the reason"),
    Endpoint(method="DELETE", path="/v1/stream", decode=_REFUSED, summary="Not supported; returns the reason"),
    Endpoint(
        method="POST",
        path="/v1/streams/lookup",
        decode=fixed(StaticReply(reply=Reply(body=[]))),
        summary="List the streams that can be taken up again: none",
        response_schema=schema.listed(schema.RECORD),
    ),
)
