"""Translates a GBNF grammar, the notation of llama.cpp, to Lark text for llguidance.

A regular rule becomes one terminal, for which llguidance computes masks quickly; all others stay rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mullama.chat.constraint.lark import quoted
from mullama.chat.constraint.schema import MAX_REPEAT, MAX_TEXT
from mullama.chat.constraint.work import MAX_WORK, repeats
from mullama.chat.schema_types import MAX_DEPTH
from mullama.errors import Invalid
from mullama.struct import Struct

_DEEPEST_TERMINAL = 200  # levels; llguidance walks a terminal recursively
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\#[^\n]*)|(?P<line>\r?\n)|(?P<define>::=)|(?P<name>[A-Za-z][A-Za-z0-9_-]*)
    |(?P<text>"(?:\\.|[^"\\\n])*")|(?P<set>\[(?:\\.|[^\]\\\n])*\])|(?P<repeat>\{\d*(?:,\d*)?\})|(?P<mark>[()|*+?.])""",
    re.VERBOSE,
)


class _Token(Struct, frozen=True):
    kind: str
    text: str
    place: str
    """`line 3, column 7`, both from 1."""


class _Leaf(Struct, frozen=True):
    """A literal, a character set or any character, as Lark text that a terminal may contain."""

    lark: str


class _Call(Struct, frozen=True):
    name: str
    place: str


class _Sequence(Struct, frozen=True):
    parts: tuple[_Node, ...]


class _Choice(Struct, frozen=True):
    options: tuple[_Node, ...]


class _Repeat(Struct, frozen=True):
    node: _Node
    times: str
    most: int
    """How often the node is written out."""


_Node = _Leaf | _Call | _Sequence | _Choice | _Repeat


def gbnf_to_lark(text: str) -> str:
    """Return Lark text with the rule `start`. Raises `Invalid` with the line and column of a mistake."""
    if len(text) > MAX_TEXT:
        raise Invalid(f"the grammar has more than {MAX_TEXT} characters", field="grammar")
    parser = _Parser(text)
    rules = parser.rules()
    if "root" not in rules:
        raise Invalid("the grammar has no rule named root", field="grammar")
    for node in rules.values():
        for call in _calls(node):
            if call.name not in rules:
                raise _wrong(f"the rule {call.name!r} is not defined", call.place)
    regular = _regular(rules, parser.places)
    names = {name: f"T{index}" if name in regular else f"r{index}" for index, name in enumerate(rules)}
    lines = [f"{names[name]}: {_lark(node, names)}" for name, node in rules.items()]
    return "\n".join((f"start: {names['root']}", *lines)) + "\n"


def _wrong(message: str, place: str) -> Invalid:
    return Invalid(f"the grammar has an error in {place}: {message}", field="grammar")


class _Parser:
    """A recursive-descent parser of GBNF."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self.places: dict[str, str] = {}

    def rules(self) -> dict[str, _Node]:
        """Return all rules by name, in order."""
        made: dict[str, _Node] = {}
        while (token := self._peek(lines=True)).kind != "end":
            self._at += 1
            if token.kind != "name" or self._peek(lines=True).kind != "define":
                raise _wrong(f"expected `name ::=`, not {token.text!r}", token.place)
            self._at += 1
            if token.text in made:
                raise _wrong(f"the rule {token.text!r} is defined twice", token.place)
            self.places[token.text] = token.place
            made[token.text] = self._choice(0)
        return made

    def _peek(self, *, lines: bool = False) -> _Token:
        while lines and self._tokens[self._at].kind == "line":
            self._at += 1
        return self._tokens[self._at]

    def _choice(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise _wrong(f"groups are nested deeper than {MAX_DEPTH}", self._peek().place)
        options = [self._sequence(depth)]
        while self._next_is("|", depth):
            self._at += 1
            self._peek(lines=True)
            options.append(self._sequence(depth))
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _next_is(self, mark: str, depth: int) -> bool:
        """Return True if `mark` is next. A line break before it is ignored, as llama.cpp does."""
        saved = self._at
        found = self._peek(lines=True)
        if found.kind == "mark" and found.text == mark:
            return True
        self._at = self._at if depth else saved
        return False

    def _sequence(self, depth: int) -> _Node:
        parts: list[_Node] = []
        while (node := self._item(depth)) is not None:
            while (token := self._peek()).kind == "repeat" or (token.kind == "mark" and token.text in "*+?"):
                self._at += 1
                node = _Repeat(node, *_times(token))
            parts.append(node)
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _item(self, depth: int) -> _Node | None:
        token = self._peek(lines=depth > 0)
        follows = self._tokens[self._at + 1].kind if token.kind == "name" else ""
        if token.kind == "name" and follows != "define":
            self._at += 1
            return _Call(token.text, token.place)
        if token.kind in ("text", "set") or (token.kind == "mark" and token.text == "."):
            self._at += 1
            return _leaf(token)
        if token.kind == "mark" and token.text == "(":
            self._at += 1
            self._peek(lines=True)
            inner = self._choice(depth + 1)
            if not self._next_is(")", depth + 1):
                raise _wrong("a group is not closed", token.place)
            self._at += 1
            return inner
        return None


def _tokens(text: str) -> Iterator[_Token]:
    at, line, begin = 0, 1, 0
    while at < len(text):
        found, place = _TOKEN.match(text, at), f"line {line}, column {at - begin + 1}"
        if not found or not found.lastgroup:
            raise _wrong(f"{text[at : at + 20]!r} is not GBNF", place)
        at = found.end()
        if found.lastgroup != "space":
            yield _Token(found.lastgroup, found.group(), place)
        if found.lastgroup == "line":
            line, begin = line + 1, at
    place = f"line {line}, column {at - begin + 1}"
    yield _Token("line", "\n", place)
    yield _Token("end", "", place)
    yield _Token("end", "", place)


def _leaf(token: _Token) -> _Leaf:
    if token.kind == "text":
        return _Leaf(quoted(_unescaped(token.text[1:-1], token.place)))
    if token.kind == "mark":
        return _Leaf("/(?s:.)/")
    inside = token.text[1:-1]
    negated = inside.startswith("^")
    body = "".join(_set_part(part, token.place) for part in re.findall(r"\\.[0-9A-Fa-f]*|.", inside[negated:]))
    if not body:
        raise _wrong("a character set is empty", token.place)
    return _Leaf(f"/[{'^' if negated else ''}{body}]/")


def _set_part(part: str, place: str) -> str:
    """Return one character of a set, escaped for a Rust regular expression; `-` keeps its meaning."""
    if part == "-":
        return part
    chars = _unescaped(part, place)
    return "".join(f"\\x{{{ord(char):x}}}" for char in chars)


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}


def _unescaped(text: str, place: str) -> str:
    def one(found: re.Match[str]) -> str:
        kind, digits = found[1], found[2] or ""
        size = {"x": 2, "u": 4, "U": 8}.get(kind)
        if size is None:
            return _ESCAPES.get(kind, kind) + digits
        try:
            return chr(int(digits[:size], 16)) + digits[size:]
        except (ValueError, OverflowError) as error:
            raise _wrong(f"{found[0]!r} is not a character", place) from error

    return re.sub(r"\\(.)((?<=[xuU])[0-9A-Fa-f]*)?", one, text)


def _times(token: _Token) -> tuple[str, int]:
    """Return a repetition as Lark text, and how often it is written out."""
    if token.kind == "mark":
        return token.text, 1
    low, comma, high = token.text[1:-1].partition(",")
    if max(int(low or 0), int(high or 0)) > MAX_REPEAT:
        raise _wrong(f"a repetition is over {MAX_REPEAT}", token.place)
    return f"{{{low or 0},{high}}}" if comma else f"{{{low}}}", repeats(low, high)


def _calls(node: _Node) -> Iterator[_Call]:
    match node:
        case _Call():
            yield node
        case _Sequence(parts):
            for part in parts:
                yield from _calls(part)
        case _Choice(options):
            for option in options:
                yield from _calls(option)
        case _Repeat(inner):
            yield from _calls(inner)
        case _Leaf():
            pass


def _regular(rules: dict[str, _Node], places: Mapping[str, str]) -> frozenset[str]:
    """Return the rules that refer only to regular rules and never to themselves; empty and deep ones stay rules.

    Raises `Invalid` for a rule that is too large with its repetitions and the regular rules in it written out.
    """
    waits = {name: {call.name for call in _calls(node)} for name, node in rules.items()}
    users: dict[str, list[str]] = {name: [] for name in rules}
    for name, called in waits.items():
        for other in called:
            users[other].append(name)
    sizes: dict[str, int] = {}
    levels: dict[str, int] = {}
    ready = [name for name, called in waits.items() if not called]
    while ready:
        name = ready.pop()
        levels[name] = _levels(rules[name], levels)
        if _empty(rules[name]) or levels[name] > _DEEPEST_TERMINAL:
            continue
        sizes[name] = _bounded(name, rules, places, sizes)
        for user in users[name]:
            waits[user].discard(name)
            if not waits[user]:
                ready.append(user)
    for name in rules.keys() - sizes.keys():
        _bounded(name, rules, places, {})
    return frozenset(sizes)


def _bounded(name: str, rules: Mapping[str, _Node], places: Mapping[str, str], sizes: Mapping[str, int]) -> int:
    """Return the size of a rule with its repetitions written out. sizes: of the regular rules in it."""
    size = _size(rules[name], sizes)
    if size > MAX_WORK:
        message = f"the rule {name!r} is longer than {MAX_WORK} characters when its repetitions are written out"
        raise _wrong(message, places[name])
    return size


def _size(node: _Node, sizes: Mapping[str, int]) -> int:
    match node:
        case _Leaf(lark):
            return max(len(lark) - 2, 1) if lark.startswith('"') else 1
        case _Call(name, _):
            return sizes.get(name, 1)
        case _Sequence(parts):
            return sum(_size(part, sizes) for part in parts)
        case _Choice(options):
            return sum(_size(option, sizes) for option in options)
        case _Repeat(inner, _, most):
            return most * _size(inner, sizes)


def _levels(node: _Node, levels: Mapping[str, int]) -> int:
    """Return the depth of a regular rule with the rules in it written out."""
    match node:
        case _Call(name, _):
            return 1 + levels[name]
        case _Sequence(parts) | _Choice(parts):
            return 1 + max((_levels(part, levels) for part in parts), default=0)
        case _Repeat(inner):
            return 1 + _levels(inner, levels)
        case _:
            return 0


def _empty(node: _Node) -> bool:
    """Return True if Lark refuses this node as a terminal because it has an empty alternative."""
    match node:
        case _Sequence(parts):
            return not parts or any(_empty(part) for part in parts)
        case _Choice(options):
            return any(_empty(option) for option in options)
        case _Repeat(inner):
            return _empty(inner)
        case _:
            return False


def _lark(node: _Node, names: dict[str, str]) -> str:
    match node:
        case _Leaf(lark):
            return lark
        case _Call(name, _):
            return names[name]
        case _Sequence(parts):
            return " ".join(_lark(part, names) for part in parts) or "()"
        case _Choice(options):
            return "(" + " | ".join(_lark(option, names) for option in options) + ")"
        case _Repeat(inner, times, _):
            return f"({_lark(inner, names)}){times}"
