"""API keys from their references: the secrets are read and hashed, not kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from mullama.errors import MullamaError, NotFound
from mullama.manifest.spec import Key, Manifest
from mullama.reconcile.secrets import joined, read_secret
from mullama.runtime.base import Access, KeyRecord


def resolve_access(
    manifest: Manifest, generation: int, env: Mapping[str, str], absent: list[MullamaError] | None = None
) -> Access:
    """Return what the guard needs. Raises `NotFound` for declared keys without a secret, and when no key is left.

    absent: receives the errors of keys without a secret, instead of a raise. Without any key that has a secret, every
    request is refused.
    """
    keys, errors = [], []
    for name, key in manifest.auth.keys.items():
        try:
            record = _record(name, key, env)
        except MullamaError as error:
            errors.append(error)
            record = None
        if record is not None:
            keys.append(record)
    if absent is not None:
        absent += errors
    elif errors:
        raise joined(errors)
    if manifest.auth.keys and not keys and absent:
        keys = [KeyRecord(name="", sha256=b"", models=(), roles=(), priority=0)]  # no secret has an empty digest
    if manifest.auth.keys and not keys:
        # A server without keys accepts every request. A missing secret must not have that effect.
        raise NotFound(
            "auth.keys: none of the optional secrets is set, so the server would be open to everyone",
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
