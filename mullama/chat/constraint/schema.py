"""Checks a client's JSON schema against the supported keywords and rewrites it to the form that is enforced.

A schema is enforced as a whole: `$ref`, `allOf`, `anyOf`, `oneOf` and the keywords beside them become one schema, or
alternatives of which each is complete, so that the properties have one order and no others are allowed. A reference to
a definition stays a reference where nothing is beside it.

An unsupported keyword is an error for a response format, and a warning for a tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mullama.chat.constraint.merge import Merged, Part, Place, Unsatisfiable
from mullama.chat.constraint.one_of import exclusive
from mullama.chat.constraint.work import MAX_WORK, pattern_work
from mullama.chat.schema_types import MAX_DEPTH, TYPES, SchemaTypes
from mullama.errors import Invalid
from mullama.names import JSONValue

MAX_TEXT: Final = 64 * 1024
MAX_NODES: Final = 2_000
MAX_ALTERNATIVES: Final = 256
MAX_WRITTEN: Final = 4 * MAX_NODES  # parts of the rewritten schema, which repeats merged definitions
MAX_REPEAT: Final = 2_000
"""Most repetitions of one part of a text, as in llama.cpp. llguidance keeps 9 states for each, of 50,000 in all."""
_MAX_MEMBERS: Final = 1_000_000  # of an array or an object: no answer has more
_MAX_LENGTHS: Final = 5_000  # characters of the bounds of all texts of a schema together
_MAX_PATTERN: Final = 1024
_MAX_LENGTH_OF_PATTERN: Final = 32  # beyond, llguidance often cannot decide if a pattern has a text of this length

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
# By JSON Schema, any other format is an annotation.
FORMATS = frozenset((
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid",
))  # fmt: skip
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COMBINERS = ("allOf", "anyOf", "oneOf", "$ref")
_REPEAT = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<low>\d*)(?:,(?P<high>\d*))?\}", re.DOTALL
)  # beside repetitions, escapes and sets, which hold none
_BEYOND_REGULAR = re.compile(r"\(\?(?:[=!]|<[=!]|>|P=|\()|\\[1-9bBAZzGkK]|[*+?}]\+")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")

Schema = dict[str, JSONValue]
# The keywords of one value that do not combine schemas, from one place each.
Alternative = tuple[Place, ...]


def enforceable(schema: JSONValue, *, what: str, strict: bool, field: str) -> tuple[JSONValue, tuple[str, ...]]:
    """Return the schema to enforce, and warnings for the parts that are not enforced.

    strict: raise `Invalid` instead of a warning. what: the name of the schema in messages, such as "response_format" or
    "the tool 'f'". field: the field of the request.
    """
    rewriting = _Rewriting(what=what, strict=strict, field=field, root=schema)
    rewriting.bounds(schema)
    return rewriting.whole(), tuple(rewriting.remarks)


class _Rewriting:
    """One walk over one schema."""

    def __init__(self, *, what: str, strict: bool, field: str, root: JSONValue) -> None:
        self.remarks: dict[str, None] = {}
        self._what = what
        self._strict = strict
        self._field = field
        self._root = root
        self._types = SchemaTypes(root, implied=False)
        self._names: dict[int, str] = {}
        self._waiting: list[tuple[str, Place]] = []
        self._written = 0
        self._lengths: set[int] = set()

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

    def whole(self) -> JSONValue:
        """Return the complete schema with the definitions that it refers to."""
        try:
            made = self._schema(Place(self._root, "#"), 0)
        except Unsatisfiable as error:
            raise self._invalid(f"no value fits: {error.reason}", error.path) from error
        definitions: Schema = {}
        while self._waiting:
            name, place = self._waiting.pop()
            try:
                definitions[name] = self._schema(place, 0)
            except Unsatisfiable:
                definitions[name] = False
        if not definitions or not isinstance(made, dict):
            return made
        return {**made, "$defs": definitions}

    def _schema(self, place: Place, depth: int) -> JSONValue:
        return self._all_of((place,), depth)

    def _all_of(self, places: Sequence[Place], depth: int) -> JSONValue:
        """Return the schema of a value that fits all of these. Raises `Unsatisfiable` when no value does."""
        if depth > MAX_DEPTH:
            raise self._invalid(f"the schema is nested deeper than {MAX_DEPTH}", places[0].path)
        self._written += 1
        if self._written > MAX_WRITTEN:
            raise self._invalid(f"with its references the schema has more than {MAX_WRITTEN} parts", "#")
        if len(places) == 1:
            alone = self._alone(places[0], depth)
            if alone is not None:
                return alone
        alternatives: list[Alternative] = [()]
        for place in places:
            alternatives = self._product(alternatives, self._alternatives(place, (), depth), place.path)
        return self._one_of_them([self._merged(one, places[0].path, depth) for one in alternatives])

    def _alone(self, place: Place, depth: int) -> JSONValue:
        """Return a schema that is only a boolean, a reference, or one combiner; None for any other."""
        if not isinstance(place.schema, Mapping):
            if place.schema is True:
                return True
            if place.schema is False:
                raise Unsatisfiable("the schema is false", place.path)
            raise self._invalid("a schema must be an object, true or false", place.path)
        keywords = self._modern(place)
        present = [key for key in keywords if key in ENFORCED or key in UNENFORCED]
        if len(present) != 1 or present[0] not in _COMBINERS:
            return None
        key = present[0]
        if key == "$ref":
            return {"$ref": self._definition(keywords[key], place.at(key))}
        branches = self._branches(keywords, key, place)
        if key == "allOf":
            return self._all_of(branches, depth + 1)
        if key == "oneOf":
            described = [self._alternatives(branch, (), depth) for branch in branches]
            self._check_one_of(described, place)
        return self._one_of_them([self._attempt(branch, depth + 1) for branch in branches])

    def _attempt(self, place: Place, depth: int) -> JSONValue | Unsatisfiable:
        try:
            return self._schema(place, depth)
        except Unsatisfiable as error:
            return error

    def _one_of_them(self, results: Sequence[JSONValue | Unsatisfiable]) -> JSONValue:
        """Return the alternatives that a value can fit, as one schema."""
        fits = [one for one in results if not isinstance(one, Unsatisfiable)]
        if not fits:
            raise next(one for one in results if isinstance(one, Unsatisfiable))
        return fits[0] if len(fits) == 1 else {"anyOf": fits}

    def _alternatives(self, place: Place, within: tuple[int, ...], depth: int) -> list[Alternative]:
        """Return the alternatives of a value, without combiners.

        within: the identities of the references that are being followed.
        """
        if not isinstance(place.schema, Mapping):
            if place.schema is True:
                return [()]
            if place.schema is False:
                return [(Place({"enum": []}, place.path),)]
            raise self._invalid("a schema must be an object, true or false", place.path)
        if depth > MAX_DEPTH:
            raise self._invalid(f"the schema is nested deeper than {MAX_DEPTH}", place.path)
        keywords = self._modern(place)
        made: list[Alternative] = [()]
        if "$ref" in keywords:
            target = self._target(keywords["$ref"], place.at("$ref"))
            if id(target.schema) in within:
                raise self._invalid(f"the reference {keywords['$ref']!r} is circular", place.at("$ref"))
            made = self._alternatives(target, (*within, id(target.schema)), depth + 1)
        if "allOf" in keywords:
            for part in self._branches(keywords, "allOf", place):
                made = self._product(made, self._alternatives(part, within, depth + 1), place.path)
        own = {key: value for key, value in keywords.items() if key not in _COMBINERS}
        beside = (Place(own, place.path),)
        made = [beside + one if _first(keywords) else one + beside for one in made]
        for key in ("anyOf", "oneOf"):
            if key in keywords:
                branches = self._branches(keywords, key, place)
                described = [self._alternatives(branch, within, depth + 1) for branch in branches]
                if key == "oneOf":
                    self._check_one_of([[beside + one for one in branch] for branch in described], place)
                made = self._product(made, [one for branch in described for one in branch], place.at(key))
        return made

    def _product(self, some: list[Alternative], others: list[Alternative], path: str) -> list[Alternative]:
        if len(some) * len(others) > MAX_ALTERNATIVES:
            raise self._invalid(f"the branches beside each other have more than {MAX_ALTERNATIVES} combinations", path)
        return [one + other for one in some for other in others]

    def _branches(self, keywords: Schema, key: str, place: Place) -> list[Place]:
        parts = self._list(keywords[key], place.at(key))
        if not parts:
            raise self._invalid("expected at least one schema", place.at(key))
        return [Place(part, f"{place.at(key)}/{index}") for index, part in enumerate(parts)]

    def _check_one_of(self, branches: Sequence[Sequence[Alternative]], place: Place) -> None:
        """Report a `oneOf` of which a value might match two branches, because it is enforced as `anyOf`."""
        if not exclusive(branches, self._types):
            thing = "oneOf with branches that can match together"
            self._leave_out(thing, place.at("oneOf"), instead=" (taken as anyOf)")

    def _merged(self, alternative: Alternative, path: str, depth: int) -> JSONValue | Unsatisfiable:
        """Return one alternative as one schema."""
        merged = Merged(path)
        try:
            for place in alternative:
                assert isinstance(place.schema, Mapping)
                part = merged.begin()
                for key, value in place.schema.items():
                    self._keyword(merged, part, key, value, place)
            return self._built(merged, depth)
        except Unsatisfiable as error:
            return error

    def _built(self, merged: Merged, depth: int) -> JSONValue:
        """Return the schema of merged keywords, with the schemas of the members."""
        made = merged.scalars()
        self._limit_length(merged, made)
        self._write_object(merged, made, depth)
        if prefix := merged.prefix():
            made["prefixItems"] = [self._optional(places, depth) for places in prefix]
        if items := merged.items():
            made["items"] = self._optional(items, depth)
        return made

    def _limit_length(self, merged: Merged, made: Schema) -> None:
        """Loosen a least length that cannot be decided beside a pattern."""
        most, low = _MAX_LENGTH_OF_PATTERN, made.get("minLength")
        if isinstance(low, int) and low > most and not made.keys().isdisjoint(("pattern", "format")):
            made["minLength"] = most
            self._loosen(f"minLength {low} beside a pattern", merged.where("minLength"), f"enforced as {most}")

    def _write_object(self, merged: Merged, made: Schema, depth: int) -> None:
        """Write the keywords of an object. Without `enum`, only named properties are allowed by default."""
        if additional := merged.additional():
            made["additionalProperties"] = self._optional(additional, depth)
        patterns = {pattern: self._optional(places, depth) for pattern, places in merged.patterns()}
        if patterns := {pattern: part for pattern, part in patterns.items() if part is not False}:
            made["patternProperties"] = patterns
        implied = merged.lists_properties and not patterns and "enum" not in made
        if not additional and (merged.closed or implied):
            made["additionalProperties"] = False
        properties: Schema = {}
        for name, places in merged.properties():
            if name in merged.required:
                properties[name] = self._required(places, merged.required[name], name, depth)
            elif (part := self._optional(places, depth)) is not False:
                properties[name] = part
        if properties or merged.lists_properties:
            made["properties"] = properties
        if merged.required:
            made["required"] = list(merged.required)
        if not properties.keys() <= merged.required.keys():
            for key in ("minProperties", "maxProperties"):
                if made.pop(key, None) is not None:
                    self._leave_out(f"{key} together with optional properties", merged.where(key))

    def _required(self, places: Sequence[Place], path: str, name: str, depth: int) -> JSONValue:
        """Return the schema of a required property."""
        if any(place.schema is False for place in places):
            raise Unsatisfiable(f"{name!r} is required, but the schema does not allow it", path)
        return self._all_of(places, depth + 1) if places else True

    def _optional(self, places: Sequence[Place], depth: int) -> JSONValue:
        """Return the schema of a value that may be absent; False when no value fits."""
        if not places:
            return True
        try:
            return self._all_of(places, depth + 1)
        except Unsatisfiable:
            return False

    def _modern(self, place: Place) -> Schema:
        """Rewrite the spellings of older drafts and of OpenAPI to the current draft."""
        assert isinstance(place.schema, Mapping)
        made = {str(key): value for key, value in place.schema.items()}
        if isinstance(made.get("items"), list | tuple):
            made["prefixItems"] = made.pop("items")
            if "additionalItems" in made:
                made["items"] = made.pop("additionalItems")
        for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(flag := made.get(bound), bool):
                del made[bound]
                if flag and limit in made:
                    made[bound] = made.pop(limit)
        if made.get("unevaluatedProperties") is False and not any(key in made for key in _COMBINERS):
            del made["unevaluatedProperties"]
            made.setdefault("additionalProperties", False)
        if made.get("uniqueItems") is False:
            del made["uniqueItems"]
        return _nullable(made) if made.get("nullable") is True else made

    def _keyword(self, merged: Merged, part: Part, key: str, value: JSONValue, place: Place) -> None:
        """Add one keyword of one schema to those of its alternative."""
        here = place.at(key)
        match key:
            case "properties":
                part.properties = self._members(value, here)
            case "patternProperties":
                part.patterns = self._patterns(self._members(value, here), here)
            case "prefixItems":
                part.prefix = [Place(one, f"{here}/{index}") for index, one in enumerate(self._list(value, here))]
            case "items":
                part.items = Place(value, here)
            case "additionalProperties":
                part.additional = Place(value, here)
            case "pattern":
                self._pattern(merged, value, here)
            case "format":
                self._format(merged, value, here)
            case "required":
                merged.require(self._names_in(value, here), here)
            case "enum":
                merged.allow(self._list(value, here), here)
            case "const":
                merged.allow((value,), here)
            case "type":
                merged.limit_type(self._type(value, here), here)
            case _ if key in _COUNTS:
                self._count(merged, key, value, here)
            case _ if key in _NUMBERS:
                self._number(merged, key, value, here)
            case "unevaluatedProperties" if value is False and place.path == merged.path:
                merged.closed = True
            case _ if key in UNENFORCED:
                self._leave_out(key, here)
            case _:
                pass

    def _members(self, value: JSONValue, here: str) -> dict[str, Place]:
        if not isinstance(value, Mapping):
            raise self._invalid("expected an object of schemas", here)
        within = Place(value, here)
        return {str(name): Place(part, within.at(str(name))) for name, part in value.items()}

    def _patterns(self, members: dict[str, Place], here: str) -> dict[str, Place]:
        made = {}
        for name, part in members.items():
            if reason := irregular(name):
                self._leave_out(f"the pattern {name!r} ({reason})", here)
            else:
                made[name] = part
        return made

    def _definition(self, reference: JSONValue, here: str) -> str:
        """Return the reference to a definition of the rewritten schema, which is written later."""
        target = self._target(reference, here)
        if id(target.schema) not in self._names:
            last = target.path.rpartition("/")[2].replace("~1", "/").replace("~0", "~").strip("#")
            stem = _UNSAFE.sub("_", last) or "root"
            name, taken = stem, set(self._names.values())
            while name in taken:
                name = f"{stem}_{len(self._names)}"
            self._names[id(target.schema)] = name
            self._waiting.append((name, target))
        return f"#/$defs/{self._names[id(target.schema)]}"

    def _target(self, reference: JSONValue, here: str) -> Place:
        """Return the schema that a reference reaches after any further references."""
        target, seen = reference, set[str]()
        while True:
            if not isinstance(target, str):
                raise self._invalid(f"a reference must be a string, not {target!r}", here)
            if target in seen:
                raise self._invalid(f"the reference {reference!r} is circular", here)
            seen.add(target)
            try:
                found = self._types.references.find(target)
            except LookupError as error:
                hint = "has no target" if target.startswith("#") else "leads out of the same schema"
                raise self._invalid(f"the reference {target!r} {hint}", here) from error
            if not isinstance(found, Mapping) or set(found) != {"$ref"}:
                return Place(found, target)
            target = found["$ref"]

    def _pattern(self, merged: Merged, value: JSONValue, here: str) -> None:
        if not isinstance(value, str):
            raise self._invalid("expected a string", here)
        pattern = loosened(value)
        if reason := irregular(pattern):
            self._leave_out(f"the pattern {value!r} ({reason})", here)
            return
        if pattern != value:
            self._loosen(f"the pattern {value!r}", here, f"enforced as {pattern!r}")
        merged.put("pattern", pattern, here)

    def _format(self, merged: Merged, value: JSONValue, here: str) -> None:
        if not isinstance(value, str):
            raise self._invalid("expected a string", here)
        if value in FORMATS:
            merged.put("format", value, here)

    def _count(self, merged: Merged, key: str, value: JSONValue, here: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
            raise self._invalid("expected a whole number of 0 or more", here)
        most = self._most_characters(value) if key.endswith("Length") else _MAX_MEMBERS
        if value <= most:
            merged.put(key, int(value), here)
        elif key.startswith("max"):
            self._loosen(f"{key} {value}", here, "not enforced")
        else:
            self._loosen(f"{key} {value}", here, f"enforced as {most}")
            merged.put(key, most, here)

    def _most_characters(self, bound: float) -> int:
        """Return the largest bound of a text that can be enforced beside the others; equal ones share their states."""
        if bound in self._lengths or bound > MAX_REPEAT:
            return MAX_REPEAT
        left = _MAX_LENGTHS - sum(self._lengths)
        if bound <= left:
            self._lengths.add(int(bound))
        return left

    def _number(self, merged: Merged, key: str, value: JSONValue, here: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._invalid("expected a number", here)
        if key == "multipleOf" and value <= 0:
            raise self._invalid("expected a number over 0", here)
        if reason := merged.put_number(key, value, here):
            self._leave_out(f"{key} {value} ({reason})", here)

    def _type(self, value: JSONValue, here: str) -> list[str]:
        kinds = [value] if isinstance(value, str) else list(self._list(value, here))
        named = [kind for kind in kinds if isinstance(kind, str) and kind in TYPES]
        if not kinds or len(named) < len(kinds):
            raise self._invalid(f"{value!r} is not a type", here)
        return named

    def _names_in(self, value: JSONValue, here: str) -> list[str]:
        names = self._list(value, here)
        for index, name in enumerate(names):
            if not isinstance(name, str):
                raise self._invalid(f"required is malformed: {name!r} is not of type 'string'", f"{here}/{index}")
        return [str(name) for name in names]

    def _list(self, value: JSONValue, here: str) -> Sequence[JSONValue]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._invalid("expected a list", here)
        return value

    def _leave_out(self, thing: str, path: str, instead: str = "") -> None:
        if self._strict:
            hint = "a schema uses the keywords " + ", ".join(sorted(ENFORCED))
            raise self._invalid(f"{thing} cannot be enforced", path, hint)
        self.remarks[f"{self._what}: {thing} at {path} is not enforced{instead}"] = None

    def _loosen(self, thing: str, path: str, instead: str) -> None:
        """Report a bound in place of which a looser one is enforced: it is far from any common answer."""
        self.remarks[f"{self._what}: {thing} at {path} is {instead}"] = None

    def _invalid(self, message: str, path: str, hint: str = "") -> Invalid:
        return Invalid(f"{self._what}: {message} (at {path})", hint=hint, field=self._field)


def _first(keywords: Schema) -> bool:
    """Return True if the properties of the schema itself are written before those that it inherits."""
    present = (key for key in keywords if key in ("properties", "allOf", "$ref"))
    return next(present, "") == "properties"


def _nullable(made: Schema) -> Schema:
    """Return a schema with OpenAPI's `nullable` written as a further type."""
    del made["nullable"]
    if isinstance(kind := made.get("type"), str) and not any(key in made for key in (*_COMBINERS, "const")):
        made["type"] = [kind, "null"]
        if isinstance(options := made.get("enum"), list | tuple) and None not in options:
            made["enum"] = [*options, None]
        return made
    return {"anyOf": [made, {"type": "null"}]}


def loosened(pattern: str) -> str:
    """Return a regular expression in which parts that may occur over `MAX_REPEAT` times have no upper bound."""
    return _REPEAT.sub(_loosened, pattern) if len(pattern) <= _MAX_PATTERN else pattern


def _loosened(found: re.Match[str]) -> str:
    if found["low"] is None:
        return found[0]
    low, high = int(found["low"] or 0), int(found["high"] or found["low"] or 0)
    if high < low or high <= MAX_REPEAT:
        return found[0]
    return f"{{{min(low, MAX_REPEAT)},}}"


def irregular(pattern: str) -> str:
    """Return the reason why a regular expression cannot be enforced; "" when it can."""
    if len(pattern) > _MAX_PATTERN:
        return f"longer than {_MAX_PATTERN} characters"
    if _BEYOND_REGULAR.search(pattern.replace("\\\\", "")):
        return "look-around, back references and word boundaries are not regular"
    if pattern_work(pattern) > MAX_WORK:
        return f"longer than {MAX_WORK} characters when its repetitions are written out"
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
