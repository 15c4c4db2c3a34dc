"""A hub, a registry and a plain file server on loopback, whose answers can be scripted to go wrong.

    with StubHub() as hub:
        hub.repo("org/m", {"m-Q8_0.gguf": data})          # Hugging Face API and resolve, with LFS digests
        hub.model("library/m", "latest", [("model", data)]) # Ollama registry v2
        hub.files["/m.gguf"] = data                        # a plain address
        hub.script("m-Q8_0.gguf", Cut(1000), Status(429, {"Retry-After": "1"}))

Each request whose path ends in the scripted name takes the next step of the script; then all is well again.
`hub.requests` is what was asked, `hub.sent` the bytes of files that went out.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Step:
    """One answer that differs from the right one."""


@dataclass
class Fine(Step):
    """The right answer."""


@dataclass
class Cut(Step):
    """Close the connection after so many bytes of the body."""

    after: int


@dataclass
class Stall(Step):
    """Send so many bytes of the body, then nothing until the hub is closed."""

    after: int = 0


@dataclass
class Hold(Step):
    """Send so many bytes of the body, and the rest once `hub.release()` was called."""

    after: int = 0


@dataclass
class Drip(Step):
    """Send `size` bytes at a time, with pauses of `every` seconds, and the rest once `hub.release()` was called."""

    every: float = 0.02
    size: int = 1


@dataclass
class Silent(Step):
    """Accept the request and never send a header."""


@dataclass
class Status(Step):
    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


@dataclass
class Redirect(Step):
    to: str
    code: int = 302


@dataclass
class WholeForRange(Step):
    """Answer a range with 200 and the whole file."""


@dataclass
class WrongRange(Step):
    """Answer a range with 206 and this Content-Range ({first}, {last}, {total} are filled in)."""

    content_range: str = "bytes 0-{last}/{total}"


@dataclass
class Gzip(Step):
    """Send the body encoded although nobody asked."""


@dataclass
class Other(Step):
    """Send other bytes, of a file that changed; with its own ETag."""

    data: bytes
    etag: str | None = None


@dataclass
class Announce(Step):
    """Send the right bytes with another Content-Length."""

    length: int


@dataclass
class Asked:
    """A request, and how many bytes of a file went out for it."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0

    @property
    def first(self) -> int:
        """Where the range begins that was asked for."""
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0


@dataclass
class Repo:
    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    private: bool = False
    tags: tuple[str, ...] = ("gguf", "license:mit")
    lfs: bool = True
    sizes: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)


@lru_cache(maxsize=256)
def sha256(data: bytes) -> str:
    """In hex; remembered, since the same large files are asked for again and again."""
    return hashlib.sha256(data).hexdigest()


class StubHub:
    """One server on its own port of `host`; close it, or use it as a context."""

    def __init__(self, host: str = "127.0.0.1", certificate: str | None = None) -> None:
        self.repos: dict[str, Repo] = {}
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.twins: list[str] = []
        self.requests: list[Asked] = []
        self.sent = 0
        self.validators = True
        self.realm: str | None = None
        self.token = "anonymous"
        self.cdn: StubHub | None = None
        self.closing = threading.Event()
        self.arrived = threading.Event()
        self._released = threading.Event()
        self._scripts: dict[str, deque[Step]] = {}
        self._lock = threading.Condition()
        self._server = _Server((host, 0), type("Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.host = f"{host}:{self._server.server_port}"
        self.url = f"http{'s' if certificate else ''}://{self.host}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> StubHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; requests that stall are let go."""
        self.closing.set()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def release(self) -> None:
        """Let what is held go on."""
        self._released.set()

    def repo(self, name: str, files: dict[str, bytes], **more: Any) -> Repo:
        self.repos[name] = Repo(files, **more)
        return self.repos[name]

    def model(self, name: str, tag: str, layers: list[tuple[str, bytes]]) -> bytes:
        """A registry model; kinds are those of Ollama's media types. The manifest's bytes."""
        tree = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": self._blob("application/vnd.docker.container.image.v1+json", b'{"model_format":"gguf"}'),
            "layers": [self._blob(f"application/vnd.ollama.image.{kind}", data) for kind, data in layers],
        }
        self.manifests[f"{name}/{tag}"] = json.dumps(tree).encode()
        return self.manifests[f"{name}/{tag}"]

    def script(self, ending: str, *steps: Step) -> None:
        self._scripts[ending] = deque(steps)

    def asked(self, ending: str) -> list[Asked]:
        """The requests whose path ended so."""
        return [asked for asked in self.requests if asked.path.partition("?")[0].endswith(ending)]

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent
            self._lock.notify_all()

    def wait_sent(self, count: int, timeout: float = 30) -> bool:
        """Wait until so many bytes of files went out."""
        with self._lock:
            return self._lock.wait_for(lambda: self.sent >= count, timeout)

    def step(self, path: str) -> Step:
        with self._lock:
            for ending, steps in self._scripts.items():
                if path.endswith(ending) and steps:
                    return steps.popleft()
        return Fine()

    def _blob(self, media: str, data: bytes) -> dict[str, Any]:
        self.blobs[sha256(data)] = data
        return {"mediaType": media, "digest": f"sha256:{sha256(data)}", "size": len(data)}


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # of 5, some of many clients at once would have to knock again


class _Handler(BaseHTTPRequestHandler):
    hub: StubHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):  # a client that leaves is part of many a test
            super().handle()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked = Asked(self.command, self.path, dict(self.headers.items()))
        self.hub.requests.append(self.asked)
        self.hub.arrived.set()
        path = unquote(urlsplit(self.path).path)
        try:
            self._answer(path)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def _answer(self, path: str) -> None:
        step = self.hub.step(path)
        match step:
            case Silent():
                self.hub.closing.wait()
                self.close_connection = True
            case Status():
                self._send(step.code, step.body, step.headers)
            case Redirect():
                self._send(step.code, b"", {"Location": step.to})
            case _:
                self._route(path, step)

    def _route(self, path: str, step: Step) -> None:
        hub = self.hub
        if path == "/api/models":
            words = parse_qs(urlsplit(self.path).query).get("search", [""])[0].lower()
            found = [name for name in hub.repos if words and words in name.lower()]
            self._json([{"id": name, "downloads": 10, "tags": ["gguf"]} for name in (*hub.twins, *found)])
        elif path.startswith("/api/models/"):
            self._repository(path.removeprefix("/api/models/"))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[3], step)
        elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            self._registry(hub.manifests.get(f"{match[1]}/{match[2]}"), step)
        elif match := re.fullmatch(r"/v2/.+/blobs/sha256:([0-9a-f]{64})", path):
            self._registry(hub.blobs.get(match[1]), step)
        elif path == "/token":
            self._json({"token": hub.token})
        elif path in hub.files:
            self._file(hub.files[path], step)
        else:
            self._send(404, b"{}", {})

    def _repository(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if repo.gated and not self.headers.get("Authorization"):
            return self._send(401, b"{}", {"X-Error-Code": "GatedRepo"})
        if revision and revision not in (repo.commit, "main", *repo.revisions):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for file, data in repo.files.items():
            size = repo.sizes.get(file, len(data))
            entry: dict[str, Any] = {"rfilename": file, "size": size, "blobId": "1" * 40}
            if repo.lfs and file.endswith(".gguf"):
                entry["lfs"] = {"sha256": repo.digests.get(file, sha256(data)), "size": size, "pointerSize": 130}
            siblings.append(entry)
        return self._json(
            {
                "id": name,
                "sha": repo.revisions.get(revision, repo.commit),
                "tags": list(repo.tags),
                "siblings": siblings,
            }
        )

    def _resolve(self, name: str, file: str, step: Step) -> None:
        repo = self.hub.repos.get(name)
        if repo is None or file not in repo.files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        if repo.gated and not self.headers.get("Authorization"):
            return self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        data = repo.files[file]
        linked = {
            "X-Repo-Commit": repo.commit,
            "X-Linked-Size": str(len(data)),
            "X-Linked-ETag": f'"{repo.digests.get(file, sha256(data))}"',
        }
        if self.hub.cdn is not None:
            self.hub.cdn.files[f"/cdn/{file}"] = data
            return self._send(302, b"", {**linked, "Location": f"{self.hub.cdn.url}/cdn/{file}?signature=x"})
        return self._file(data, step, linked)

    def _registry(self, data: bytes | None, step: Step) -> None:
        hub = self.hub
        if hub.realm is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            challenge = f'Bearer realm="{hub.realm}",service="stub",scope="pull"'
            return self._send(401, b"{}", {"WWW-Authenticate": challenge})
        if data is None:
            return self._send(404, b"{}", {})
        return self._file(data, step)

    def _file(self, data: bytes, step: Step, more: Mapping[str, str] | None = None) -> None:
        hub, etag = self.hub, None
        if isinstance(step, Other):
            data, etag = step.data, step.etag
        headers = {"Accept-Ranges": "bytes", **(more or {})}
        if hub.validators:
            headers["ETag"] = etag or f'"{sha256(data)[:32]}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        first = int(asked[1]) if asked else 0
        ranged = asked is not None and (condition is None or condition == headers.get("ETag"))
        if isinstance(step, WholeForRange) or not ranged:
            ranged, first = False, 0
        if ranged and first >= len(data):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        last = min(int(asked[2]), len(data) - 1) if ranged and asked and asked[2] else len(data) - 1
        body = data[first : last + 1]
        if ranged:
            numbers = {"first": first, "last": last, "total": len(data)}
            shape = step.content_range if isinstance(step, WrongRange) else "bytes {first}-{last}/{total}"
            headers["Content-Range"] = shape.format(**numbers)
        if isinstance(step, Gzip):
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        length = step.length if isinstance(step, Announce) else len(body)
        self._head(206 if ranged else 200, {**headers, "Content-Length": str(length)})
        return None if self.command == "HEAD" else self._body(body, step)

    def _body(self, body: bytes, step: Step) -> None:
        end = len(body)
        if isinstance(step, (Cut, Stall)):
            end = min(end, step.after)
        if isinstance(step, Drip):
            for start in range(0, end, step.size):
                self._write(body[start : start + step.size])
                self.hub._released.wait(step.every)
                if self.hub.closing.is_set():
                    break
        else:
            first = min(end, step.after) if isinstance(step, Hold) else 0
            self._write(body[:first])
            if isinstance(step, Hold):
                self.hub._released.wait()
            for start in range(first, end, 65536):
                self._write(body[start : min(end, start + 65536)])
        if isinstance(step, Stall):
            self.hub.closing.wait()
        if isinstance(step, (Cut, Stall, Announce)):
            self.close_connection = True

    def _write(self, data: bytes) -> None:
        # Counted first: a client that has all it wants may look at the count before this thread runs again.
        self.asked.sent += len(data)
        self.hub.count(len(data))
        self.wfile.write(data)

    def _json(self, tree: Any) -> None:
        self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(code, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, code: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
