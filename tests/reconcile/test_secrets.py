"""Secrets behind references: what is read, what is refused, and that no message contains one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mullama.errors import Denied, NotFound
from mullama.manifest.spec import SecretRef
from mullama.manifest.tree import parse_resolved
from mullama.reconcile.files import Files
from mullama.reconcile.secrets import missing_secrets, place_of, read_secret
from tests.manifest.builders import read


def reference(**fields: Any) -> SecretRef:
    return SecretRef.model_validate(fields)


def secret_file(path: Path, mode: int) -> SecretRef:
    path.write_text(" secret-text\n")
    path.chmod(mode)
    return reference(from_file=str(path))


def test_a_secret_is_read_without_the_space_around_it(tmp_path: Path) -> None:
    assert read_secret(reference(from_env="A"), "f", {"A": " x\n"}) == "x"
    assert read_secret(secret_file(tmp_path / "key", 0o600), "f", {}) == "secret-text"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Denied, match=r"^f: .*read by others") as raised:
        read_secret(secret_file(tmp_path / "key", mode), "f", {})
    assert "chmod 600" in raised.value.hint
    assert "secret-text" not in str(raised.value)


def test_an_absent_secret_is_an_error_unless_it_is_optional(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(NotFound, match=rf"^f: the file {absent} is missing or empty"):
        read_secret(reference(from_file=absent), "f", {})
    assert read_secret(reference(from_file=absent, optional=True), "f", {}) is None
    assert read_secret(reference(from_env="A", optional=True), "f", {"A": " "}) is None


def test_a_place_names_the_variable_or_the_file() -> None:
    assert place_of(reference(from_env="A")) == "the environment variable A"
    assert place_of(reference(from_file="/k")) == "the file /k"


def test_the_token_of_the_hub_is_checked_as_every_secret(tmp_path: Path) -> None:
    secret_file(tmp_path / "token", 0o600)
    manifest = parse_resolved({"mullama": "v1", "sources": {"hf": {"token": {"from_file": str(tmp_path / "token")}}}})
    files = Files(tmp_path / "store", {})
    hub = files.settings(manifest).hub
    assert (hub.token, hub.token_from) == ("secret-text", f"the file {tmp_path / 'token'}")
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(Denied, match=r"^sources\.hf\.token: .*read by others"):
        files.settings(manifest)


def test_each_key_that_this_machine_lacks_is_named() -> None:
    text = """
auth: {keys: {a: {secret: {from_env: A}}, b: {secret: {from_env: B}}, c: {secret: {from_env: C, optional: true}}}}
peers: {p: {url: "https://p.example.org", key: {from_env: P}}, q: {url: "https://q.example.org"}}
mcp: {d: {url: "https://d.example.org/mcp", headers: {X-Key: {from_env: D}, X-Other: {from_env: A}}}}
models: {m: {from: builtin:tiny, mcp: [d], search: true}}
search: {provider: brave, key: {from_env: E}}
"""
    assert missing_secrets(read(text).manifest, {"A": "x"}) == (
        "auth.keys.b.secret: the environment variable B is missing or empty: apply refuses it",
        "peers.p.key: the environment variable P is missing or empty: the peer refuses requests without it",
        "mcp.d.headers.X-Key: the environment variable D is missing or empty: models are served without the tools of "
        "this server",
        "search.key: the environment variable E is missing or empty: searches of the web fail",
    )
