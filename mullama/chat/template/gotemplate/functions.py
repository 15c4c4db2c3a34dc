"""The functions of Go templates: Go's own, and those that Ollama adds."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_plus

from mullama.chat.template.fuel import bound_text
from mullama.chat.template.gotemplate.values import Missing, StructValue, is_true, to_json, to_text


class Failure(Exception):
    """A function got an argument that it cannot take; the message names it."""


_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<verb>[A-Za-z%])")


def equal(first: object, *others: object) -> bool:
    """Return True if the first equals any of the others; raise for values of different kinds."""
    if not others:
        raise Failure("eq needs at least two values")
    return any(_same(first, other) for other in others)


def _same(first: object, second: object) -> bool:
    if isinstance(first, Missing) or isinstance(second, Missing) or first is None or second is None:
        return not is_true(first) and not is_true(second)
    if _kind(first) != _kind(second):
        raise Failure(f"{_kind(first)} and {_kind(second)} cannot be compared")
    return first == second


def _kind(value: object) -> str:
    match value:
        case bool():
            return "a bool"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a text"
        case Mapping() | StructValue():
            return "a map"
        case _:
            return "a list"


def less(first: object, second: object) -> bool:
    """Compare two numbers or two texts."""
    first, second = ("" if isinstance(v, Missing) else v for v in (first, second))
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first < second
    raise Failure(f"{_kind(first)} and {_kind(second)} cannot be ordered")


def length(value: object) -> int:
    """Return the number of elements of a list or map, or of bytes of a text."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    if isinstance(value, Missing) or value is None:
        return 0
    raise Failure(f"{_kind(value)} has no length")


def index(value: object, *keys: object) -> object:
    """Return an element of a list by number or of a map by key; further keys apply to the result."""
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, Missing()) if isinstance(key, str) else Missing()
        elif isinstance(value, list | tuple) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(value):
                raise Failure(f"the index {key} is out of range")
            value = value[key]
        elif isinstance(value, str) and isinstance(key, int):
            octets = value.encode("utf-8", "replace")
            if not 0 <= key < len(octets):
                raise Failure(f"the index {key} is out of range")
            value = octets[key]
        elif isinstance(value, Missing):
            return value
        else:
            raise Failure(f"{_kind(value)} has no elements")
    return value


def cut(value: object, *bounds: object) -> object:
    """Return a part of a list or text, from the first bound to the second."""
    whole = [b for b in bounds if isinstance(b, int) and not isinstance(b, bool)]
    if len(whole) != len(bounds) or len(whole) > 2:
        raise Failure("slice needs whole numbers")
    if isinstance(value, Missing):
        value = ""
    if not isinstance(value, str | list | tuple):
        raise Failure(f"{_kind(value)} cannot be sliced")
    sliced = value.encode("utf-8", "replace") if isinstance(value, str) else value
    low, high = (*whole, *(0, len(sliced))[len(whole) :])
    if not 0 <= low <= high <= len(sliced):
        raise Failure(f"the bounds {low}:{high} are out of range")
    part = sliced[low:high]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else list(part)


def printf(form: object, *values: object) -> str:
    """Format with Go's verbs v s q d f g e x X t c, with flags, width and precision."""
    if not isinstance(form, str):
        raise Failure("printf needs a format")
    left = list(values)

    def one(found: re.Match[str]) -> str:
        if found["verb"] == "%":
            return "%"
        if not left:
            return f"%!{found['verb']}(MISSING)"
        return _formatted(found, left.pop(0))

    text = _VERB.sub(one, form)
    bound_text(len(text))
    return text if not left else f"{text}%!(EXTRA {', '.join(to_text(v) for v in left)})"


def _formatted(found: re.Match[str], value: object) -> str:
    width, flags, verb = int(found["width"] or 0), found["flags"], found["verb"]
    precision = found["precision"]
    if width > 1_000 or int(precision or 0) > 1_000:
        raise Failure("a width in printf is at most 1000")
    match verb:
        case "v" | "s":
            text = to_text(value)
            text = text if precision is None else text[: int(precision or 0)]
        case "q":
            text = quoted(to_text(value))
        case "d" | "c" | "x" | "X" if isinstance(value, int):
            text = chr(value) if verb == "c" and 0 <= value < 0x110000 else format(value, verb if verb != "c" else "d")
        case "x" | "X" if isinstance(value, str):
            text = value.encode("utf-8", "replace").hex()
            text = text.upper() if verb == "X" else text
        case "f" | "g" | "e" if isinstance(value, int | float):
            text = format(float(value), f".{precision or 6}{verb}") if verb != "g" else to_text(float(value))
        case "t" if isinstance(value, bool):
            text = to_text(value)
        case _:
            return f"%!{verb}({_kind(value)}={to_text(value)})"
    if "+" in flags and verb in "dfge" and not text.startswith("-"):
        text = "+" + text
    if "0" in flags and "-" not in flags and verb in "dfgexX":
        return text.zfill(width)
    return text.ljust(width) if "-" in flags else text.rjust(width)


def quoted(text: str) -> str:
    """Return a text as Go source code quotes it."""
    names = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    return '"' + "".join(names.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text) + '"'


def print_(*values: object) -> str:
    """Join the values, with a space between two that are both not text."""
    made = ""
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            made += " "
        made += to_text(value)
        bound_text(len(made))
    return made


def println(*values: object) -> str:
    return " ".join(to_text(value) for value in values) + "\n"


def typescript(value: object) -> str:
    """Return the TypeScript type of a JSON schema."""
    schema = value.json if isinstance(value, StructValue) else value
    if isinstance(schema, Mapping):
        if isinstance(options := schema.get("anyOf"), list | tuple):
            return " | ".join(typescript(option) for option in options)
        kind = schema.get("type")
    else:
        kind = schema
    kinds = [kind] if isinstance(kind, str) else list(kind) if isinstance(kind, list | tuple) else []
    names = {
        "string": "string", "number": "number", "integer": "number", "boolean": "boolean", "array": "any[]",
        "object": "Record<string, any>", "null": "null",
    }  # fmt: skip
    return " | ".join(names.get(str(item), "any") for item in kinds) or "any"


def functions(now: float) -> Mapping[str, Callable[..., object]]:
    """Return all functions by name; the evaluator handles `and` and `or`, because they stop early."""
    today = datetime.fromtimestamp(now, tz=UTC)
    return {
        "eq": equal,
        "ne": lambda first, second: not _same(first, second),
        "lt": less,
        "le": lambda first, second: not less(second, first),
        "gt": lambda first, second: less(second, first),
        "ge": lambda first, second: not less(first, second),
        "not": lambda value: not is_true(value),
        "len": length,
        "index": index,
        "slice": cut,
        "printf": printf,
        "print": print_,
        "println": println,
        "html": lambda *values: html.escape(print_(*values)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        "js": lambda *values: to_json(print_(*values))[1:-1].replace("'", "\\'"),
        "urlquery": lambda *values: quote_plus(print_(*values)),
        "json": to_json,
        "currentDate": lambda *_: today.strftime("%Y-%m-%d"),
        "yesterdayDate": lambda *_: (today - timedelta(days=1)).strftime("%Y-%m-%d"),
        "toTypeScriptType": typescript,
    }
