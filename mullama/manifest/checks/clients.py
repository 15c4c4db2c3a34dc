"""Checks of clients: programs that mullama configures, and models that exist."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import get_args

from mullama.errors import Invalid
from mullama.manifest.diagnostics import Suggestions
from mullama.manifest.spec import Manifest
from mullama.manifest.spec.readers import ClientName
from mullama.names import ModelName

_AddProblem = Callable[[str, str, str], None]


def check_clients(
    manifest: Manifest, models: Collection[str], suggest: Suggestions, fail: _AddProblem, warn: _AddProblem
) -> None:
    """Report unknown clients and models, and clients without a key.

    models: the names of all models, also of those with mistakes.
    """
    names = get_args(ClientName)
    exposed = [a.name for m in manifest.models.values() for a in m.adapters if a.expose and a.name is not None]
    known = {key for name in (*models, *manifest.routes, *exposed) if (key := _key(name)) is not None}
    for name, client in manifest.clients.items():
        if name not in names:
            hint = suggest(name, names) or f"one of {', '.join(names)}"
            fail(f"clients.{name}", f"mullama does not configure {name!r}", hint)
        if manifest.auth.keys and client.key is None:
            warn(f"clients.{name}", "the server has keys, and this client sends none", "key: {from_env: NAME}")
        if client.model is not None and _key(client.model) not in known:
            hint = suggest(client.model, (*models, *manifest.routes))
            fail(f"clients.{name}.model", f"there is no model or route {client.model!r}", hint)


def _key(name: str) -> str | None:
    try:
        return ModelName.parse(name).key
    except Invalid:
        return None
