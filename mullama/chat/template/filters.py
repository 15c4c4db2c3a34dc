"""The filters and tests of chat templates: Jinja's own where they are bounded, replacements elsewhere.

Every filter is charged for the weight of its input before it runs, and returns lists, never generators.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any

from jinja2 import filters, pass_context
from jinja2.runtime import Context, Undefined
from jinja2.tests import TESTS

from mullama.chat.template.fuel import MAX_ITEMS, Fuel, bound_items, bound_text, weigh

FUEL = "__fuel__"
# A joint in its escaped form (see `chat/token_texts.py`), which must stay one character; an even number of backslashes
# before it is text.
_JOINTS = re.compile(r"(?<!\\)((?:\\\\)*)\\u(e0[0-9a-e][0-9a-f])")
PADDING = 1_000  # the widest field that a template may pad to

Filter = Callable[..., Any]

# Jinja's filters that build nothing larger than their input; those it passes a context, an environment or
# an evaluation context keep that argument.
HARMLESS = (
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "forceescape", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "reverse", "safe", "select", "selectattr", "sort", "string", "title", "trim",
    "truncate", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip
# The cost of these does not depend on the depth of the value: nothing, or one step for each element.
AT_ONCE = frozenset(("length", "count", "first", "last", "default", "d", "attr"))
BY_ELEMENT = frozenset((
    "list", "reverse", "map", "select", "reject", "selectattr", "rejectattr", "items", "dictsort", "batch", "slice",
))  # fmt: skip
# Ticks for each 16 nodes or 1024 characters of the input, where it is not 2. A tick takes some microseconds at most.
COSTS = {
    "batch": 8, "dictsort": 8, "e": 8, "escape": 8, "forceescape": 8, "format": 8, "from_json": 8, "fromjson": 8,
    "groupby": 32, "indent": 8, "items": 4, "join": 8, "list": 2, "map": 32, "max": 8, "min": 8, "reject": 16,
    "rejectattr": 16, "replace": 2, "reverse": 2, "select": 16, "selectattr": 16, "slice": 8, "sort": 16, "string": 8,
    "sum": 16, "title": 128, "tojson": 8, "truncate": 8, "unique": 16, "urlencode": 512, "wordcount": 64,
    "wordwrap": 64,
}  # fmt: skip
# Filters that read an attribute of each element: of the keyword `attribute`, or of the argument at this place.
ATTRIBUTES = {
    "groupby": 0, "join": 1, "map": -1, "max": 1, "min": 1, "rejectattr": 0, "selectattr": 0, "sort": 2, "sum": 0,
    "unique": 1,
}  # fmt: skip
TEST_NAMES = tuple(name for name in TESTS if name not in ("callable", "filter", "test"))
COMPARING = ("eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">",
    "greaterthan", "ge", ">=", "in", "sameas")  # fmt: skip


def fuel_of(context: Context) -> Fuel:
    """Return the budget of the rendering that `context` belongs to; a template cannot replace it."""
    fuel = context.parent[FUEL]
    if not isinstance(fuel, Fuel):
        raise TypeError(f"a template cannot set {FUEL}")
    return fuel


def charge(fuel: Fuel, *values: object) -> None:
    """Burn one tick, and more for values that take long to walk."""
    fuel.burn(1 + sum(weigh(value) >> 3 for value in values))


def concrete(value: object) -> object:
    """Return a bounded list for a generator, and any other value unchanged."""
    if isinstance(value, Iterator):
        listed = list(islice(value, MAX_ITEMS + 1))
        bound_items(len(listed))
        return listed
    return value


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON text that keeps the order of keys and escapes nothing for HTML."""
    width = indent if isinstance(indent, int) else len(indent or "")
    if width > 16:
        raise ValueError("tojson: indent is at most 16")
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return _JOINTS.sub(lambda found: found[1] + chr(int(found[2], 16)), text) if ensure_ascii else text


def replace(value: object, old: str, new: str, count: int | None = None) -> str:
    """Replace `old` by `new`; the length of the result is checked before it is built."""
    text, old, new = str(value), str(old), str(new)
    hits = text.count(old)
    hits = hits if count is None or count < 0 else min(hits, count)
    bound_text(len(text) + hits * max(0, len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


def join(value: Iterable[object], d: str = "", attribute: str | None = None) -> str:
    """Join the elements (or one attribute of each) with `d`."""
    if attribute is not None:
        value = [item.get(attribute, "") if isinstance(item, Mapping) else "" for item in value]
    parts = [str(item) for item in islice(value, MAX_ITEMS)]
    bound_text(sum(map(len, parts)) + len(d) * len(parts))
    return str(d).join(parts)


def indent(value: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Indent the lines after the first, or all lines."""
    pad = " " * _width(width) if isinstance(width, int) else width[:PADDING]
    lines = str(value).split("\n")
    bound_text(sum(map(len, lines)) + len(lines) * (len(pad) + 1))
    moved = [pad + line if line or blank else line for line in lines]
    return "\n".join(moved if first else [lines[0], *moved[1:]])


def center(value: object, width: int = 80) -> str:
    return str(value).center(_width(width))


def format_(value: object, *args: object, **kwargs: object) -> str:
    """Format in printf style with bounded widths."""
    return percent(str(value), kwargs or args)


def percent(text: str, values: object) -> str:
    """Return `text % values`; raise for a dynamic width or one over the bound."""
    digits = 0
    for char in text:
        digits = digits + 1 if char.isdigit() else 0
        if digits > 3 or char == "*":
            raise ValueError("a width in a format is at most 999")
    bound_text(len(text) + text.count("%") * (PADDING + 64 * weigh(values)))
    return text % values


def round_(value: float, precision: int = 0, method: str = "common") -> float:
    if not -20 <= precision <= 20:
        raise ValueError("round: precision is between -20 and 20")
    return filters.do_round(value, precision, method)  # type: ignore[arg-type]


def sum_(value: Iterable[float], attribute: str | None = None, start: float = 0) -> float:
    """Return the sum of numbers. Lists are refused, because adding them one by one is quadratic."""
    items: list[Any] = [item[attribute] if attribute else item for item in value]  # type: ignore[index]
    total: float = start + sum(item + 0 for item in items)
    return total


def batch(value: Iterable[object], linecount: int, fill_with: object = None) -> list[list[object]]:
    bound_items(linecount)
    return list(filters.do_batch(value, linecount, fill_with))


def slice_(value: Iterable[object], slices: int, fill_with: object = None) -> list[list[object]]:
    bound_items(slices)
    return list(filters.do_slice(value, slices, fill_with))


def wordwrap(value: object, width: int = 79, *_: object, **__: object) -> str:
    """Wrap text to lines of at most `width` characters, at spaces."""
    lines: list[str] = []
    for line in str(value).split("\n"):
        current = ""
        for word in line.split(" "):
            if current and len(current) + 1 + len(word) > max(1, width):
                lines.append(current)
                current = word
            else:
                current = f"{current} {word}" if current else word
        lines.append(current)
    return "\n".join(lines)


def from_json(value: object) -> object:
    return json.loads(str(value))


def _width(width: int) -> int:
    if width > PADDING:
        raise ValueError(f"a width is at most {PADDING}")
    return width


def _charged(name: str, function: Filter) -> Filter:
    """Wrap a filter so that it pays for its work; it gets the context if it wants it."""
    wants = getattr(function, "jinja_pass_arg", None)
    kind = wants.name if wants is not None else ""

    @pass_context
    def filter_(context: Context, value: object, *args: object, **kwargs: object) -> object:
        fuel = fuel_of(context)
        value = concrete(value)
        _pay(fuel, name, value, args, kwargs)
        match kind:
            case "context":
                result = function(context, value, *args, **kwargs)
            case "eval_context":
                result = function(context.eval_ctx, value, *args, **kwargs)
            case "environment":
                result = function(context.environment, value, *args, **kwargs)
            case _:
                result = function(value, *args, **kwargs)
        result = concrete(result)
        if name not in AT_ONCE and name not in BY_ELEMENT and not isinstance(result, str | Undefined):
            fuel.burn(weigh(result) >> 3)
        return result

    return filter_


def _pay(fuel: Fuel, name: str, value: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    """Burn the cost of a filter before it runs."""
    if name in AT_ONCE:
        fuel.burn(1)
        return
    nodes = 0
    if name in BY_ELEMENT and isinstance(value, Sized):
        bound_items(len(value))
        nodes = len(value)
    else:
        nodes = weigh(value)
    fuel.burn(1 + (nodes * COSTS.get(name, 2) >> 4) + _lookups(name, value, args, kwargs))
    charge(fuel, *args, *kwargs.values())


def _lookups(name: str, value: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> int:
    """Return the ticks to look up an attribute in each element: few in a mapping, many where it is refused."""
    place = ATTRIBUTES.get(name)
    attribute = kwargs.get("attribute", args[place] if place is not None and 0 <= place < len(args) else None)
    if attribute is None or not isinstance(value, Sized) or isinstance(value, str):
        return 0
    steps = 1 + str(attribute)[:PADDING].count(".") + str(attribute)[:PADDING].count(",")
    each = 1 if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value) else 8
    return len(value) * steps * each


def table() -> dict[str, Filter]:
    """Return all filters by name, each charged."""
    bounded: dict[str, Filter] = {
        "tojson": to_json, "replace": replace, "join": join, "indent": indent, "center": center,
        "format": format_, "round": round_, "batch": batch, "slice": slice_, "wordwrap": wordwrap,
        "from_json": from_json, "fromjson": from_json, "sum": sum_,
    }  # fmt: skip
    harmless = {name: filters.FILTERS[name] for name in HARMLESS}
    return {name: _charged(name, function) for name, function in {**harmless, **bounded}.items()}


def _charged_test(function: Filter) -> Filter:
    @pass_context
    def test(context: Context, value: object, *args: object) -> object:
        charge(fuel_of(context), value, *args)
        return function(value, *args)

    return test


def tests() -> dict[str, Filter]:
    """Return all tests by name; those that compare are charged."""
    chosen: dict[str, Any] = {name: TESTS[name] for name in TEST_NAMES}
    return {name: _charged_test(function) if name in COMPARING else function for name, function in chosen.items()}
