"""The files of the web page: their headers, and the answers where there is no page."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from mullama.server import app
from tests.server.server_fixture import RunningServer, StubRuntime, key, manifest, running_server

PAGE = b"<!doctype html><title>mullama</title>"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the built files, empty."""
    monkeypatch.setattr(app, "DIST", tmp_path)
    return tmp_path


@pytest.fixture
def page(folder: Path) -> Path:
    """A built page."""
    (folder / "index.html").write_bytes(PAGE)
    (folder / "main-ABC.js").write_text("let a = 1;")
    (folder / "main-ABC.js.gz").write_bytes(gzip.compress(b"let a = 1;"))
    (folder / "icon.svg").write_text("<svg/>")
    (folder / "inputs").write_text("0" * 64)
    return folder


@pytest.fixture
def server(page: Path) -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def test_the_page_is_confined_to_its_server(server: RunningServer) -> None:
    answer = server.ask("GET", "/ui/")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, PAGE, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-cache"


def test_the_address_without_a_slash_leads_to_the_page_below_any_prefix(server: RunningServer) -> None:
    answer = server.ask("GET", "/ui")
    assert (answer.status, answer.headers["location"]) == (308, "ui/")


def test_files_with_a_digest_in_their_name_are_kept_forever(server: RunningServer) -> None:
    assert "immutable" in server.ask("GET", "/ui/main-ABC.js").headers["cache-control"]
    assert server.ask("GET", "/ui/icon.svg").headers["cache-control"] == "no-cache"


def test_files_are_sent_compressed_where_the_client_takes_it(server: RunningServer) -> None:
    packed = server.ask("GET", "/ui/main-ABC.js", headers={"accept-encoding": "gzip, br"})
    assert (packed.headers["content-encoding"], gzip.decompress(packed.body)) == ("gzip", b"let a = 1;")
    assert "Accept-Encoding" in packed.headers["vary"]
    assert "content-encoding" not in server.ask("GET", "/ui/icon.svg", headers={"accept-encoding": "gzip"}).headers


@pytest.mark.parametrize("name", ["absent.js", "inputs", "..%2Findex.html", "main-ABC.js.gz"])
def test_only_files_of_the_page_are_served(server: RunningServer, name: str) -> None:
    answer = server.ask("GET", f"/ui/{name}")
    assert (answer.status, answer.json["error"]["kind"]) == (404, "not_found")


def test_a_new_build_is_served_at_once(server: RunningServer, page: Path) -> None:
    import os

    server.ask("GET", "/ui/")
    (page / "index.html").write_bytes(b"new")
    os.utime(page / "index.html", (1, 1))
    assert server.ask("GET", "/ui/").body == b"new"


def test_the_page_needs_no_key_and_shows_nothing_without_one(page: Path) -> None:
    with running_server(StubRuntime(keys=(key("ops", "s", "admin"),))) as server:
        assert server.ask("GET", "/ui/").status == 200
        assert server.ask("GET", "/api/v1/live").status == 401


def test_an_installation_without_the_page_says_how_to_build_it(folder: Path) -> None:
    with running_server() as server:
        answer = server.ask("GET", "/ui/")
    assert answer.status == 503
    assert "make ui" in answer.json["error"]["hint"]


def test_the_manifest_switches_the_page_off(page: Path) -> None:
    with running_server(StubRuntime(manifest=manifest(server={"ui": False}))) as server:
        for path in ("/ui", "/ui/", "/ui/icon.svg"):
            answer = server.ask("GET", path)
            assert (answer.status, "server.ui" in answer.json["error"]["hint"]) == (404, True)
