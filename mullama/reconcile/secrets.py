"""Reads the secrets behind the references of a manifest. No message contains a secret."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mullama.errors import Denied, MullamaError, NotFound
from mullama.manifest.spec import Manifest, SecretRef


def read_secret(ref: SecretRef, field: str, env: Mapping[str, str]) -> str | None:
    """Return the secret behind a reference without surrounding space; None for an optional one that is absent.

    field: the field of the manifest that has the reference, for messages.

    Raises `NotFound` for a secret that is absent or empty, `Denied` for a file that other users can read.
    """
    if ref.from_env is not None:
        secret = env.get(ref.from_env, "").strip()
    else:
        secret = _read_file(Path(ref.from_file or ""), field)
    if secret:
        return secret
    if ref.optional:
        return None
    raise NotFound(
        f"{field}: {place_of(ref)} is missing or empty",
        hint="set it where the server starts, or declare it with optional: true",
    )


_WITHOUT: Final = {
    "auth": "apply refuses it",
    "peers": "the peer refuses requests without it",
    "mcp": "models are served without the tools of this server",
    "search": "searches of the web fail",
}
"""The effect of a secret that cannot be read, by the block that names it."""


def missing_secrets(manifest: Manifest, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return a clause for each API key, key of a peer or of the search, and header or client of a server of
    tools that is not here.
    """
    keys = ((f"auth.keys.{name}.secret", key.secret) for name, key in manifest.auth.keys.items())
    peers = ((f"peers.{name}.key", peer.key) for name, peer in manifest.peers.items())
    headers = (
        (f"mcp.{name}.headers.{header}", ref)
        for name, server in manifest.mcp.items()
        for header, ref in server.headers.items()
    )
    clients = (
        (f"mcp.{name}.oauth.client_secret", server.oauth.client_secret)
        for name, server in manifest.mcp.items()
        if server.oauth is not None
    )
    search = (("search.key", manifest.search.key if manifest.search is not None else None),)
    found = []
    for field, ref in (*keys, *peers, *headers, *clients, *search):
        try:
            if ref is not None:
                read_secret(ref, field, env)
        except MullamaError as error:
            found.append(f"{error.message}: {_WITHOUT[field.partition('.')[0]]}")
    return tuple(found)


def joined(errors: Sequence[MullamaError]) -> MullamaError:
    """Return one error for several secrets that cannot be read: the error itself for one, else with all messages."""
    first = next((error for error in errors if isinstance(error, Denied)), errors[0])
    if len(errors) == 1:
        return first
    text = "; ".join(error.message for error in errors)
    hints = dict.fromkeys(error.hint for error in errors)
    hint = "; ".join(hints)
    return Denied(text, hint=hint, authenticated=True) if isinstance(first, Denied) else NotFound(text, hint=hint)


def place_of(ref: SecretRef) -> str:
    """Return the place of a secret in words: `the file /run/secrets/key`."""
    return f"the environment variable {ref.from_env}" if ref.from_env is not None else f"the file {ref.from_file}"


def _read_file(path: Path, field: str) -> str:
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
            raise Denied(f"{field}: {path} can be read by others", hint=f"chmod 600 {path}", authenticated=True)
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise Denied(f"{field}: {path} is not UTF-8 text", authenticated=True) from error
    except OSError as error:
        raise Denied(f"{field}: {path} cannot be read: {error.strerror}", authenticated=True) from error
