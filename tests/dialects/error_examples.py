"""One error of each class that a server can report."""

from __future__ import annotations

from mullama.errors import (
    Busy,
    Conflict,
    ContextOverflow,
    Denied,
    EngineFailed,
    Internal,
    Invalid,
    ModelUnavailable,
    MullamaError,
    NotFound,
    PeerLost,
    ProbeFailed,
    Refused,
    TimedOut,
    TooLarge,
    ToolsUnavailable,
    TransferFailed,
    Unavailable,
    Unsupported,
)

EXAMPLES: tuple[MullamaError, ...] = (
    Invalid("temperature must be a number", field="temperature"),
    Unsupported("this model does not support tools"),
    ContextOverflow(5000, 4096),
    NotFound("no model", name="qwen", near=("qwen3:8b",)),
    Denied("no key"),
    Denied("not yours", authenticated=True),
    Conflict("the manifest owns it"),
    Refused("it does not fit"),
    Busy("the queue is full", retry_after=2.5),
    ModelUnavailable(NotFound("the file is gone", hint="restore it")),
    Busy("60 requests a minute", limited=True, retry_after=30),
    TooLarge("the body is over 8 MiB"),
    TransferFailed("the digest differs"),
    TimedOut("took longer than 10m"),
    Unavailable("loading", retry_after=3),
    PeerLost("peer box is not reachable"),
    ToolsUnavailable("the server of tools docs is not reachable"),
    EngineFailed("the worker died"),
    ProbeFailed("the probe answered otherwise"),
    Internal("a bug"),
)
