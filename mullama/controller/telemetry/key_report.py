"""The declared API keys with their rights, their limits and their use, without any secret or digest. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from mullama.manifest.spec import Key, Manifest

DAYS: Final = 30
"""The days over which the use is summed up."""
_COUNTS: Final = ("requests", "errors", "prompt_tokens", "generated_tokens")


def key_report(
    manifest: Manifest,
    in_force: Collection[str],
    limits: Mapping[str, Sequence[Mapping[str, Any]]],
    usage: Sequence[Mapping[str, Any]] | None,
    last_used: Mapping[str, int],
) -> dict[str, Any]:
    """Return the published form, in the order of the manifest.

    in_force: the names of the keys with a secret. limits: those of each key, see `RateBook.by_key`. usage: the sums by
    key of the last days; None where the manifest records no usage. last_used: Unix seconds, to the minute at best.
    """
    sums = {row["key"]: row for row in usage or ()}
    return {
        "format": "mullama.keys/1",
        "days": None if usage is None else DAYS,
        "keys": [
            {
                "name": name,
                "roles": list(key.roles),
                "models": list(key.models),
                "mcp": None if key.mcp is None else list(key.mcp),
                "priority": key.priority,
                "secret": _place(key),
                "in_force": name in in_force,
                "limits": list(limits.get(name, ())),
                "usage": None if usage is None else {count: sums.get(name, {}).get(count, 0) for count in _COUNTS},
                "last_used": last_used.get(name),
            }
            for name, key in manifest.auth.keys.items()
        ],
    }


def _place(key: Key) -> str:
    """Return the place of the secret, which is no secret."""
    return f"from_env {key.secret.from_env}" if key.secret.from_env else f"from_file {key.secret.from_file}"
