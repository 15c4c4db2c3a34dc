"""A receiver of webhooks on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

Received = tuple[dict[str, str], bytes]
"""The headers of a request, with its path as `:path`, and its body."""


@contextmanager
def receiver_on_loopback(
    status: int = 200, *, first: tuple[int, ...] = (), retry_after: str = "7"
) -> Iterator[tuple[str, list[Received]]]:
    """An address, and the requests to it. They are answered with this status, the first ones with those of `first`."""
    got: list[Received] = []
    replies = list(first)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(({":path": self.path, **self.headers}, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(replies.pop(0) if replies else status)
            self.send_header("location", "/elsewhere")
            self.send_header("retry-after", retry_after)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", got
        server.shutdown()
        thread.join()
