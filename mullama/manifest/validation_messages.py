"""Messages for validation errors, in the terms of a manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mullama.manifest.interpolate import SECRETS
from mullama.manifest.nodes import join, matches, nearest
from mullama.manifest.spec.core import ValidationError
from mullama.names import JSONValue, suggest
from mullama.problems import Location, Problem

Where = Callable[[str], Location | None]

_QUOTED = re.compile(r"'([^']*)'|([0-9]+)")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")

# Messages by the type of pydantic's error, with values of its context as {name}.
_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "no such field",
    "int_type": "expected a whole number, got {got}",
    "int_from_float": "expected a whole number, got {got}",
    "float_type": "expected a number, got {got}",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false, got {got}",
    "string_type": "expected text, got {got}",
    "literal_error": "expected {expected}, got {got}",
    "dict_type": "expected a map, got {got}",
    "model_type": "expected a map, got {got}",
    "tuple_type": "expected a list, got {got}",
    "greater_than": "must be more than {gt}, not {got}",
    "greater_than_equal": "must be at least {ge}, not {got}",
    "less_than": "must be less than {lt}, not {got}",
    "less_than_equal": "must be at most {le}, not {got}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "{got} has the wrong form",
    "value_error": "{error}",
}

_FORMS = {
    "digest": "sha256: and 64 lower-case hex digits",
    "from_env": "the name of an environment variable: letters, digits and _",
    "endpoint": "an address that begins with https://",
    "gpu": 'a device by its number or name, such as "0" or CUDA0',
}

_RATE_FIELD = re.compile(r"\.(rate|rate_per_key|quota)\.(requests|tokens)$")

_NO_SPEECH = (
    "speech is not generated: llama.cpp's own generation of it is experimental, and mullama does not use it",
    "declare task: chat, and let another program speak the text of its answers",
)
_SECRET_HINT = "{from_env: NAME} or {from_file: PATH}"


def explain(error: ValidationError, tree: JSONValue, at: tuple[str, ...], where: Where) -> Iterator[Problem]:
    """Yield a problem for each error of the value `tree`. `at` has the keys to it, `where` finds places."""
    for detail in error.errors(include_url=False):
        if _is_consequence(detail):
            continue
        loc = detail["loc"]
        path = _path(loc, tree, ".".join(at))
        # A name is no secret, also that of a header whose value is one.
        secret = loc[-1:] != ("[key]",) and matches((*at, *loc), SECRETS)
        message, hint = _words(detail, path, secret=secret)
        yield Problem(path, nearest(path, where), message, hint)


def _is_consequence(detail: Any) -> bool:
    """True for the error that a list is too short, if only its wrong entries were left out."""
    if detail["type"] != "too_short":
        return False
    return len(detail["input"]) >= int(detail["ctx"]["min_length"])


def _path(loc: Sequence[str | int], tree: JSONValue, path: str) -> str:
    """Return the dotted path, without the names of union members that pydantic adds."""
    value: Any = tree
    for index, part in enumerate(loc):
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            value, path = value[part], join(path, part)
        elif isinstance(value, Mapping) and part in value:
            value, path = value[str(part)], join(path, part)
        elif isinstance(value, Mapping) and index == len(loc) - 1 and part != "[key]":
            path = join(path, part)
    return path


def _words(detail: Any, path: str, *, secret: bool) -> tuple[str, str]:
    kind, given = detail["type"], detail["input"]
    if secret:
        return _secret_words(kind, path)
    context = {key: _bound_text(value) for key, value in detail.get("ctx", {}).items()} | {"got": describe(given)}
    if kind == "literal_error":
        if path.endswith(".task") and given == "speech":
            return _NO_SPEECH
        options = [a or b for a, b in _QUOTED.findall(str(context["expected"]))]
        context["expected"] = options[0] if len(options) == 1 else f"one of {', '.join(options)}"
        return _MESSAGES[kind].format(**context), _did_you_mean(given, options)
    if kind == "string_type" and _RATE_FIELD.search(path):
        return "expected a rate, such as 60/m, 200k/h or 5M/d", ""
    if kind == "missing":
        return _MESSAGES[kind], "for example builtin:tiny" if path.endswith(".from") else ""
    template = _MESSAGES.get(kind)
    if template is None:
        return str(detail["msg"]).replace("Input should be", "must be"), ""
    hint = getattr(context.get("error"), "hint", "") or _hint(kind, given, path)
    return template.format(**context), hint


def _hint(kind: str, given: object, path: str) -> str:
    if kind == "string_pattern_mismatch":
        return next((_FORMS[part] for part in reversed(path.split(".")) if part in _FORMS), "")
    if kind == "string_type" and isinstance(given, (bool, int, float)):
        return "put quotes around it"
    if kind in ("int_type", "float_type") and isinstance(given, str) and _NUMBER.fullmatch(given):
        return "remove the quotes"
    if kind == "bool_type" and str(given).lower() in ("yes", "on", "true", "1"):
        return "write true"
    if kind == "bool_type" and str(given).lower() in ("no", "off", "false", "0"):
        return "write false"
    if kind == "tuple_type" and isinstance(given, str):
        return "put brackets around it"
    return ""


def _bound_text(value: object) -> object:
    """Return a bound without a trailing .0: pydantic gives bounds as floats."""
    return f"{value:g}" if isinstance(value, float) else value


def _did_you_mean(given: object, options: Sequence[str]) -> str:
    close = suggest(given[:80], options) if isinstance(given, str) else ()
    return f"did you mean {' or '.join(close)}?" if close else ""


def _secret_words(kind: str, path: str) -> tuple[str, str]:
    """Return a message and hint without the value, which may be a secret that must not reach a log."""
    if kind == "model_type":
        return "expected a reference to a secret, not the secret itself", _SECRET_HINT
    if kind == "missing":
        return _MESSAGES[kind], _SECRET_HINT
    if kind == "bool_type":
        return "expected true or false", ""
    return "has the wrong form", _FORMS.get(path.rpartition(".")[2], _SECRET_HINT)


def describe(value: object) -> str:
    """Return a value for a message, shortened to one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case int() | float():
            return str(value)
        case Mapping():
            return "a map"
        case list() | tuple():
            return "a list"
        case _:
            return "something else"
