"""`mullama grammar`: print the grammar of a JSON Schema as it is enforced, and check grammars and schemas."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from mullama.chat.constraint import Built, build
from mullama.chat.families import family_with
from mullama.chat.types import ResponseFormat
from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.cli.app.text_files import read_text
from mullama.cli.inference.json_places import offset_of, place_at
from mullama.errors import Invalid

ACTIONS = ("from-schema", "validate")
GrammarKind = Literal["schema", "gbnf", "lark"]
_NAMES: dict[GrammarKind, str] = {"schema": "JSON Schema", "gbnf": "GBNF grammar", "lark": "Lark grammar"}
_ENDINGS: dict[str, GrammarKind] = {".json": "schema", ".gbnf": "gbnf", ".lark": "lark"}
_POINTER = re.compile(r" \(at (#[^)]*)\)$")
_GBNF_PLACE = re.compile(r"error in line (\d+), column (\d+): (.*)", re.DOTALL)
# `at 3(4): MESSAGE` for line 3, column 4.
_LARK_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\): (.*)")


def grammar_options(parser: Parser) -> None:
    parser.add_argument(
        "action", choices=ACTIONS,
        help="from-schema prints the grammar of a JSON Schema as the engine enforces it, in llguidance's Lark; "
        "validate checks a JSON Schema, a GBNF grammar or a Lark grammar",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
    parser.add_argument(
        "--kind", choices=tuple(_NAMES), help="for validate: what the file is (default: by its ending and its text)"
    )


def grammar(call: CommandContext) -> int:
    options = call.options
    text = call.terminal.source.read() if options.file == "-" else read_text(call.folder / options.file)
    if options.action == "from-schema":
        if options.kind not in (None, "schema"):
            raise UsageError("grammar from-schema reads a JSON Schema", hint="leave out --kind")
        built = _schema_grammar(call, text)
        call.terminal.raw(built.constraint.grammar if built.constraint else "")
        return DONE
    kind = options.kind or kind_of(options.file, text)
    match kind:
        case "schema":
            _schema_grammar(call, text)
        case "gbnf":
            _check_gbnf(call, text)
        case _:
            if reason := _compile(text):
                raise _wrong(call, *_lark_place(reason))
    call.terminal.line(f"{_name(call)} is a valid {_NAMES[kind]}")
    return DONE


def kind_of(name: str, text: str) -> GrammarKind:
    """Return the kind of a file by the ending of its name, and for another ending by its text."""
    for ending, kind in _ENDINGS.items():
        if name.lower().endswith(ending):
            return kind
    if text.lstrip()[:1] in ("{", "["):
        return "schema"
    return "gbnf" if "::=" in text else "lark"


def _schema_grammar(call: CommandContext, text: str) -> Built:
    """Return the constraint of a schema, and print the parts that it does not enforce.

    Raises `Invalid` with the place of the first mistake.
    """
    try:
        schema = json.loads(text, object_pairs_hook=_single)
    except json.JSONDecodeError as error:
        raise _wrong(call, error.lineno, error.colno, f"it is no JSON: {error.msg}") from error
    except Invalid as error:
        raise Invalid(f"{_name(call)}: {error.message}", hint=error.hint) from error
    except ValueError as error:  # an integer of thousands of digits; its place is not known
        raise Invalid(f"{_name(call)}: it is no JSON: {error}") from error
    except RecursionError as error:
        raise _wrong(call, 1, 1, "it is nested too deeply") from error
    try:
        built = build(family_with("generic"), format=ResponseFormat(kind="json_schema", schema=schema))
    except Invalid as error:
        found = _POINTER.search(error.message)
        place = place_at(text, offset_of(text, found[1] if found else ""))
        message = error.message.removeprefix("response_format: ")
        raise _wrong(call, *place, message, hint=error.hint) from error
    for remark in built.warnings:
        call.terminal.note(f"warning: {remark.removeprefix('response_format: ')}")
    if reason := _compile(built.constraint.grammar if built.constraint else ""):
        found = _POINTER.search(reason)
        raise _wrong(call, *place_at(text, offset_of(text, found[1] if found else "")), reason)
    return built


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f"the schema has the key {twice!r} twice in one object", hint="remove one of them")
    return made


def _check_gbnf(call: CommandContext, text: str) -> None:
    try:
        built = build(family_with("generic"), format=ResponseFormat(kind="gbnf", grammar=text))
    except Invalid as error:
        found = _GBNF_PLACE.search(error.message)
        if found is None:
            raise _wrong(call, 1, 1, error.message, hint=error.hint) from error
        raise _wrong(call, int(found[1]), int(found[2]), found[3]) from error
    if built.constraint and (reason := _compile(built.constraint.grammar)):
        raise Invalid(f"{_name(call)} cannot be compiled: {_lark_place(reason)[2]}")


def _compile(text: str) -> str:
    """Return the error of the engine's compiler for a grammar, "" when it compiles."""
    from mullama.engines.llamacpp.sampling.constraint import compiler_error

    return compiler_error(text)


def _lark_place(error: str) -> tuple[int, int, str]:
    first = error.splitlines()[0]
    found = _LARK_PLACE.match(first)
    return (int(found[1]), int(found[2]), found[3]) if found else (1, 1, first)


def _wrong(call: CommandContext, line: int, column: int, message: str, hint: str = "") -> Invalid:
    return Invalid(f"{_name(call)}:{line}:{column}: {message}", hint=hint)


def _name(call: CommandContext) -> str:
    return "standard input" if call.options.file == "-" else str(call.options.file)
