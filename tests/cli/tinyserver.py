"""A small HTTP server that answers from a table."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mullama.client.address import ServerAddress
from mullama.client.http import Client


@dataclass
class Answer:
    """Response to one request: status and the pieces of the body, each sent separately."""

    body: Any = None
    status: int = 200
    pieces: tuple[bytes, ...] = ()
    hold: threading.Event | None = None

    def parts(self) -> tuple[bytes, ...]:
        return self.pieces or (json.dumps(self.body).encode(),)


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes = b""
    """A body that came in chunks."""


@dataclass
class TinyServer:
    """Answers by `METHOD path`. Other paths get a 404 in the form of the operator API."""

    address: ServerAddress
    answers: dict[str, Answer | Callable[[Asked], Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return str(self.address)

    @property
    def client(self) -> Client:
        return Client(self.address, timeout=10.0)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        found = self.answers.get(f"{asked.method} {asked.path}")
        if found is None:
            return Answer({"error": {"kind": "not_found", "message": f"no {asked.path}", "hint": "h"}}, 404)
        return found if isinstance(found, Answer) else found(asked)


def handler(tiny: TinyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "client"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size + 2)[:size]
            self.rfile.readline()
            return found

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            raw = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else b""
            answer = tiny.answer(Asked(self.command, self.path, dict(self.headers), body, raw))
            self.send_response(answer.status)
            self.end_headers()
            try:
                for piece in answer.parts():
                    self.wfile.write(piece)
                    self.wfile.flush()
                if answer.hold is not None:
                    answer.hold.wait(60)
            except (BrokenPipeError, ConnectionResetError):
                pass

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

    return Handler


class TcpServer(ThreadingHTTPServer):
    request_queue_size = 128  # of 5, some of many clients at once would have to knock again


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("unix", 0)


def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()
