"""API keys from their references: secrets are read, hashed and forgotten."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from mullama.errors import Denied, NotFound
from mullama.manifest.spec import Key, Manifest, SecretRef
from mullama.runtime.base import Access, KeyRecord


def resolve_access(manifest: Manifest, generation: int, env: Mapping[str, str]) -> Access:
    """What the guard needs; raises when a declared key has no secret behind it, or when no key is left."""
    keys = [record for name, key in manifest.auth.keys.items() if (record := _record(name, key, env))]
    if manifest.auth.keys and not keys:
        # Without any key everybody may do everything: never by a secret that happens to be missing.
        raise NotFound(
            "auth.keys: none of the optional secrets is there, so the server would be open to everybody",
            hint="set one of them where the server starts, or remove auth.keys",
        )
    return Access(manifest=manifest, keys=tuple(keys), generation=generation)


def _record(name: str, key: Key, env: Mapping[str, str]) -> KeyRecord | None:
    secret = read_secret(key.secret, f"auth.keys.{name}.secret", env)
    if secret is None:
        return None
    return KeyRecord(
        name=name,
        sha256=hashlib.sha256(secret.encode()).digest(),
        models=key.models,
        roles=key.roles,
        priority=key.priority,
    )


def read_secret(ref: SecretRef, what: str, env: Mapping[str, str]) -> str | None:
    """The secret behind a reference; None for an optional one that is absent. Errors name the reference only."""
    if ref.from_env is not None:
        value = env.get(ref.from_env, "").strip()
        source = f"the environment variable {ref.from_env}"
    else:
        source = f"the file {ref.from_file}"
        value = _read_file(Path(ref.from_file or ""), what)
    if value:
        return value
    if ref.optional:
        return None
    raise NotFound(f"{what}: {source} is missing or empty", hint="set it where the server starts")


def _read_file(path: Path, what: str) -> str:
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
            raise Denied(f"{what}: {path} can be read by others", hint=f"chmod 600 {path}", authenticated=True)
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Denied(f"{what}: {path} cannot be read: {error.strerror}", authenticated=True) from error
