"""Checks a client's JSON schema against the supported keywords and rewrites it to the form that is enforced.

An unsupported keyword is an error for a response format, and a warning for a tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mullama.errors import Invalid
from mullama.names import JSONValue

MAX_TEXT: Final = 64 * 1024
MAX_DEPTH: Final = 32
MAX_NODES: Final = 2_000
MAX_REPEAT: Final = 1_000

ENFORCED = frozenset((
    "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMaximum",
    "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems",
    "minLength", "minProperties", "minimum", "multipleOf", "oneOf", "pattern", "patternProperties",
    "prefixItems", "properties", "required", "type",
))  # fmt: skip
UNENFORCED = frozenset((
    "$dynamicRef", "$recursiveRef", "contains", "dependencies", "dependentRequired", "dependentSchemas",
    "else", "if", "maxContains", "minContains", "not", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties", "uniqueItems",
))  # fmt: skip
FORMATS = frozenset((
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid",
))  # fmt: skip
TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COMBINERS = ("allOf", "anyOf", "oneOf", "$ref")
_DEFINITIONS = ("$defs", "definitions")
_REPEAT = re.compile(r"\{(\d*),?(\d*)\}")
_BEYOND_REGULAR = re.compile(r"\(\?(?:[=!]|<[=!]|>|P=|\()|\\[1-9bBAZzGkK]|[*+?}]\+")

Schema = dict[str, JSONValue]


def enforceable(schema: JSONValue, *, what: str, strict: bool, field: str) -> tuple[JSONValue, tuple[str, ...]]:
    """Return the schema to enforce, and warnings for the parts that are not enforced.

    strict: raise `Invalid` instead of a warning. what: the name of the schema in messages, such as "response_format" or
    "the tool 'f'". field: the field of the request.
    """
    check = _Check(what=what, strict=strict, field=field, root=schema)
    check.bounds(schema)
    return check.schema(schema, "#", 0, closed=True), tuple(check.remarks)


class _Check:
    """One walk over one schema."""

    def __init__(self, *, what: str, strict: bool, field: str, root: JSONValue) -> None:
        self.remarks: list[str] = []
        self._what = what
        self._strict = strict
        self._field = field
        self._root = root

    def bounds(self, schema: JSONValue) -> None:
        """Refuse a schema that is too large to walk."""
        if not isinstance(schema, Mapping | bool):
            raise self._invalid("a JSON schema must be an object", "#")
        if len(json.dumps(schema, ensure_ascii=False, default=str)) > MAX_TEXT:
            raise self._invalid(f"the schema has more than {MAX_TEXT} characters", "#")
        for nodes, (depth, _) in enumerate(_walk(schema)):
            if nodes >= MAX_NODES:
                raise self._invalid(f"the schema has more than {MAX_NODES} parts", "#")
            if depth > 2 * MAX_DEPTH:
                raise self._invalid(f"the schema is nested deeper than {MAX_DEPTH}", "#")

    def schema(self, schema: JSONValue, path: str, depth: int, *, closed: bool) -> JSONValue:
        """Return one schema.

        closed: objects that list properties allow no others, unless the schema allows them.
        """
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            raise self._invalid("a schema must be an object, true or false", path)
        if depth > MAX_DEPTH:
            raise self._invalid(f"the schema is nested deeper than {MAX_DEPTH}", path)
        made: Schema = {}
        for key, value in self._modern(schema, path).items():
            if key in ENFORCED:
                self._keyword(made, key, value, path, depth, closed=closed)
            elif key in _DEFINITIONS and isinstance(value, Mapping):
                made[key] = {
                    name: self.schema(part, f"{path}/{key}/{name}", depth + 1, closed=True)
                    for name, part in value.items()
                }
            elif key in UNENFORCED and not (key == "uniqueItems" and value is False):
                self._leave_out(key, f"{path}/{key}")
        self._settle(made, path, closed=closed)
        return made

    def _modern(self, schema: Mapping[str, JSONValue], path: str) -> Schema:
        """Rewrite the spellings of older drafts and of OpenAPI to the current draft."""
        made = dict(schema)
        if isinstance(made.get("items"), list | tuple):
            made["prefixItems"] = made.pop("items")
            if "additionalItems" in made:
                made["items"] = made.pop("additionalItems")
        for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(flag := made.get(bound), bool):
                del made[bound]
                if flag and limit in made:
                    made[bound] = made.pop(limit)
        if made.get("nullable") is True and isinstance(kind := made.get("type"), str):
            made["type"] = [kind, "null"]
        simple = not any(key in made for key in _COMBINERS)
        if made.get("unevaluatedProperties") is False and simple:
            del made["unevaluatedProperties"]
            made.setdefault("additionalProperties", False)
        return made

    def _keyword(self, made: Schema, key: str, value: JSONValue, path: str, depth: int, *, closed: bool) -> None:
        here = f"{path}/{key}"
        match key:
            case "properties" | "patternProperties":
                made[key] = self._members(key, value, here, depth)
            case "anyOf" | "oneOf" | "allOf":
                self._branches(made, key, value, here, depth, closed=closed)
            case "prefixItems":
                made[key] = [
                    self.schema(part, f"{here}/{index}", depth + 1, closed=True)
                    for index, part in enumerate(self._list(value, here))
                ]
            case "items" | "additionalProperties":
                made[key] = self.schema(value, here, depth + 1, closed=True)
            case "$ref":
                made[key] = self._reference(value, here)
            case "pattern":
                self._pattern(made, value, here)
            case "format":
                if value in FORMATS:
                    made[key] = value
                else:
                    self._leave_out(f"format {value!r}", here)
            case "required" | "enum":
                made[key] = list(self._list(value, here))
            case "type":
                made[key] = self._type(value, here)
            case _ if key in _COUNTS:
                self._count(made, key, value, here)
            case _ if key in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise self._invalid("expected a number", here)
            case _:
                made[key] = value

    def _members(self, key: str, value: JSONValue, here: str, depth: int) -> Schema:
        if not isinstance(value, Mapping):
            raise self._invalid("expected an object of schemas", here)
        made: Schema = {}
        for name, part in value.items():
            if key == "patternProperties" and (reason := irregular(str(name))):
                self._leave_out(f"the pattern {name!r} ({reason})", here)
                continue
            made[str(name)] = self.schema(part, f"{here}/{name}", depth + 1, closed=True)
        return made

    def _branches(self, made: Schema, key: str, value: JSONValue, here: str, depth: int, *, closed: bool) -> None:
        parts = self._list(value, here)
        if not parts:
            raise self._invalid("expected at least one schema", here)
        alone = key != "allOf" and not any(name in made for name in ("properties", "additionalProperties"))
        checked = [
            self.schema(part, f"{here}/{index}", depth + 1, closed=closed and alone) for index, part in enumerate(parts)
        ]
        if key == "oneOf":
            if not _disjoint(parts) and len(parts) > 1:
                self._leave_out("oneOf with branches that can match together", here, instead=" (taken as anyOf)")
            key = "anyOf"
            if key in made:
                made["allOf"] = [*self._list(made.get("allOf", ()), here), {key: checked}]
                return
        made[key] = checked

    def _reference(self, value: JSONValue, here: str) -> str:
        """Return a reference into this schema that reaches a schema after a bounded number of steps."""
        target, seen = value, set[str]()
        while True:
            if not isinstance(target, str) or not target.startswith("#"):
                raise self._invalid(f"only references into the same schema are followed, not {target!r}", here)
            if target in seen:
                raise self._invalid(f"the reference {value!r} is circular", here)
            seen.add(target)
            found = self._resolve(target, here)
            if not isinstance(found, Mapping) or set(found) != {"$ref"}:
                return str(value)
            target = found["$ref"]

    def _resolve(self, reference: str, here: str) -> JSONValue:
        found = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list | tuple) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise self._invalid(f"the reference {reference!r} has no target", here)
        return found

    def _pattern(self, made: Schema, value: JSONValue, here: str) -> None:
        if not isinstance(value, str):
            raise self._invalid("expected a string", here)
        if reason := irregular(value):
            self._leave_out(f"the pattern {value!r} ({reason})", here)
        else:
            made["pattern"] = value

    def _count(self, made: Schema, key: str, value: JSONValue, here: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
            raise self._invalid("expected a whole number of 0 or more", here)
        if value > MAX_REPEAT:
            self._leave_out(f"a {key} over {MAX_REPEAT}", here)
        else:
            made[key] = int(value)

    def _type(self, value: JSONValue, here: str) -> JSONValue:
        kinds = [value] if isinstance(value, str) else list(self._list(value, here))
        if not kinds or any(kind not in TYPES for kind in kinds):
            raise self._invalid(f"{value!r} is not a type", here)
        return value if isinstance(value, str) else kinds

    def _settle(self, made: Schema, path: str, *, closed: bool) -> None:
        """Handle keywords that depend on each other."""
        properties = made.get("properties")
        listed = list(properties) if isinstance(properties, Mapping) else []
        required = made.get("required")
        needed = required if isinstance(required, list) else []
        for key in ("minProperties", "maxProperties"):
            if key in made and not set(listed) <= set(needed):
                del made[key]
                self._leave_out(f"{key} together with optional properties", f"{path}/{key}")
        combined = any(key in made for key in _COMBINERS) or "patternProperties" in made
        if closed and not combined and isinstance(properties, Mapping) and set(needed) <= set(listed):
            made.setdefault("additionalProperties", False)

    def _list(self, value: JSONValue, here: str) -> Sequence[JSONValue]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._invalid("expected a list", here)
        return value

    def _leave_out(self, thing: str, path: str, instead: str = "") -> None:
        if self._strict:
            raise self._invalid(f"{thing} cannot be enforced", path)
        self.remarks.append(f"{self._what}: {thing} at {path} is not enforced{instead}")

    def _invalid(self, message: str, path: str) -> Invalid:
        return Invalid(
            f"{self._what}: {message} (at {path})",
            hint="a schema uses the keywords " + ", ".join(sorted(ENFORCED)),
            field=self._field,
        )


def irregular(pattern: str) -> str:
    """Return the reason why a regular expression cannot be enforced; "" when it can."""
    if len(pattern) > 1024:
        return "longer than 1024 characters"
    if _BEYOND_REGULAR.search(pattern.replace("\\\\", "")):
        return "look-around, back references and word boundaries are not regular"
    for low, high in _REPEAT.findall(pattern):
        if max(int(low or 0), int(high or 0)) > MAX_REPEAT:
            return f"a repetition over {MAX_REPEAT}"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return "not a regular expression"
    return ""


def _walk(schema: JSONValue) -> Iterator[tuple[int, JSONValue]]:
    stack: list[tuple[int, JSONValue]] = [(0, schema)]
    while stack:
        depth, value = stack.pop()
        yield depth, value
        if isinstance(value, Mapping):
            stack.extend((depth + 1, part) for part in value.values())
        elif isinstance(value, list | tuple):
            stack.extend((depth + 1, part) for part in value)


def _disjoint(branches: Sequence[JSONValue]) -> bool:
    """Return True if no value can match two branches: by type, or by a required property with different constants."""
    marks = [_marks(branch) for branch in branches]
    for index, first in enumerate(marks):
        for second in marks[index + 1 :]:
            shared = first.keys() & second.keys()
            if not any(first[name].isdisjoint(second[name]) for name in shared):
                return False
    return True


def _marks(branch: JSONValue) -> dict[str, frozenset[str]]:
    """Return the marks of a branch: its types under "", and the constants of required properties under their names."""
    if not isinstance(branch, Mapping):
        return {}
    made: dict[str, frozenset[str]] = {}
    kind = branch.get("type")
    if isinstance(kind, str | list | tuple):
        kinds = {kind} if isinstance(kind, str) else {str(item) for item in kind}
        made[""] = frozenset(kinds | ({"integer"} if "number" in kinds else set()))
    made |= _constants("=", branch)
    required, properties = branch.get("required"), branch.get("properties")
    if isinstance(properties, Mapping) and isinstance(required, list | tuple):
        for name, part in properties.items():
            if name in required and isinstance(part, Mapping):
                made |= _constants(f".{name}", part)
    return made


def _constants(label: str, schema: Mapping[str, JSONValue]) -> dict[str, frozenset[str]]:
    if "const" in schema:
        return {label: frozenset((json.dumps(schema["const"]),))}
    if isinstance(options := schema.get("enum"), list | tuple):
        return {label: frozenset(json.dumps(option) for option in options)}
    return {}
