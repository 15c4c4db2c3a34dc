"""`mullama search` and `login` with a small hub on loopback."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cli.pty_session import pty_session
from tests.e2e.stack import Stack

FOUND = [{"id": "o/r-GGUF", "downloads": 1234, "lastModified": "2025-01-02T00:00:00Z", "tags": ["gguf"]}]


class Hub(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer hf_right"
        whoami = self.path.startswith("/api/whoami-v2")
        body = json.dumps({"name": "me"} if whoami else FOUND).encode()
        self.send_response(200 if known or not whoami else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def home(empty_stack: Stack) -> Iterator[Stack]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    empty_stack.variables |= {"HF_ENDPOINT": url, "HF_HOME": str(empty_stack.home / "hf")}
    try:
        yield empty_stack
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_search_lists_repositories(home: Stack) -> None:
    assert home.json("search", "r", "--json")["results"][0]["repository"] == "o/r-GGUF"
    assert home.run("search", "r").stdout.splitlines()[1].split() == ["hf:o/r-GGUF", "1,234", "2025-01-02"]
    assert home.run("search", "r", "-n", "0", code=4).stderr.startswith("error: --limit")


def test_login_saves_only_a_token_that_the_hub_accepts(home: Stack) -> None:
    token = home.home / "hf" / "token"
    assert "hf_wrong" not in home.run("login", input="hf_wrong\n", code=7).stderr
    assert not token.exists()
    assert home.run("login", input="hf_right\n").stdout.startswith("logged in as me")
    assert token.read_text() == "hf_right"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    home.run("login", "--remove")
    assert not token.exists()


def test_a_token_that_is_typed_is_not_shown(home: Stack) -> None:
    with pty_session(["login"], home.home, **home.env) as session:
        session.read_until("token (not shown): ")
        session.type("hf_right\n")
        assert session.finish() == 0
    assert "hf_right" not in session.seen
    assert "logged in as me" in session.seen
