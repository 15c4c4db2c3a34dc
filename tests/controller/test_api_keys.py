"""API keys from their references; no message contains a secret."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mullama.controller.api_keys import resolve_access
from mullama.errors import Denied, NotFound
from mullama.manifest.tree import parse_resolved


def keys(**secrets: dict[str, Any]) -> Any:
    listed = {name: {"secret": ref} for name, ref in secrets.items()}
    return parse_resolved({"mullama": "v1", "auth": {"keys": listed}})


def test_secrets_are_kept_as_hashes_without_the_space_around_them(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(" from-file\n")
    path.chmod(0o600)
    manifest = keys(a={"from_env": "A"}, b={"from_file": str(path)})

    access = resolve_access(manifest, 3, {"A": "from-env\n"})

    digests = [hashlib.sha256(text).digest() for text in (b"from-env", b"from-file")]
    assert [key.sha256 for key in access.keys] == digests
    assert access.generation == 3
    assert "from-" not in repr(access.keys)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret-text")
    path.chmod(0o644)

    with pytest.raises(Denied, match="read by others") as raised:
        resolve_access(keys(a={"from_file": str(path)}), 1, {})

    assert "chmod 600" in raised.value.hint
    assert "secret-text" not in str(raised.value)


@pytest.mark.parametrize("env", [{}, {"A": ""}, {"A": "  \n"}])
def test_a_missing_or_empty_secret_names_its_reference(env: dict[str, str]) -> None:
    with pytest.raises(NotFound, match=r"auth\.keys\.a\.secret.*variable A"):
        resolve_access(keys(a={"from_env": "A"}), 1, env)


def test_an_optional_key_may_be_absent_but_not_every_key() -> None:
    both = keys(a={"from_env": "A", "optional": True}, b={"from_env": "B", "optional": True})

    assert [key.name for key in resolve_access(both, 1, {"B": "x"}).keys] == ["b"]
    with pytest.raises(NotFound, match="open to everyone"):
        resolve_access(both, 1, {})
    assert resolve_access(parse_resolved({"mullama": "v1"}), 1, {}).keys == ()


def test_all_missing_secrets_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("x")
    path.chmod(0o644)
    refs = {"a": {"from_env": "A"}, "b": {"from_env": "B"}, "c": {"from_env": "C"}}

    with pytest.raises(NotFound) as raised:
        resolve_access(keys(**refs), 1, {"B": "b"})
    with pytest.raises(Denied) as denied:
        resolve_access(keys(**refs, d={"from_file": str(path)}), 1, {"B": "b"})

    missing = "; ".join(f"auth.keys.{n.lower()}.secret: the environment variable {n} is missing or empty" for n in "AC")
    assert raised.value.message == missing
    assert raised.value.hint == "set it where the server starts, or declare it with optional: true"
    assert denied.value.message == f"{missing}; auth.keys.d.secret: {path} can be read by others"
