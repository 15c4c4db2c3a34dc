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


def test_a_repository_that_cannot_be_read_does_not_hide_the_others(
    home: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [*FOUND, {**FOUND[0], "id": "o/private"}]
    one = {**FOUND[0], "siblings": [{"rfilename": "r-Q8_0.gguf", "size": 5}], "sha": "a" * 40}

    def answer(self: BaseHTTPRequestHandler) -> None:
        asked = self.path.partition("?")[0]
        body = json.dumps(found if asked == "/api/models" else one).encode()
        self.send_response(401 if asked.endswith("private") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    monkeypatch.setattr(Hub, "do_GET", answer)
    lines = home.run("search", "r", "--files").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["hf:o/r-GGUF", "r-Q8_0.gguf", "hf:o/private", "the", "2"]
    results = home.json("search", "r", "--files", "--json")["results"]
    assert [bool(item.get("error")) for item in results] == [False, True]


def test_login_on_a_mirror_that_knows_no_users_saves_the_token_with_a_warning(
    home: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(self: BaseHTTPRequestHandler) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    monkeypatch.setattr(Hub, "do_GET", answer)
    assert "does not check tokens" in home.run("login", input="hf_any\n").stdout
    assert (home.home / "hf" / "token").read_text() == "hf_any"


def test_login_saves_only_a_token_that_the_hub_accepts(home: Stack) -> None:
    token = home.home / "hf" / "token"
    assert "hf_wrong" not in home.run("login", input="hf_wrong\n", code=7).stderr
    assert not token.exists()
    assert home.run("login", input="hf_right\n").stdout.startswith("logged in as me")
    assert token.read_text() == "hf_right"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert home.run("login", "--remove").stdout == "the saved token is deleted\n"
    assert not token.exists()
    assert home.run("login", "--remove").stdout == "no token is saved\n"


def test_a_token_that_is_typed_is_not_shown(home: Stack) -> None:
    with pty_session(["login"], home.home, **home.env) as session:
        session.read_until("token (not shown): ")
        session.type("hf_right\n")
        assert session.finish() == 0
    assert "hf_right" not in session.seen
    assert "logged in as me" in session.seen
