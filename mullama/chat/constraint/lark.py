"""Writes Lark text for llguidance: rules, JSON schemas inside them, and marks that the vocabulary resolves."""

from __future__ import annotations

import json
import re

from mullama.names import JSONValue

# One space may follow a comma or a colon, because models write one; all other white space is fixed.
SEPARATORS: dict[str, JSONValue] = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
# Text that may be one token of its own in a vocabulary, such as <|call|>, [ARGS] or </tool_call>.
_MARK = re.compile(r"(<[^<>\s=\"]+>|\[[A-Z_]{2,}\])")


class Lark:
    """A grammar under construction. Expressions are Lark text, and rules are added when they are first used."""

    def __init__(self) -> None:
        self._rules: list[str] = []
        self._marks: dict[str, str] = {}
        self._made: dict[str, str] = {}

    def literal(self, text: str) -> str:
        """Return an expression for exactly this text. The engine resolves parts that may be special tokens."""
        parts = [part for part in _MARK.split(text) if part]
        return " ".join(self._mark(part) if _MARK.fullmatch(part) else quoted(part) for part in parts)

    def json(self, schema: JSONValue, definitions: JSONValue = None) -> str:
        """Return a rule for a JSON value of this schema, which may refer to the `definitions` of another."""
        options: dict[str, JSONValue] = {"x-guidance": SEPARATORS}
        if definitions and '"$ref"' in json.dumps(schema):
            options["$defs"] = definitions
        whole = {**schema, **options} if isinstance(schema, dict) else {"allOf": [schema], **options}
        return self.rule("value", "%json " + _whole(json.dumps(whole, ensure_ascii=False)))

    def nested(self, grammar: str) -> str:
        """Return a rule for a complete grammar with its own `start`."""
        return self.rule("nested", "%lark {\n" + grammar + "}")

    def rule(self, stem: str, body: str) -> str:
        """Return the name of a rule with this body; equal bodies share one."""
        name = self._made.get(body)
        if name is None:
            name = self._made[body] = f"{stem}_{len(self._made)}"
            self._rules.append(f"{name}: {body}")
        return name

    def text_until(self, mark: str) -> str:
        """Return a rule for any text up to and including `mark`."""
        key = f"until {mark}"
        if key not in self._made:
            self._made[key] = f"until_{len(self._made)}"
            self._rules.append(f"{self._made[key]}[suffix={quoted(mark)}]: /(?s:.*)/")
        return self._made[key]

    def done(self, start: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Return the grammar that begins with `start`, and its marks as (rule, text)."""
        text = "\n".join((f"start: {start}", *self._rules)) + "\n"
        return text, tuple((name, mark) for mark, name in self._marks.items())

    def _mark(self, text: str) -> str:
        return self._marks.setdefault(text, f"mark_{len(self._marks)}")


def quoted(text: str) -> str:
    """Return a Lark string literal; an empty one is an empty group."""
    return json.dumps(_whole(text)) if text else "()"


def _whole(text: str) -> str:
    """Return the text without lone surrogates, which no grammar can contain."""
    return text.encode("utf-8", "replace").decode()


def regex(pattern: str) -> str:
    """Return a Lark regular expression; only the delimiter is escaped."""
    made, escaped = [], False
    for char in pattern:
        if char == "\n":
            made.append("\\n" if not escaped else "n")
        elif char == "/" and not escaped:
            made.append("\\/")
        else:
            made.append(char)
        escaped = char == "\\" and not escaped
    return "/" + "".join(made) + "/"


def choice(options: list[str]) -> str:
    """Return an expression for one of these expressions."""
    return options[0] if len(options) == 1 else "(" + " | ".join(options) + ")"


def sequence(*parts: str) -> str:
    """Return an expression for these expressions in order, without the empty ones."""
    return " ".join(part for part in parts if part)
