"""API keys from their references: secrets are read, hashed and forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from mullama.errors import NotFound
from mullama.manifest.spec import Key, Manifest
from mullama.reconcile.secrets import read_secret
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
