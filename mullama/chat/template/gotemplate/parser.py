"""Parses a Go template to its tree; errors name the line."""

from __future__ import annotations

import json
import re

from mullama.chat.template.gotemplate.lexer import ActionToken, Literal, Token, lex, wrong
from mullama.chat.template.gotemplate.nodes import (
    Chain,
    CommandNode,
    Constant,
    Dot,
    FunctionNode,
    If,
    Jump,
    Node,
    Nodes,
    Operand,
    Output,
    Pipeline,
    Range,
    TextNode,
    Tree,
    Use,
    Variable,
    With,
)
from mullama.errors import TooLarge

MAX_SOURCE = 256 * 1024
MAX_DEPTH = 64
_WORDS = {"true": True, "false": False, "nil": None}
_END = ActionToken((), 0)


def parse(source: str) -> Tree:
    """Return the tree. Raises `Invalid` with the line of a mistake, `TooLarge` beyond the bounds."""
    if len(source) > MAX_SOURCE:
        raise TooLarge(f"the template is longer than {MAX_SOURCE} characters")
    return _Parser(source).tree()


class _Parser:
    """A recursive-descent parser of statements, over literals and actions."""

    def __init__(self, source: str) -> None:
        self._items = [*lex(source), _END]
        self._at = 0
        self._defined: dict[str, Nodes] = {}
        self._loops = 0

    def tree(self) -> Tree:
        body, end = self._nodes(0)
        if end is not _END:
            raise wrong(f"unexpected {{{{{_word(end)}}}}}", end.line)
        return Tree(body, tuple(self._defined.items()))

    def _nodes(self, depth: int) -> tuple[Nodes, ActionToken]:
        """Return the nodes up to an `end`, an `else` or the end of the source, and that action."""
        if depth > MAX_DEPTH:
            raise wrong(f"actions are nested deeper than {MAX_DEPTH}", self._line())
        made: list[Node] = []
        while True:
            item = self._items[self._at]
            self._at += 1
            if isinstance(item, Literal):
                if item.text:
                    made.append(TextNode(item.text))
                continue
            if item is _END or _word(item) in ("end", "else"):
                return tuple(made), item
            node = self._statement(item, depth)
            if node is not None:
                made.append(node)

    def _statement(self, action: ActionToken, depth: int) -> Node | None:
        rest = action.tokens[1:]
        match _word(action):
            case "if":
                return If(*self._branches(action, depth))
            case "with":
                return With(*self._branches(action, depth))
            case "range":
                self._loops += 1
                node = Range(*self._branches(action, depth))
                self._loops -= 1
                return node
            case "define":
                self._define(action, depth)
                return None
            case "block":
                name = self._define(action, depth)
                return Use(name, _Expressions(rest[1:], action.line).whole(), action.line)
            case "template":
                return self._use(action)
            case "break" | "continue" as word:
                if not self._loops:
                    raise wrong(f"{word} outside of range", action.line)
                return Jump(word)
            case _ if not action.tokens:
                raise wrong("an action is empty", action.line)
            case _:
                return Output(_Expressions(action.tokens, action.line).whole())

    def _branches(self, action: ActionToken, depth: int) -> tuple[Pipeline, Nodes, Nodes]:
        pipeline = _Expressions(action.tokens[1:], action.line).whole()
        body, end = self._nodes(depth + 1)
        if end is _END:
            raise wrong(f"{{{{{_word(action)}}}}} is not ended", action.line)
        if _word(end) == "end":
            return pipeline, body, ()
        if len(end.tokens) == 1:
            otherwise, end = self._nodes(depth + 1)
            if _word(end) != "end" or end is _END:
                raise wrong("{{else}} is not ended", action.line)
            return pipeline, body, otherwise
        # `else if` holds a statement of its own, which takes the end with it.
        inner = self._statement(ActionToken(end.tokens[1:], end.line), depth + 1)
        return pipeline, body, (inner,) if inner is not None else ()

    def _define(self, action: ActionToken, depth: int) -> str:
        name = _name(action)
        body, end = self._nodes(depth + 1)
        if _word(end) != "end" or end is _END:
            raise wrong(f"{{{{{_word(action)}}}}} is not ended", action.line)
        self._defined[name] = body
        return name

    def _use(self, action: ActionToken) -> Use:
        rest = action.tokens[2:]
        value = _Expressions(rest, action.line).whole() if rest else None
        return Use(_name(action), value, action.line)

    def _line(self) -> int:
        return self._items[min(self._at, len(self._items) - 1)].line


def _word(action: ActionToken) -> str:
    first = action.tokens[:1]
    return first[0].text if first and first[0].kind == "word" else ""


def _name(action: ActionToken) -> str:
    if len(action.tokens) < 2 or action.tokens[1].kind != "text":
        raise wrong(f"{{{{{_word(action)}}}}} needs a name in quotes", action.line)
    return str(_constant(action.tokens[1]))


class _Expressions:
    """A recursive-descent parser of pipelines, over the tokens of one action."""

    def __init__(self, tokens: tuple[Token, ...], line: int) -> None:
        self._tokens = tokens
        self._at = 0
        self._line = line

    def whole(self) -> Pipeline:
        """Return one pipeline; raise for any text after it."""
        made = self._pipeline(0)
        if self._at < len(self._tokens):
            raise wrong(f"unexpected {self._tokens[self._at].text!r}", self._line)
        return made

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _is(self, mark: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "mark" and token.text == mark

    def _pipeline(self, depth: int) -> Pipeline:
        if depth > MAX_DEPTH:
            raise wrong(f"parentheses are nested deeper than {MAX_DEPTH}", self._line)
        names, declare = self._declaration()
        commands = [self._command(depth)]
        while self._is("|"):
            self._at += 1
            commands.append(self._command(depth))
        return Pipeline(tuple(commands), names, declare, self._line)

    def _declaration(self) -> tuple[tuple[str, ...], bool]:
        """Return `$i, $v :=` or `$v =` at the beginning, if present."""
        names: list[str] = []
        at = self._at
        while at < len(self._tokens) and self._tokens[at].kind == "variable":
            names.append(self._tokens[at].text[1:])
            at += 1
            if at < len(self._tokens) and self._tokens[at].text == "," and len(names) < 2:
                at += 1
                continue
            break
        if names and at < len(self._tokens) and self._tokens[at].text in (":=", "="):
            self._at = at + 1
            return tuple(names), self._tokens[at].text == ":="
        return (), True

    def _command(self, depth: int) -> CommandNode:
        operands: list[Operand] = []
        while (token := self._peek()) is not None and not (token.kind == "mark" and token.text in "|)"):
            operands.append(self._operand(token, depth))
        if not operands:
            raise wrong("a value is missing", self._line)
        return CommandNode(tuple(operands), self._line)

    def _operand(self, token: Token, depth: int) -> Operand:
        self._at += 1
        match token.kind:
            case "field":
                return Dot((token.text[1:], *self._fields()))
            case "variable":
                return Variable(token.text[1:], self._fields())
            case "word" if token.text in _WORDS:
                return Constant(_WORDS[token.text])
            case "word":
                return FunctionNode(token.text, token.line)
            case "text" | "char" | "number":
                return Constant(_constant(token))
            case _ if token.text == ".":
                return Dot()
            case _ if token.text == "(":
                inner = self._pipeline(depth + 1)
                if not self._is(")"):
                    raise wrong("a parenthesis is not closed", token.line)
                self._at += 1
                return Chain(inner, self._fields())
            case _:
                raise wrong(f"unexpected {token.text!r}", token.line)

    def _fields(self) -> tuple[str, ...]:
        """Return the fields that follow without a space."""
        names: list[str] = []
        while (token := self._peek()) is not None and token.kind == "field" and not token.spaced:
            names.append(token.text[1:])
            self._at += 1
        return tuple(names)


def _constant(token: Token) -> object:
    text = token.text
    if token.kind == "number":
        digits = text.replace("_", "")
        if re.fullmatch(r"[+-]?0[xX].*", digits):
            return int(digits, 16)
        return float(digits) if re.search(r"[.eE]", digits) else int(digits)
    if text.startswith("`"):
        return text[1:-1]
    try:
        value = json.loads('"' + _as_json(text[1:-1]) + '"')
    except ValueError as error:
        raise wrong(f"{text} is not a valid string", token.line) from error
    return ord(value) if token.kind == "char" and len(value) == 1 else value


_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8})|([0-7]{3})|([av']))")


def _as_json(body: str) -> str:
    """Rewrite Go's escapes to JSON's; common ones stay."""

    def one(found: re.Match[str]) -> str:
        hexadecimal, letter = found[1] or found[2], found[4]
        if letter:
            return {"a": "\\u0007", "v": "\\u000b"}.get(letter, letter)
        point = int(hexadecimal, 16) if hexadecimal else int(found[3], 8)
        return "".join(f"\\u{unit:04x}" for unit in _units(point))

    return _ESCAPE.sub(one, body)


def _units(point: int) -> list[int]:
    """Return a code point as UTF-16 units."""
    if point < 0x10000:
        return [point]
    point -= 0x10000
    return [0xD800 + (point >> 10), 0xDC00 + (point & 0x3FF)]
