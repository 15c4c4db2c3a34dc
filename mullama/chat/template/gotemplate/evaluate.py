"""Evaluates a parsed Go template over its data, within the same fuel as Jinja templates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mullama.chat.template.fuel import MAX_OUTPUT, Fuel, OutOfFuel
from mullama.chat.template.gotemplate.functions import Failure, functions
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
from mullama.chat.template.gotemplate.values import Missing, StructValue, is_true, to_text
from mullama.errors import Invalid, TooLarge

MAX_CALLS = 64
_NOTHING = object()


class _Left(Exception):
    """A `break` or `continue` on its way to its loop."""

    def __init__(self, word: str) -> None:
        self.word = word


def execute(tree: Tree, data: Mapping[str, object], fuel: Fuel, now: float) -> str:
    """Return the output of the template. Raises `Invalid` with the line of a failure, `TooLarge` beyond the bounds."""
    run = _Run(dict(tree.defined), fuel, functions(now))
    try:
        run.body(tree.body, data, [{"": data}], 0)
    except OutOfFuel as error:
        raise TooLarge(f"the template stopped: {error}") from error
    except RecursionError as error:
        raise Invalid("the template calls itself too deeply", field="template") from error
    return "".join(run.pieces)


Scopes = list[dict[str, object]]


class _Run:
    """One evaluation: the output so far and the remaining budget."""

    def __init__(self, defined: Mapping[str, Nodes], fuel: Fuel, known: Mapping[str, Callable[..., object]]) -> None:
        self.pieces: list[str] = []
        self._written = 0
        self._defined = defined
        self._fuel = fuel
        self._known = known

    def body(self, nodes: Nodes, dot: object, scopes: Scopes, depth: int) -> None:
        """Evaluate nodes in a scope of their own."""
        inner = [*scopes, {}]
        for node in nodes:
            self._fuel.burn(1)
            self._node(node, dot, inner, depth)

    def _node(self, node: Node, dot: object, scopes: Scopes, depth: int) -> None:
        match node:
            case TextNode(text):
                self._write(text)
            case Output(pipeline):
                value = self._value(pipeline, dot, scopes)
                if not pipeline.names:
                    self._write(to_text(value))
            case If(condition, body, otherwise):
                inner = [*scopes, {}]
                chosen = body if is_true(self._value(condition, dot, inner)) else otherwise
                self.body(chosen, dot, inner, depth)
            case With(pipeline, body, otherwise):
                inner = [*scopes, {}]
                value = self._value(pipeline, dot, inner)
                if is_true(value):
                    self.body(body, value, inner, depth)
                else:
                    self.body(otherwise, dot, inner, depth)
            case Range():
                self._range(node, dot, scopes, depth)
            case Use(name, pipeline, line):
                self._use(name, pipeline, line, dot, scopes, depth)
            case Jump(word):
                raise _Left(word)

    def _write(self, text: str) -> None:
        self._written += len(text)
        if self._written > MAX_OUTPUT:
            raise OutOfFuel(f"its output is longer than {MAX_OUTPUT} characters")
        self._fuel.burn(len(text) >> 10)
        self.pieces.append(text)

    def _range(self, node: Range, dot: object, scopes: Scopes, depth: int) -> None:
        names = node.value.names
        value = self._value(Pipeline(node.value.commands, (), True, node.value.line), dot, scopes)
        items = list(_items(value, node.value.line))
        if not items:
            self.body(node.otherwise, dot, scopes, depth)
        self._fuel.burn(len(items) >> 6)
        for key, item in items:
            self._fuel.burn(1)
            named = dict(zip(names, (item,) if len(names) == 1 else (key, item), strict=False))
            scope: Scopes = [*scopes, named if node.value.declare else {}]
            if not node.value.declare:
                for name, one in named.items():
                    _assign(scope, name, one, node.value.line)
            try:
                self.body(node.body, item, scope, depth)
            except _Left as left:
                if left.word == "break":
                    return

    def _use(self, name: str, pipeline: Pipeline | None, line: int, dot: object, scopes: Scopes, depth: int) -> None:
        if name not in self._defined:
            raise _failed(f"no template is called {name!r}", line)
        if depth >= MAX_CALLS:
            raise OutOfFuel("templates call each other too deeply")
        value = self._value(pipeline, dot, scopes) if pipeline is not None else None
        self.body(self._defined[name], value, [{"": value}], depth + 1)

    def _value(self, pipeline: Pipeline, dot: object, scopes: Scopes) -> object:
        value: object = _NOTHING
        for command in pipeline.commands:
            self._fuel.burn(1)
            value = self._command(command, value, dot, scopes)
        for name in pipeline.names:
            if pipeline.declare:
                scopes[-1][name] = value
            else:
                _assign(scopes, name, value, pipeline.line)
        return value

    def _command(self, command: CommandNode, piped: object, dot: object, scopes: Scopes) -> object:
        first, *rest = command.operands
        if not isinstance(first, FunctionNode):
            if rest or piped is not _NOTHING:
                raise _failed("a value that is not a function has arguments", command.line)
            return self._operand(first, dot, scopes)
        if first.name in ("and", "or"):
            return self._stopping(first.name, rest, piped, dot, scopes)
        if first.name not in self._known:
            raise _failed(f"there is no function {first.name!r}", first.line)
        arguments = [self._operand(operand, dot, scopes) for operand in rest]
        if piped is not _NOTHING:
            arguments.append(piped)
        self._fuel.burn(1 + sum(len(a) >> 8 for a in arguments if isinstance(a, str)))
        try:
            return self._known[first.name](*arguments)
        except (Failure, TypeError, ValueError) as error:
            raise _failed(f"{first.name}: {error}", first.line) from error

    def _stopping(self, name: str, operands: Iterable[Operand], piped: object, dot: object, scopes: Scopes) -> object:
        value: object = _NOTHING
        for operand in operands:
            value = self._operand(operand, dot, scopes)
            if is_true(value) == (name == "or"):
                return value
        return value if piped is _NOTHING else piped

    def _operand(self, operand: Operand, dot: object, scopes: Scopes) -> object:
        match operand:
            case Constant(value):
                return value
            case Dot(names):
                return _fields(dot, names)
            case Variable(name, names):
                for scope in reversed(scopes):
                    if name in scope:
                        return _fields(scope[name], names)
                raise _failed(f"there is no variable ${name}", 0)
            case Chain(base, names):
                return _fields(self._value(base, dot, scopes), names)
            case FunctionNode(name, line):
                return self._command(CommandNode((operand,), line), _NOTHING, dot, scopes)


def _fields(value: object, names: tuple[str, ...]) -> object:
    for name in names:
        if isinstance(value, StructValue):
            value = value.fields.get(name, Missing(name))
        elif isinstance(value, Mapping):
            value = value.get(name, Missing(name))
        else:
            return Missing(name)
    return value


def _items(value: object, line: int) -> Iterable[tuple[object, object]]:
    match value:
        case Mapping():
            return sorted(value.items())
        case list() | tuple():
            return enumerate(value)
        case bool():
            raise _failed("range over a bool", line)
        case int() if value <= 100_000:
            return ((i, i) for i in range(value))
        case None | Missing():
            return ()
        case _:
            raise _failed(f"range over {to_text(value)[:40]!r}", line)


def _assign(scopes: Scopes, name: str, value: object, line: int) -> None:
    for scope in reversed(scopes):
        if name in scope:
            scope[name] = value
            return
    raise _failed(f"there is no variable ${name}", line)


def _failed(message: str, line: int) -> Invalid:
    place = f" in line {line}" if line else ""
    return Invalid(f"the template failed{place}: {message}", field="template")
