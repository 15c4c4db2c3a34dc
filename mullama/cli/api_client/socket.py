"""WebSockets to a server, for commands that send and receive at the same time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect, unix_connect
from websockets.sync.connection import Connection

from mullama.client.errors import error_of
from mullama.client.http import Client
from mullama.errors import Unavailable

_OPEN_SECONDS = 60.0  # a model may be loaded before the handshake is answered


class EventSocket:
    """Events in both directions, each a JSON object. One thread may send while another one receives."""

    def __init__(self, connection: Connection, address: str) -> None:
        self._connection = connection
        self._address = address

    def send(self, kind: str, **members: Any) -> None:
        """Send one event. Raises `Unavailable` after the end of the connection, with its reason."""
        try:
            self._connection.send(json.dumps({"type": kind, **members}))
        except ConnectionClosed as error:
            raise self._closed(error) from error

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield events. Raises `Unavailable` if the server ends the connection, with its reason."""
        while True:
            try:
                yield json.loads(self._connection.recv())
            except ConnectionClosed as error:
                raise self._closed(error) from error

    def close(self) -> None:
        """End the connection. Another thread that receives or sends gets an error."""
        self._connection.close()

    def _closed(self, error: ConnectionClosed) -> Unavailable:
        reason = error.rcvd.reason if error.rcvd is not None else ""
        return Unavailable(f"{self._address} closed the connection" + (f": {reason}" if reason else ""))


@contextmanager
def event_socket(client: Client, path: str) -> Iterator[EventSocket]:
    """Open a WebSocket at this path of the server, and close it at the end. An error status raises its error."""
    address = str(client.address)
    with closing(client.connect()) as http:
        # A handshake has its own limit, and the silence of a session after it has none.
        http.sock.settimeout(None)
        opened = unix_connect if client.address.path is not None else connect  # one of them sets options of TCP
        try:
            with opened(
                uri=f"ws://{http.host}{path}", sock=http.sock, additional_headers=client.headers, proxy=None,
                compression=None, open_timeout=_OPEN_SECONDS, max_size=None,
            ) as connection:  # fmt: skip
                yield EventSocket(connection, address)
        except InvalidStatus as error:
            raise error_of(error.response.status_code, bytes(error.response.body or b""), address) from error
        except (InvalidHandshake, OSError) as error:
            raise Unavailable(f"{address} opened no WebSocket: {error}") from error
