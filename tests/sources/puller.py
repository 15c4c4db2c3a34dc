"""A process that pulls one address into a store, to be killed while it does: `puller.py STORE URL`."""

from __future__ import annotations

import faulthandler
import socket
import sys
from typing import Any

from mullama.sources.library import Library
from mullama.sources.settings import RetryPolicy, Settings, Timeouts
from mullama.store.foreign import Foreign, Roots
from mullama.store.index import Index

_connect = socket.create_connection


def _connect_near(*arguments: Any, **more: Any) -> socket.socket:
    """However slow this process is, the system takes little from the hub that is lost when it is killed."""
    made = _connect(*arguments, **more)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
    return made


if __name__ == "__main__":
    socket.create_connection = _connect_near
    faulthandler.dump_traceback_later(50, exit=True)  # a pull that hangs says where
    store, url = sys.argv[1:]
    settings = Settings(patience=RetryPolicy(first=0.01), waits=Timeouts(headers=20, idle=20))
    library = Library(Index(store), Foreign(Roots()), settings, {})
    stored = library.ensure(library.locate(url), lambda progress: None, lambda: False)
    sys.stdout.write(f"{stored.digest}\n")
