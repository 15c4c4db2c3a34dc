"""What a manifest may say some day but not yet: refused with the reason, never ignored.

To honour one of these, delete its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mullama.manifest.nodes import join
from mullama.names import JSONValue

# Where, in dotted form with `*` for any key: why. What a field's default says is never refused.
REFUSALS: Mapping[str, str] = {
    "groups": "groups are not supported yet",
    "routes.*.to": "a route to several models, or by weight, is not supported yet",
    "routes.*.fallback": "a fallback is not supported yet",
    "routes.*.on_error": "a fallback is not supported yet",
    "auth.keys.*.rate": "rates are not supported yet",
    "models.*.limits.rate": "rates are not supported yet",
    "models.*.mmproj": "images and sound are not supported yet",
    "models.*.draft": "draft models are not supported yet",
    "models.*.rollout.strategy": "a strategy other than auto is not supported yet",
    "server.tls": "TLS is not supported yet",
    "sync.git": "taking the manifest from git is not supported yet",
}

# What to do instead, where there is something.
INSTEAD: Mapping[str, str] = {
    "groups": "models that do not fit together replace each other by residency.priority",
    "routes.*.to": "name one model: chat: NAME",
    "server.tls": "let a reverse proxy in front of the server speak TLS",
    "sync.git": "fetch the repository by other means: the server follows the file",
    "models.*.rollout.strategy": "auto starts the new revision beside the old one when both fit",
}

# What these say by default; elsewhere nothing at all is the default.
_DEFAULTS: Mapping[str, JSONValue] = {"models.*.rollout.strategy": "auto"}


def refused(tree: Mapping[str, JSONValue]) -> Iterator[tuple[str, str, str]]:
    """(path, reason, hint) of everything in the plain manifest that is refused."""
    for pattern, reason in REFUSALS.items():
        for path, value in _find(tree, pattern.split("."), ""):
            if value not in (None, _DEFAULTS.get(pattern)) and value not in ({}, [], ()):
                yield path, reason, INSTEAD.get(pattern, "leave it out")


def _find(value: JSONValue, pattern: Sequence[str], path: str) -> Iterator[tuple[str, JSONValue]]:
    if not pattern:
        yield path, value
    elif isinstance(value, Mapping):
        for key in value if pattern[0] == "*" else (pattern[0],):
            if key in value:
                yield from _find(value[key], pattern[1:], join(path, key))
