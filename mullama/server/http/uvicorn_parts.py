"""The parts of uvicorn that the server is made of, imported without its command line and its configuration.

Those read other files, logging settings and WSGI applications; their imports take longer than that of the protocol.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from mullama.imports import import_without
from mullama.struct import Struct

import_without(
    {
        "uvicorn.main": {"Server": None, "main": None, "run": None},
        "uvicorn.config": {"Config": object, "STARTUP_FAILURE": 3},
    },
    "uvicorn.protocols.http.httptools_impl",
)

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle  # noqa: E402 - after the call
from uvicorn.server import ServerState  # noqa: E402

__all__ = ["Config", "HttpToolsProtocol", "RequestResponseCycle", "ServerState"]

logging.getLogger("uvicorn.access").propagate = False  # the protocol writes no line for a request


class Config(Struct, frozen=True, kw_only=True):
    """The attributes of `uvicorn.Config` that the protocol reads."""

    loaded_app: Any
    """The application, by ASGI 3."""
    timeout_keep_alive: float
    """Seconds that an idle connection stays open."""
    loaded: bool = True
    ws_protocol_class: None = None
    root_path: str = ""
    asgi_version: str = "3.0"
    limit_concurrency: None = None
    reset_contextvars: bool = False

    def __getattr__(self, name: str) -> Any:
        """Return uvicorn's default of an attribute that only another version of its protocol reads."""
        return getattr(_defaults(), name)


@cache
def _defaults() -> Any:
    import uvicorn.config

    return uvicorn.config.Config(app="", log_config=None)
