"""The parts of uvicorn that the server is made of, imported without its command line."""

from __future__ import annotations

import sys
from types import ModuleType


def _import_without_command_line() -> None:
    """Import the package with an empty module for its command line.

    The package imports `uvicorn.main`, and with it click and the supervisors of worker processes, which take half of
    the time and are never used.
    """
    if "uvicorn" in sys.modules:
        return
    empty = ModuleType("uvicorn.main")
    vars(empty).update(Server=None, main=None, run=None)
    sys.modules[empty.__name__] = empty
    try:
        import uvicorn  # noqa: F401 - for its effect
    finally:
        del sys.modules[empty.__name__]


_import_without_command_line()

from uvicorn.config import Config  # noqa: E402 - after the package
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle  # noqa: E402
from uvicorn.server import ServerState  # noqa: E402

__all__ = ["Config", "HttpToolsProtocol", "RequestResponseCycle", "ServerState"]
