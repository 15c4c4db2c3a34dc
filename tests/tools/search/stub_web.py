"""A web on loopback: pages by path, search engines, and hosts that misbehave."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mullama.manifest.host_addresses import IPAddress

Answer = Callable[[BaseHTTPRequestHandler], None]
HERE = ipaddress.ip_address("127.0.0.1")


def only_here(address: IPAddress) -> bool:
    """Allow the address of the stub alone: every other one counts as inside a network."""
    return address == HERE


class StubWeb:
    """Answers by path; `requests` has the paths and headers that arrived."""

    def __init__(self, url: str, answers: dict[str, Answer]) -> None:
        self.url, self.answers = url, answers
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.gone = threading.Event()
        """Set at the end, for answers without an end of their own."""

    def page(self, path: str, body: str | bytes, media: str = "text/html; charset=utf-8", status: int = 200) -> str:
        """Serve a page and return its address."""
        data = body.encode() if isinstance(body, str) else body

        def answer(one: BaseHTTPRequestHandler) -> None:
            one.send_response(status)
            one.send_header("Content-Type", media)
            one.send_header("Content-Length", str(len(data)))
            one.end_headers()
            one.wfile.write(data)

        self.answers[path] = answer
        return self.url + path

    def json(self, path: str, tree: Any, status: int = 200) -> str:
        return self.page(path, json.dumps(tree), "application/json", status)

    def redirect(self, path: str, to: str) -> str:
        def answer(one: BaseHTTPRequestHandler) -> None:
            one.send_response(302)
            one.send_header("Location", to)
            one.send_header("Content-Length", "0")
            one.end_headers()

        self.answers[path] = answer
        return self.url + path

    def endless(self, path: str, piece: bytes, media: str = "text/html", pause: float = 0.0) -> str:
        """Serve a page without an end."""

        def answer(one: BaseHTTPRequestHandler) -> None:
            one.send_response(200)
            one.send_header("Content-Type", media)
            one.end_headers()
            while not self.gone.wait(pause):
                one.wfile.write(piece)

        self.answers[path] = answer
        return self.url + path

    def silent(self, path: str) -> str:
        """Serve a page that never begins."""
        self.answers[path] = lambda one: (self.gone.wait(60), None)[1]
        return self.url + path


@contextmanager
def stub_web() -> Iterator[StubWeb]:
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            answer = answers.get(self.path.partition("?")[0])
            try:
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = StubWeb(f"http://127.0.0.1:{server.server_address[1]}", answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        web.gone.set()
        server.shutdown()
        thread.join()
        server.server_close()
