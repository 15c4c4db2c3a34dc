"""What the bodies of the operator's API may hold, read field by field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from mullama.errors import Invalid
from mullama.names import suggest
from mullama.runtime.base import ApplyOptions, Origin

_TRIGGERS = get_args(get_type_hints(ApplyOptions)["trigger"])


def only(tree: Mapping[str, Any], allowed: Collection[str], where: str) -> None:
    """Raises for the first key that does not belong there: a typo must not pass for silence."""
    for key in tree:
        if key not in allowed:
            close = suggest(key, allowed)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(allowed)}"
            raise Invalid(f"{key[:80]!r} is not a field of {where}", hint=hint, field=key)


def manifest(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(body.get("manifest"), "manifest")


def options(tree: Any) -> ApplyOptions:
    """`ApplyOptions` from its JSON form; what is not said keeps its default, except who asked for it."""
    given = {} if tree is None else _object(tree, "options")
    only(given, [f.name for f in fields(ApplyOptions)], "options")
    for name, value in given.items():
        _check_option(name, value)
    return ApplyOptions(**{"trigger": "api", **given})


def _check_option(name: str, value: Any) -> None:
    match name:
        case "expect":
            fits = value is None or isinstance(value, str)
        case "by":
            fits = isinstance(value, str)
        case "trigger":
            fits = value in _TRIGGERS
        case _:
            fits = isinstance(value, bool)
    if not fits:
        raise Invalid(f"options.{name} cannot be {value!r:.80}", field=f"options.{name}")


def origin(tree: Any) -> Origin:
    given = {} if tree is None else _object(tree, "origin")
    only(given, [f.name for f in fields(Origin)], "origin")
    path, digest, profiles = given.get("path"), given.get("digest", ""), given.get("profiles", ())
    if path is not None and not isinstance(path, str):
        raise Invalid("origin.path must be a string or null", field="origin.path")
    if not isinstance(digest, str):
        raise Invalid("origin.digest must be a string", field="origin.digest")
    if not isinstance(profiles, list | tuple) or not all(isinstance(p, str) for p in profiles):
        raise Invalid("origin.profiles must be a list of strings", field="origin.profiles")
    return Origin(path=path, profiles=tuple(profiles), digest=digest)


def generation(body: Mapping[str, Any]) -> int | None:
    """`to` of an undo: the number of a revision, or nothing for the one before."""
    to = body.get("to")
    if to is not None and (not isinstance(to, int) or isinstance(to, bool)):
        raise Invalid("to must be the number of a revision or null", field="to")
    return to


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{name} must be a JSON object", field=name)
    return value
