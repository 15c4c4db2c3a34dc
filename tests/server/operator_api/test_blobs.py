"""Stored files over HTTP: ranges, rights, and that no other file of the machine can be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.server.operator_api.blobs import read_range
from mullama.store.blobs import Blobs
from tests.server.server_fixture import RunningServer, StubRuntime, key, read_until, running_server

DATA = os.urandom(3 * 1024**2 + 17)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
PATH = f"/api/v1/blobs/{DIGEST}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    blobs = Blobs(tmp_path_factory.mktemp("store"))
    with blobs.receive(DIGEST) as partial:
        partial.write(DATA)
        partial.promote()
    return blobs


@pytest.fixture(scope="module")
def server(store: Blobs) -> Iterator[RunningServer]:
    with running_server(StubRuntime(blobs=store)) as running:
        yield running


def test_a_file_comes_whole_with_its_digest_as_validator(server: RunningServer) -> None:
    answer = server.ask("GET", PATH)
    assert (answer.status, answer.body == DATA) == (200, True)
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert answer.headers["accept-ranges"] == "bytes"
    head = server.ask("HEAD", PATH)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(DATA)))
    assert server.ask("GET", PATH, headers={"if-none-match": f'"{DIGEST}"'}).status == 304


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1048575-1048577", 1048575, 1048578),
        (f"bytes={len(DATA) - 5}-", len(DATA) - 5, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        ("bytes=5-999999999999999999", 5, len(DATA)),
    ],
)
def test_a_range_has_these_bytes_alone(server: RunningServer, asked: str, begin: int, end: int) -> None:
    answer = server.ask("GET", PATH, headers={"range": asked, "if-range": f'"{DIGEST}"'})
    assert (answer.status, answer.body == DATA[begin:end]) == (206, True)
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(DATA)}"


@pytest.mark.parametrize(
    "headers",
    [
        {"range": "bytes=0-1,4-5"},
        {"range": "lines=0-1"},
        {"range": "bytes=9-3"},
        {"range": "bytes=0-1", "if-range": '"other"'},
    ],
)
def test_a_range_that_is_not_served_is_the_whole_file(server: RunningServer, headers: dict[str, str]) -> None:
    assert server.ask("GET", PATH, headers=headers).body == DATA


def test_a_range_without_a_byte_is_refused_with_the_size(server: RunningServer) -> None:
    for asked in (f"bytes={len(DATA)}-", "bytes=-0"):
        answer = server.ask("GET", PATH, headers={"range": asked})
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


@given(text=st.from_regex(r"bytes=\d{0,19}-\d{0,19}", fullmatch=True) | st.text(max_size=20), size=st.integers(0, 99))
def test_a_range_is_within_the_file(text: str, size: int) -> None:
    found = read_range(text, size)
    assert found is None or 0 <= found[0] <= size >= found[1] >= 0


def test_a_file_that_is_not_in_the_store_is_not_found(server: RunningServer, store: Blobs) -> None:
    assert server.ask("GET", f"/api/v1/blobs/sha256:{'0' * 64}").status == 404
    secret = store.root.parent / "secret"
    secret.write_text("private")
    link = store.root / "blobs" / f"sha256-{'1' * 64}"
    link.symlink_to(secret)
    folder = store.root / "blobs" / f"sha256-{'2' * 64}"
    folder.mkdir()
    for name in (link, folder):
        answer = server.ask("GET", f"/api/v1/blobs/{name.name.replace('-', ':')}")
        assert (answer.status, b"private" in answer.body) == (404, False)
    damaged = store.root / "blobs" / f"sha256-{'3' * 64}.corrupt"
    damaged.write_bytes(b"private")
    for name in (
        "..%2F..%2Fsecret", "../../secret", f"{DIGEST}/../../secret", "sha256-" + "3" * 64 + ".corrupt", "",
        DIGEST.upper(), "sha256:abc", f"{DIGEST}%00", "%2Fetc%2Fpasswd", str(secret).replace("/", "%2F"),
    ):  # fmt: skip
        answer = server.ask("GET", f"/api/v1/blobs/{name}")
        assert (answer.status in (400, 404), b"private" in answer.body) == (True, False), name


def test_only_a_key_for_files_or_an_administrator_reads_them(server: RunningServer) -> None:
    server.runtime.keys = tuple(key(role, f"sk-{role}", role) for role in ("infer", "read", "files", "admin"))
    try:
        found = {
            role: server.ask("HEAD", PATH, headers={"authorization": f"Bearer sk-{role}"}).status
            for role in ("infer", "read", "files", "admin", "wrong")
        }
        assert found == {"infer": 403, "read": 403, "files": 200, "admin": 200, "wrong": 401}
        assert server.ask("GET", PATH).status == 401
        allowed = server.ask("GET", "/api/v1/status", headers={"authorization": "Bearer sk-files"})
        assert allowed.status == 403
    finally:
        server.runtime.keys = ()


def test_a_client_that_leaves_ends_its_transfer(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        read_until(connection, b"\r\n\r\n")
    assert server.nothing_runs()


def test_a_stop_of_the_server_does_not_wait_for_a_transfer(store: Blobs, tmp_path: Path) -> None:
    large = Blobs(tmp_path)
    with large.receive("large") as partial:
        for _ in range(16):
            partial.write(DATA)  # more than the buffers of both ends of the connection
        digest = partial.promote()
    with running_server(StubRuntime(blobs=large)) as running, running.connect() as connection:
        connection.sendall(f"GET /api/v1/blobs/{digest} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        read_until(connection, b"\r\n\r\n")
        assert len(running.app.inflight) == 1
        running.wait(running.http.stop(60))
        assert running.nothing_runs()
