"""Grammar rules for tool calls, one for each call syntax. They allow exactly the text that `chat.reader` accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import assert_never

from mullama.chat.constraint.lark import Lark, choice, quoted, sequence
from mullama.chat.constraint.merge import with_limited_numbers
from mullama.chat.schema_types import SchemaTypes, ValueTypes
from mullama.chat.syntax import (
    BraceCalls,
    CallSyntax,
    ChannelCalls,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
)
from mullama.names import JSONValue
from mullama.struct import Struct


class FunctionSchema(Struct, frozen=True, kw_only=True):
    """A tool in the grammar: its name and the checked schema of its arguments."""

    name: str
    schema: Mapping[str, JSONValue]


class CallForm(Struct, frozen=True, kw_only=True):
    """Grammar expressions for calls.

    trigger: text that announces a call; empty when only the beginning of the answer does. rest: the text after
    `trigger`. whole: the complete text, with its opening.
    """

    trigger: str
    rest: str
    whole: str


def call_form(lark: Lark, syntax: CallSyntax, tools: Sequence[FunctionSchema], *, parallel: bool) -> CallForm:
    """Return the form of calls to these tools; `parallel` allows several in one answer."""
    match syntax:
        case JsonCalls():
            return _json(lark, syntax, tools, parallel=parallel)
        case NamedCalls():
            return _named(lark, syntax, tools, parallel=parallel)
        case TaggedCalls():
            return _tagged(lark, syntax, tools, parallel=parallel)
        case BraceCalls():
            return _braces(lark, syntax, tools, parallel=parallel)
        case PythonCalls():
            return _python(lark, syntax, tools, parallel=parallel)
        case ChannelCalls():
            return _channels(lark, tools)
        case _:
            assert_never(syntax)


def repeated(one: str, between: str, *, parallel: bool) -> str:
    """Return an expression for one or more, separated by `between`."""
    return f"{one} ({sequence(between, one)})*" if parallel else one


def _json(lark: Lark, syntax: JsonCalls, tools: Sequence[FunctionSchema], *, parallel: bool) -> CallForm:
    one = lark.rule("call", choice([_object(lark, syntax, tool) for tool in tools]))
    gap = lark.literal(syntax.gap)
    if syntax.one_list:
        body = sequence('"["', repeated(one, '", "', parallel=parallel), '"]"')
        rest = sequence(gap, body, gap, lark.literal(syntax.close))
        return CallForm(trigger=syntax.open.strip(), rest=rest, whole=sequence(lark.literal(syntax.open), rest))
    rest = sequence(gap, one, gap, lark.literal(syntax.close))
    envelope = lark.rule("envelope", sequence(lark.literal(syntax.open), rest))
    whole = repeated(envelope, lark.literal(syntax.between), parallel=parallel)
    return CallForm(trigger=syntax.open.strip(), rest=rest, whole=whole)


def _object(lark: Lark, syntax: JsonCalls, tool: FunctionSchema) -> str:
    arguments = lark.json(tool.schema)
    if syntax.name_is_key:
        return lark.rule("object", sequence(quoted("{" + quoted(tool.name) + ": "), arguments, '"}"'))
    before = after = ""
    if syntax.id_key == "id":
        after = ', "id": '
    elif syntax.id_key:
        before = f'"{syntax.id_key}": '
    head = f'"{syntax.name_key}": {quoted(tool.name)}, "{syntax.arguments_key}": '
    opened = sequence(quoted("{" + before), _ID, quoted(", " + head)) if before else quoted("{" + head)
    ended = sequence(quoted(after), _ID, '"}"') if after else '"}"'
    return lark.rule("object", sequence(opened, arguments, ended))


_ID = r'/"[A-Za-z0-9]{1,9}"/'
_BRACES_DEPTH = 6  # of values in Gemma's notation, whose recursive schemas have no rules of their own
_KEY = "/[A-Za-z_][A-Za-z0-9_.-]{0,63}/"


def _named(lark: Lark, syntax: NamedCalls, tools: Sequence[FunctionSchema], *, parallel: bool) -> CallForm:
    ordinal = sequence('":"', "/[0-9]{1,3}/") if syntax.ordinal else ""
    mark = sequence(lark.literal(syntax.id_mark), "/[A-Za-z0-9]{9}/") if syntax.id_mark else ""
    calls = [
        sequence(
            lark.literal(syntax.begin),
            quoted(tool.name),
            ordinal,
            mark,
            lark.literal(syntax.middle),
            lark.json(tool.schema),
            lark.literal(syntax.end),
        )
        for tool in tools
    ]
    one = lark.rule("call", choice(calls))
    opening = lark.literal(syntax.open)
    if syntax.close:
        rest = sequence(repeated(one, "", parallel=parallel), lark.literal(syntax.close))
        return CallForm(trigger=syntax.open.strip(), rest=rest, whole=sequence(opening, rest))
    envelope = lark.rule("envelope", sequence(opening, one))
    return CallForm(trigger=syntax.open.strip(), rest=one, whole=repeated(envelope, "", parallel=parallel))


def _tagged(lark: Lark, syntax: TaggedCalls, tools: Sequence[FunctionSchema], *, parallel: bool) -> CallForm:
    calls = [_tagged_call(lark, syntax, tool) for tool in tools]
    opening = syntax.open or syntax.begin
    begin = syntax.begin if syntax.open else ""
    one = lark.rule("call", choice([sequence(lark.literal(begin), call) for call in calls]))
    several = repeated(one, "", parallel=parallel and bool(syntax.open and syntax.begin))
    # The line break that ends the opening is the grammar's to write, because the trigger is without it.
    gap = lark.literal(opening[len(opening.rstrip()) :])
    rest = sequence(gap, several, lark.literal(syntax.close))
    envelope = lark.rule("envelope", sequence(lark.literal(opening.rstrip()), rest))
    if not (syntax.open and syntax.begin):
        envelope = repeated(envelope, '"\\n"?', parallel=parallel)
    return CallForm(trigger=opening.strip(), rest=rest, whole=envelope)


def _tagged_call(lark: Lark, syntax: TaggedCalls, tool: FunctionSchema) -> str:
    properties = tool.schema.get("properties")
    if not isinstance(properties, Mapping):
        keyed = _attributed(syntax, "true") if syntax.typed else syntax.keyed
        free = sequence(lark.literal(syntax.key), _KEY, lark.literal(keyed), _free_text(lark, syntax))
        return sequence(quoted(tool.name), lark.literal(syntax.named), f"({free})*", lark.literal(syntax.end))
    required = tool.schema.get("required")
    needed = required if isinstance(required, list) else []
    types = SchemaTypes(tool.schema)
    parts = []
    for key, schema in properties.items():
        text, value = _tagged_values(lark, syntax, schema, types.of(schema), tool.schema.get("$defs"))
        written = [("true", text), ("false", value)] if syntax.typed else [("", one) for one in (text, value)]
        forms = [sequence(lark.literal(_attributed(syntax, kind)), form) for kind, form in written if form]
        argument = sequence(lark.literal(syntax.key), quoted(key), choice(forms))
        parts.append(argument if key in needed else f"({argument})?")
    return sequence(quoted(tool.name), lark.literal(syntax.named), *parts, lark.literal(syntax.end))


def _attributed(syntax: TaggedCalls, kind: str) -> str:
    """Return the text after a key, with the attribute that names the kind of the value where the syntax has one."""
    return syntax.keyed.replace('">', f'" string="{kind}">') if kind else syntax.keyed


def _tagged_values(
    lark: Lark, syntax: TaggedCalls, schema: JSONValue, types: ValueTypes, definitions: JSONValue
) -> tuple[str, str]:
    """Return expressions for a value as bare text and as JSON, each empty when it is not allowed.

    Without an attribute, the reader takes what may be a string for bare text.
    """
    ending = lark.literal(syntax.valued)
    if types.values is not None:
        texts = [quoted(value) for value in types.values if isinstance(value, str)]
        others = [quoted(json.dumps(value)) for value in types.values if not isinstance(value, str)]
        return (sequence(choice(texts), ending) if texts else "", sequence(choice(others), ending) if others else "")
    # Text without quotes may have any digits, so here the schema limits those of numbers.
    value = lark.json(with_limited_numbers(schema), with_limited_numbers(definitions))
    if types.known and "string" in types.types:
        mixed = syntax.typed and not types.text_only
        return _free_text(lark, syntax), sequence(value, ending) if mixed else ""
    return "", sequence(value, ending)


def _free_text(lark: Lark, syntax: TaggedCalls) -> str:
    """Return a rule for any text up to the closing tag. The reader looks for the tag alone, so the line break before it
    is optional.
    """
    tag = syntax.valued.strip()
    return sequence(lark.text_until(tag), lark.literal(syntax.valued.partition(tag)[2]))


def _braces(lark: Lark, syntax: BraceCalls, tools: Sequence[FunctionSchema], *, parallel: bool) -> CallForm:
    calls = []
    for tool in tools:
        members = _braces_members(lark, syntax.quote, tool.schema, SchemaTypes(tool.schema))
        calls.append(sequence(quoted(f"call:{tool.name}{{"), members, '"}"'))
    rest = sequence(lark.rule("call", choice(calls)), lark.literal(syntax.close))
    envelope = lark.rule("envelope", sequence(lark.literal(syntax.open), rest))
    return CallForm(trigger=syntax.open, rest=rest, whole=repeated(envelope, "", parallel=parallel))


def _braces_members(lark: Lark, quote: str, schema: JSONValue, types: SchemaTypes, depth: int = 0) -> str:
    """Return the members with keys in alphabetical order, as the templates write them."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        free = sequence(_KEY, '":"', _braces_any(lark, quote))
        return f'({free} ("," {free})*)?'
    required = schema.get("required") if isinstance(schema, Mapping) else None
    needed = required if isinstance(required, list) else []
    members = [
        (sequence(quoted(key + ":"), _braces_value(lark, quote, part, types, depth)), key in needed)
        for key, part in sorted(properties.items())
    ]
    return listed(lark, members, '","')


def _braces_value(lark: Lark, quote: str, schema: JSONValue, types: SchemaTypes, depth: int = 0) -> str:
    found = types.of(schema)
    if isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
        schema = types.references.find(reference)
    if not isinstance(schema, Mapping) or not found.known or depth > _BRACES_DEPTH:
        return _braces_any(lark, quote)
    if found.values is not None:
        written = [_braces_constant(lark, quote, value) for value in found.values]
        return choice(written) if all(written) else _braces_any(lark, quote)
    branches = schema.get("anyOf")
    if isinstance(branches, list):
        return choice([_braces_value(lark, quote, branch, types, depth + 1) for branch in branches])
    return choice([_braces_typed(lark, quote, schema, kind, types, depth) for kind in sorted(found.types)])


def _braces_constant(lark: Lark, quote: str, value: JSONValue) -> str:
    if isinstance(value, str):
        return sequence(lark.literal(quote), quoted(value), lark.literal(quote))
    return "" if isinstance(value, Mapping | list) else quoted(json.dumps(value))


def _braces_typed(
    lark: Lark, quote: str, schema: Mapping[str, JSONValue], kind: str, types: SchemaTypes, depth: int
) -> str:
    match kind:
        case "string":
            return sequence(lark.literal(quote), "/[^<]*/", lark.literal(quote))
        case "object" if isinstance(schema.get("properties"), Mapping):
            return lark.rule("object", sequence('"{"', _braces_members(lark, quote, schema, types, depth + 1), '"}"'))
        case "array":
            item = _braces_value(lark, quote, schema.get("items"), types, depth + 1)
            return lark.rule("array", sequence('"["', f'({item} ("," {item})*)?', '"]"'))
        case "integer" | "number" | "boolean" | "null":
            return lark.json({**schema, "type": kind})
        case _:
            return _braces_any(lark, quote)


def _braces_any(lark: Lark, quote: str) -> str:
    text = sequence(lark.literal(quote), "/[^<]*/", lark.literal(quote))
    return lark.rule("any", choice([text, lark.json({"type": ["number", "boolean", "null"]})]))


def _python(lark: Lark, syntax: PythonCalls, tools: Sequence[FunctionSchema], *, parallel: bool) -> CallForm:
    calls = [sequence(quoted(tool.name + "("), _python_members(lark, tool.schema), '")"') for tool in tools]
    one = lark.rule("call", choice(calls))
    gap = lark.literal(syntax.open[len(syntax.open.rstrip()) :])
    body = sequence('"["', repeated(one, '", "', parallel=parallel), '"]"')
    rest = sequence(gap, body, lark.literal(syntax.close))
    return CallForm(trigger=syntax.open.strip(), rest=rest, whole=sequence(lark.literal(syntax.open.rstrip()), rest))


def _python_members(lark: Lark, schema: Mapping[str, JSONValue]) -> str:
    properties, required = schema.get("properties"), schema.get("required")
    needed = required if isinstance(required, list) else []
    if not isinstance(properties, Mapping):
        free = sequence(_KEY, '"="', lark.json({}))
        return f'({free} (", " {free})*)?'
    definitions = schema.get("$defs")
    members = [
        (sequence(quoted(key + "="), lark.json(part, definitions)), key in needed) for key, part in properties.items()
    ]
    return listed(lark, members, '", "')


def listed(lark: Lark, members: Sequence[tuple[str, bool]], comma: str) -> str:
    """Return the members in this order, separated by `comma`; each is an expression and True if it is required."""
    following = [""]
    for expression, needed in reversed(members):
        item = f"({comma} {expression})" + ("" if needed else "?")
        following.insert(0, lark.rule("more", sequence(item, following[0])))
    first: list[str] = []
    for index, (expression, needed) in enumerate(members):
        first.append(sequence(expression, following[index + 1]))
        if needed:
            return lark.rule("members", choice(first))
    return f"{lark.rule('members', choice(first))}?" if first else ""


def _channels(lark: Lark, tools: Sequence[FunctionSchema]) -> CallForm:
    """Return the text after `to=functions.`: one call, whose message the end of the turn closes."""
    header = choice([
        sequence(lark.literal("<|channel|>commentary"), '" "?', f"({lark.literal('<|constrain|>')})?", '"json"?'),
        sequence('" "', f"({lark.literal('<|constrain|>')})?", '"json"'),
    ])  # fmt: skip
    middle = lark.rule("header", sequence(f"{header}?", lark.literal("<|message|>")))
    one = lark.rule("call", choice([sequence(quoted(t.name), middle, lark.json(t.schema)) for t in tools]))
    whole = sequence(lark.literal("<|start|>assistant<|channel|>commentary to=functions."), one)
    return CallForm(trigger="to=functions.", rest=one, whole=whole)
