"""Jinja's immutable sandbox, with every way to loop, grow or print without bound closed.

A parsed template is rewritten before it is compiled: ticks at the head of loops and macros, and charged operations for
those that Jinja performs implicitly (concatenation, slices, comparison, literals).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import Formatter
from typing import Any, cast

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.environment import Template
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from mullama.chat.template import filters
from mullama.chat.template.filters import charge, fuel_of, percent
from mullama.chat.template.fuel import OutOfFuel, bound_items, bound_text, weigh

MAX_SOURCE = 256 * 1024
MAX_NODES = 60_000
FILE = "<chat template>"

_STRING_METHODS = frozenset((
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust",
    "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust",
    "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    "zfill",
))  # fmt: skip
_SLOW_METHODS = frozenset(("capitalize", "casefold", "find", "index", "rfind", "rindex", "swapcase", "title"))
_METHODS: dict[type, frozenset[str]] = {
    str: _STRING_METHODS,
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
_OPEN_TYPES = (Namespace, LoopContext, Macro)
# Names of our own operations among the filters: no template can write them.
TICK, CHECK, WEIGH, CONCAT, CUT = "tick!", "check!", "weigh!", "concat!", "cut!"


class _BoundedFormatter(SandboxedFormatter):
    """`str.format` with bounded widths and a bounded result."""

    _made = 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        percent(format_spec.replace("%", ""), ())
        weigh(value)
        text = super().format_field(value, format_spec)
        self._made += len(text)
        bound_text(self._made)
        return text


class Sandbox(ImmutableSandboxedEnvironment):
    """One environment for all templates; the state of a rendering is in its context."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            autoescape=False,
            extensions=(LoopControlExtension, GenerationTag),
            finalize=_written,
            cache_size=0,
        )
        self.filters.clear()
        self.filters.update(filters.table())
        self.filters.update({TICK: _tick, CHECK: _check, WEIGH: _weighed, CONCAT: _concat, CUT: _cut})
        self.tests.clear()
        self.tests.update(filters.tests())
        self.globals = {
            "range": self.globals["range"],
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": raise_exception,
        }

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, _OPEN_TYPES):
            return True
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        owner = getattr(value, "__self__", None)
        if not isinstance(owner, str) or getattr(value, "__name__", "") not in ("format", "format_map"):
            return None
        formatter: Formatter = _BoundedFormatter(self)
        return lambda *args, **kwargs: formatter.vformat(owner, args, kwargs)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function, a macro or a method, charged by its arguments."""
        owner = getattr(__obj, "__self__", None)
        fuel = fuel_of(__context)
        fuel.burn(1)
        if isinstance(owner, str):
            charge(fuel, owner, *args)
            fuel.burn(len(owner) >> 6 if __obj.__name__ in _SLOW_METHODS else 0)
            _bound_method(__obj.__name__, owner, args)
        elif isinstance(owner, list | tuple):
            charge(fuel, owner, *args)
        elif __obj is dict:
            charge(fuel, *args, *kwargs.values())
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, list):
            bound_items(len(result))
            fuel.burn(len(result) >> 3)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Evaluate an operator that can build large values from small ones."""
        fuel = fuel_of(context)
        fuel.burn(1)
        match operator:
            case "+" if isinstance(left, str | list | tuple):
                charge(fuel, left, right)
                bound_text(len(left) + _length(right))
            case "*" if not (_is_number(left) and _is_number(right)):
                charge(fuel, left, right)
                bound_text(max(_length(left), 1) * _count(right) + max(_length(right), 1) * _count(left))
            case "*" | "**":
                _bound_number(operator, left, right)
            case "%" if isinstance(left, str):
                charge(fuel, left, right)
                return percent(left, right)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, list | tuple):
            bound_items(len(result))
            fuel.burn(weigh(result) >> 3)
        return result


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks generated text for training; only its body is rendered."""

    tags = {"generation"}  # noqa: RUF012 - the shape that Jinja asks for

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Raised(Exception):
    """The template called raise_exception; the message is the template's own."""


def raise_exception(message: object = "") -> None:
    raise Raised(str(message)[:2000])


def compile_source(sandbox: Sandbox, source: str) -> Template:
    """Parse, rewrite and compile a template. Raises `TemplateSyntaxError` or `OutOfFuel`."""
    if len(source) > MAX_SOURCE:
        raise OutOfFuel(f"it is longer than {MAX_SOURCE} characters")
    tree = sandbox.parse(source, filename=FILE)
    if _size(tree) > MAX_NODES:
        raise OutOfFuel(f"it has more than {MAX_NODES} parts")
    safe = _Rewriter().visit(tree)
    safe.set_environment(sandbox)
    code = sandbox.compile(safe, filename=FILE)
    return Template.from_code(sandbox, code, sandbox.make_globals(None))


def _size(node: nodes.Node) -> int:
    return 1 + sum(_size(child) for child in node.iter_child_nodes())


class _Rewriter(NodeTransformer):
    """Inserts ticks into bodies, and charged operations for free ones."""

    def get_visitor(self, node: nodes.Node) -> Callable[[Any], nodes.Node] | None:
        """Return the rewriting of this kind of node; None keeps the node and visits its children."""
        kinds: dict[type[nodes.Node], Callable[[Any], nodes.Node]] = {
            nodes.For: self.loop,
            nodes.Macro: self.body,
            nodes.CallBlock: self.body,
            nodes.Block: self.body,
            nodes.Concat: self.concatenation,
            nodes.Compare: self.comparison,
            nodes.List: self.literal,
            nodes.Dict: self.literal,
            nodes.Tuple: self.literal,
            nodes.Name: self.name,
            nodes.Getitem: self.subscript,
            nodes.Include: self.refuse,
            nodes.Import: self.refuse,
            nodes.FromImport: self.refuse,
            nodes.Extends: self.refuse,
        }
        return kinds.get(type(node))

    def loop(self, node: nodes.For) -> nodes.Node:
        cost = _tick_node(node)
        self.generic_visit(node)
        node.body.insert(0, cost)
        if node.test is not None:
            node.test = _filter(node.test, CHECK)
        return node

    def body(self, node: nodes.Macro | nodes.CallBlock | nodes.Block) -> nodes.Node:
        cost = _tick_node(node)
        self.generic_visit(node)
        node.body.insert(0, cost)
        return node

    def concatenation(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(list(node.nodes), lineno=node.lineno), CONCAT)

    def comparison(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _weighing(node.expr)
        for operand in node.ops:
            operand.expr = _weighing(operand.expr)
        return node

    def literal(self, node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        stored = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if stored or _constant(node) else _filter(node, WEIGH)

    def name(self, node: nodes.Name) -> nodes.Node:
        grows = node.name in ("varargs", "kwargs") and node.ctx == "load"
        return _filter(node, WEIGH) if grows else node

    def subscript(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        cut = node.arg
        none = nodes.Const(None, lineno=node.lineno)
        return _filter(node.node, CUT, [cut.start or none, cut.stop or none, cut.step or none])

    def refuse(self, node: nodes.Node) -> nodes.Node:
        raise TemplateSyntaxError("a chat template cannot load another template", node.lineno, filename=FILE)


def _constant(node: nodes.Node) -> bool:
    plain = (nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair)
    return all(isinstance(part, plain) for part in node.find_all(nodes.Node))


def _weighing(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(node, WEIGH)


def _filter(node: nodes.Node, name: str, args: Sequence[nodes.Expr] = ()) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, list(args), [], None, None, lineno=node.lineno)


def _tick_node(node: nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block) -> nodes.ExprStmt:
    """Return one tick, more for a body of many parts, and the literal text that the body writes."""
    parts = sum(_size(child) for child in node.body)
    data = sum(len(text.data) for child in node.body for text in child.find_all(nodes.TemplateData))
    data += sum(len(c.data) for out in node.body if isinstance(out, nodes.Output)
                for c in out.nodes if isinstance(c, nodes.TemplateData))  # fmt: skip
    cost = nodes.Const(1 + parts // 64, lineno=node.lineno)
    return nodes.ExprStmt(_filter(cost, TICK, [nodes.Const(data, lineno=node.lineno)]), lineno=node.lineno)


@pass_context
def _tick(context: Context, cost: int, data: int) -> None:
    fuel = fuel_of(context)
    fuel.burn(cost)
    fuel.write(data)


@pass_context
def _check(context: Context, value: object) -> object:
    fuel_of(context).burn(1)
    return value


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    if isinstance(value, Namespace | Undefined) or value is None:
        return value
    weight = weigh(value)
    if weight >= 8:
        fuel_of(context).burn(weight >> 3)
    return value


@pass_context
def _concat(context: Context, parts: list[object]) -> str:
    charge(fuel_of(context), *parts)
    texts = [part if isinstance(part, str) else str(part) for part in parts]
    bound_text(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _cut(context: Context, value: Any, start: Any, stop: Any, step: Any) -> Any:
    fuel_of(context).burn(1 + (_length(value) >> 10))
    return value[start:stop:step]


@pass_context
def _written(context: Context, value: object) -> object:
    """Return the text of an expression in the output; None and lists print as in Python."""
    if not isinstance(value, str):
        weigh(value)
        value = str(value)
    fuel_of(context).write(len(value))
    return value


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _count(value: object) -> int:
    return int(value) if isinstance(value, int) else 0


def _bound_number(operator: str, left: Any, right: Any) -> None:
    for value in (left, right):
        if isinstance(value, int) and value.bit_length() > (1024 if operator == "*" else 64):
            raise OutOfFuel("it computes a number that is too large")
    if operator == "**" and isinstance(right, int) and abs(right) > 64:
        raise OutOfFuel("it computes a number that is too large")


def _bound_method(name: str, text: str, args: Sequence[Any]) -> None:
    """Refuse calls of string methods whose result would be too large."""
    match name:
        case "replace" if len(args) >= 2:
            old, new = str(args[0]), str(args[1])
            bound_text(len(text) + text.count(old) * max(0, len(new) - len(old)))
        case "join" if args:
            parts = list(args[0])
            bound_text(sum(_length(part) for part in parts) + len(text) * (len(parts) + 1))
        case "center" | "ljust" | "rjust" | "zfill" if args and args[0] > filters.PADDING:
            raise OutOfFuel(f"it pads to more than {filters.PADDING} characters")
        case "split" | "rsplit":
            marks = args[:1] if args and isinstance(args[0], str) and args[0] else (" ", "\n", "\t")
            bound_items(sum(text.count(mark) for mark in marks))
        case "splitlines":
            bound_items(text.count("\n"))
        case _:
            pass
