"""Writes llguidance's Lark text: rules, JSON schemas inside them, and marks left to the vocabulary."""

from __future__ import annotations

import json
import re

from mullama.names import JSONValue

# One space may follow a comma or a colon, as models have learnt to write; nothing else is loose.
SEPARATORS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
# What may be one token of its own in a vocabulary, such as <|call|>, [ARGS] or </tool_call>.
_MARK = re.compile(r"(<[^<>\s=\"]+>|\[[A-Z_]{2,}\])")


class Lark:
    """A grammar in the making; expressions are Lark text, rules are made as they are asked for."""

    def __init__(self) -> None:
        self._rules: list[str] = []
        self._marks: dict[str, str] = {}
        self._made: dict[str, str] = {}

    def literal(self, text: str) -> str:
        """An expression for exactly this text; parts that may be special tokens are left to the engine."""
        parts = [part for part in _MARK.split(text) if part]
        return " ".join(self._mark(part) if _MARK.fullmatch(part) else quoted(part) for part in parts)

    def json(self, schema: JSONValue) -> str:
        """A rule for a JSON value of this schema."""
        options = {"x-guidance": SEPARATORS}
        whole = {**schema, **options} if isinstance(schema, dict) else {"allOf": [schema], **options}
        return self.rule("value", "%json " + _whole(json.dumps(whole, ensure_ascii=False)))

    def nested(self, grammar: str) -> str:
        """A rule for a whole grammar of its own, with its own `start`."""
        return self.rule("nested", "%lark {\n" + grammar + "}")

    def rule(self, stem: str, body: str) -> str:
        """The name of a rule with this body; equal bodies share one."""
        name = self._made.get(body)
        if name is None:
            name = self._made[body] = f"{stem}_{len(self._made)}"
            self._rules.append(f"{name}: {body}")
        return name

    def text_until(self, mark: str) -> str:
        """A rule for any text up to and including `mark`."""
        key = f"until {mark}"
        if key not in self._made:
            self._made[key] = f"until_{len(self._made)}"
            self._rules.append(f"{self._made[key]}[suffix={quoted(mark)}]: /(?s:.*)/")
        return self._made[key]

    def done(self, start: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The grammar that begins with `start`, and its marks as (rule, text)."""
        text = "\n".join((f"start: {start}", *self._rules)) + "\n"
        return text, tuple((name, mark) for mark, name in self._marks.items())

    def _mark(self, text: str) -> str:
        return self._marks.setdefault(text, f"mark_{len(self._marks)}")


def quoted(text: str) -> str:
    """A Lark string literal; an empty one is an empty group."""
    return json.dumps(_whole(text)) if text else "()"


def _whole(text: str) -> str:
    """The text without lone surrogates, which no grammar can hold."""
    return text.encode("utf-8", "replace").decode()


def regex(pattern: str) -> str:
    """A Lark regular expression; only the delimiter needs care."""
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
    """One of these expressions."""
    return options[0] if len(options) == 1 else "(" + " | ".join(options) + ")"


def sequence(*parts: str) -> str:
    """These expressions one after the other, empty ones left out."""
    return " ".join(part for part in parts if part)
