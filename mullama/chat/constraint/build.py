"""Decides the grammar of an answer, and the text at which it becomes active."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import assert_never

from mullama.chat.constraint.calls import CallForm, FunctionSchema, call_form
from mullama.chat.constraint.gbnf import gbnf_to_lark
from mullama.chat.constraint.lark import Lark, regex, sequence
from mullama.chat.constraint.metaschema import malformed
from mullama.chat.constraint.schema import MAX_TEXT, enforceable, irregular, loosened
from mullama.chat.families import Family
from mullama.chat.syntax import BraceCalls, CallSyntax, ChannelCalls, TaggedCalls
from mullama.chat.template.shape import plain
from mullama.chat.types import Constraint, ResponseFormat, Tool, ToolChoice
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct

# Together the tools of a request may weigh as much as this; beyond, their arguments are any object.
MAX_TOOLS = 3 * MAX_TEXT
# White space between the end of the reasoning and what the grammar asks for.
_LEAD = "/[ \\n]{0,4}/"
_FINAL = "<|channel|>final"
# Formats whose answer is JSON as a whole.
_JSON = ("json", "json_schema")


class Built(Struct, frozen=True, kw_only=True):
    """The constraint of an answer.

    constraint: None for a free answer. warnings: parts of the request that are not enforced. from_start: the grammar is
    active from the end of the reasoning, so a model that reasons must begin its reasoning first.
    """

    constraint: Constraint | None = None
    warnings: tuple[str, ...] = ()
    from_start: bool = False


def build(
    family: Family,
    *,
    format: ResponseFormat | None = None,
    tools: Sequence[Tool] = (),
    choice: ToolChoice | None = None,
    parallel: bool = True,
    thinking: bool = False,
) -> Built:
    """Return the constraint for this format and this choice of tools.

    thinking: the answer begins inside the reasoning.
    """
    chosen = choice or ToolChoice()
    after = family.thinking.close.strip() if thinking and family.thinking else None
    functions, warnings = _functions(tools, chosen)
    if not functions:
        return _format_only(family, format, after)
    lark = Lark()
    form = call_form(lark, family.calls, functions, parallel=parallel)
    numbers = _numbers(family.calls)
    if chosen.mode == "required":
        return _bound(lark, form.whole, after, warnings, numbers)
    if format is not None and not isinstance(family.calls, ChannelCalls):
        more: list[str] = []
        whole = f"({form.whole} | {_expression(lark, format, more)})"
        warnings = (*warnings, *more)
        both = numbers if numbers == '"' and format.kind in _JSON else ""
        return _bound(lark, whole, after, warnings, both)
    if form.trigger:
        return _triggered(lark, form, after, warnings, parallel=parallel, numbers=numbers)
    text = lark.rule("TEXT", _NOT_A_CALL)
    return _bound(lark, f"({form.whole} | {text})", after, warnings)


# Any text but one that begins as a call does: {"name": …
_NOT_A_CALL = r'/(?s:.*)/ & ~/(?s:[ \t\r\n]*\{[ \t\r\n]*"name".*)/'


def _numbers(calls: CallSyntax) -> str:
    """Return the quote or mark of the texts in calls; see `Constraint.numbers`."""
    match calls:
        case BraceCalls(quote=quote):
            return quote
        case TaggedCalls():  # writes texts without quotes; its rules limit the numbers themselves
            return ""
        case _:
            return '"'


def _bound(
    lark: Lark,
    start: str,
    after: str | None,
    warnings: tuple[str, ...],
    numbers: str = "",
) -> Built:
    text, marks = lark.done(sequence(_LEAD if after else "", start))
    constraint = Constraint(grammar=text, after=after, markers=marks, numbers=numbers)
    return Built(constraint=constraint, warnings=warnings, from_start=True)


def _triggered(
    lark: Lark,
    form: CallForm,
    after: str | None,
    warnings: tuple[str, ...],
    *,
    parallel: bool,
    numbers: str,
) -> Built:
    text, marks = lark.done(form.rest)
    constraint = Constraint(
        grammar=text, triggers=(form.trigger,), after=after, markers=marks, repeat=parallel, numbers=numbers
    )
    return Built(constraint=constraint, warnings=warnings)


def _format_only(family: Family, format: ResponseFormat | None, after: str | None) -> Built:
    if format is None:
        return Built()
    if format.kind == "gbnf" and after is None and not isinstance(family.calls, ChannelCalls):
        return Built(constraint=Constraint(grammar=gbnf_to_lark(format.grammar)), from_start=True)
    lark, warnings = Lark(), list[str]()
    expression = _expression(lark, format, warnings)
    if isinstance(family.calls, ChannelCalls):
        # The answer proper is the message on the final channel; what comes before is the model's own.
        header = f'(" " {lark.literal("<|constrain|>")} "json")?'
        text, marks = lark.done(sequence(header, lark.literal("<|message|>"), expression))
        final = Constraint(grammar=text, triggers=(_FINAL,), markers=marks, repeat=False, numbers=_numbers_of(format))
        return Built(constraint=final, warnings=tuple(warnings))
    return _bound(lark, expression, after, tuple(warnings), _numbers_of(format))


def _numbers_of(format: ResponseFormat) -> str:
    return '"' if format.kind in _JSON else ""


def _expression(lark: Lark, format: ResponseFormat, warnings: list[str]) -> str:
    """Return the grammar expression of an answer in this format. warnings: the parts that are not enforced join it."""
    match format.kind:
        case "json":
            return lark.json({"type": "object"})
        case "json_schema":
            schema, remarks = enforceable(format.schema, what="response_format", strict=True, field="response_format")
            warnings.extend(remarks)
            _check_form(format.schema, what="response_format", field="response_format")
            return lark.json(schema)
        case "regex":
            pattern = loosened(format.grammar)
            if reason := irregular(pattern):
                raise Invalid(f"the regular expression is not accepted: {reason}", field="response_format")
            if pattern != format.grammar:
                warnings.append(f"the regular expression is enforced as {pattern!r}")
            return lark.rule("TEXT", regex(pattern))
        case "gbnf":
            return lark.nested(gbnf_to_lark(format.grammar))
        case _:
            assert_never(format.kind)


def _functions(tools: Sequence[Tool], chosen: ToolChoice) -> tuple[tuple[FunctionSchema, ...], tuple[str, ...]]:
    """Return the tools that may be called, with schemas that can be enforced, and warnings."""
    if chosen.mode == "none":
        return (), ()
    known = {tool.name for tool in tools}
    for name in chosen.names:
        if name not in known:
            raise Invalid(
                f"tool_choice names the tool {name!r}, which is not among the tools",
                hint=f"the tools are {', '.join(sorted(known)) or 'none'}",
                field="tool_choice",
            )
    allowed = [tool for tool in tools if not chosen.names or tool.name in chosen.names]
    if chosen.mode == "required" and not allowed:
        raise Invalid("tool_choice requires a call, but there are no tools", field="tool_choice")
    for tool in allowed:
        if tool.strict and tool.parameters is not None:
            what = f"the tool {tool.name!r}"
            enforceable(tool.parameters, what=what, strict=False, field="tools")
            _check_form(tool.parameters, what=what, field="tools")
    return _checked(json.dumps([[tool.name, plain(tool.parameters or {})] for tool in allowed]))


def _check_form(schema: JSONValue, *, what: str, field: str) -> None:
    """Raise `Invalid` for a schema that is malformed by its metaschema; its size has been checked."""
    if mistake := malformed(schema):
        raise Invalid(f"{what}: {mistake}", hint="the schema must be valid by its JSON Schema draft", field=field)


@lru_cache(maxsize=16)
def _checked(tools: str) -> tuple[tuple[FunctionSchema, ...], tuple[str, ...]]:
    """Return the checked tools. The result is cached, because each turn of a conversation sends the same tools."""
    warnings: list[str] = []
    functions = [_function(name, parameters, warnings) for name, parameters in json.loads(tools)]
    if sum(len(str(function.schema)) for function in functions) > MAX_TOOLS:
        warnings.append("the schemas of the tools are too large together: arguments may be any object")
        functions = [FunctionSchema(name=f.name, schema={"type": "object"}) for f in functions]
    return tuple(functions), tuple(warnings)


def _function(name: str, parameters: Mapping[str, JSONValue], warnings: list[str]) -> FunctionSchema:
    """Return a tool; one whose schema cannot be read takes any object."""
    what = f"the tool {name!r}"
    wanted: dict[str, JSONValue] = {"type": "object", "properties": {}, **parameters}
    if wanted["type"] != "object":
        warnings.append(f"{what}: arguments must be an object; the type in the schema is ignored")
        wanted["type"] = "object"
    try:
        schema, remarks = enforceable(wanted, what=what, strict=False, field="tools")
    except Invalid as error:
        warnings.append(error.message)
        return FunctionSchema(name=name, schema={"type": "object"})
    warnings.extend(remarks)
    return FunctionSchema(name=name, schema=schema if isinstance(schema, Mapping) else {"type": "object"})
