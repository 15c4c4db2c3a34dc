"""Ollama's endpoints that need no model: greeting, version, and refusals of cloud features."""

from __future__ import annotations

from typing import Literal

from mullama.dialects import schema
from mullama.dialects.base import Endpoint, Reply, ReplyContext, StaticReply, fixed
from mullama.dialects.ollama.errors import ERROR_SCHEMA

# The version of Ollama whose API this is. Clients enable features by it.
VERSION = "0.33.3"


def encode_version(context: ReplyContext[StaticReply, None]) -> Reply:
    """Return the version of Ollama, by which clients enable features, and mullama's own."""
    return Reply(body={"version": VERSION, "mullama": context.version})


def _none(text: str, status: int) -> Reply:
    return Reply(body={"error": text}, status=status)


_NO_ACCOUNT = _none("unauthorized: mullama has no cloud account; every model runs here", 401)
_NO_CLOUD = _none("mullama has no cloud: every model runs here", 404)
_NO_PUSH = _none("mullama does not push models to a registry; share the manifest, which names its sources", 501)
_STATUS = Reply(body={"cloud": {"disabled": True, "source": "config"}})
_GREETING = Reply(body="Ollama is running", headers={"content-type": "text/plain; charset=utf-8"})

_CLOUD: tuple[tuple[str, str, Reply], ...] = (
    ("POST", "/api/push", _NO_PUSH),
    ("POST", "/api/me", _NO_ACCOUNT),
    ("POST", "/api/signout", _NO_ACCOUNT),
    ("DELETE", "/api/user/keys/{key}", _NO_ACCOUNT),
    ("POST", "/api/experimental/web_search", _NO_CLOUD),
    ("POST", "/api/experimental/web_fetch", _NO_CLOUD),
    ("GET", "/api/experimental/model-recommendations", _NO_CLOUD),
)


def _public(method: Literal["GET", "HEAD"], path: str, reply: Reply, summary: str) -> Endpoint:
    return Endpoint(
        method=method,
        path=path,
        decode=fixed(StaticReply(reply=reply)),
        access="public",
        summary=summary,
        response_schema=schema.STRING if isinstance(reply.body, str) else schema.RECORD,
    )


def _version(method: Literal["GET", "HEAD"]) -> Endpoint:
    return Endpoint(
        method=method,
        path="/api/version",
        decode=fixed(StaticReply(reply=Reply())),
        encode=encode_version,
        access="public",
        summary="Get the version of Ollama's API, and mullama's own",
        response_schema=schema.exact(version=schema.STRING, mullama=schema.STRING),
    )


ENDPOINTS = (
    _public("GET", "/", _GREETING, "Get a greeting"),
    _public("HEAD", "/", _GREETING, "Check that the server runs"),
    _version("GET"),
    _version("HEAD"),
    _public("GET", "/api/status", _STATUS, "Report that no cloud is used"),
    *(
        Endpoint(
            method=method,
            path=path,
            decode=fixed(StaticReply(reply=reply)),
            summary="Not supported; returns the reason",
            response_schema=ERROR_SCHEMA,
        )
        for method, path, reply in _CLOUD
    ),
)
