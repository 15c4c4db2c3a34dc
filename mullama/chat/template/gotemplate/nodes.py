"""The nodes of a parsed Go template."""

from __future__ import annotations

from collections.abc import Iterator

from mullama.struct import Struct


class Constant(Struct, frozen=True):
    value: object


class Dot(Struct, frozen=True):
    """`.` and its fields: `.Messages`, `.Function.Name`."""

    names: tuple[str, ...] = ()


class Variable(Struct, frozen=True):
    """`$x.Name`; the name of the root is ""."""

    name: str
    names: tuple[str, ...] = ()


class Chain(Struct, frozen=True):
    """Fields of an expression in parentheses."""

    base: Pipeline
    names: tuple[str, ...] = ()


class FunctionNode(Struct, frozen=True):
    name: str
    line: int


Operand = Constant | Dot | Variable | Chain | FunctionNode


class CommandNode(Struct, frozen=True):
    """A value, or a function with its arguments."""

    operands: tuple[Operand, ...]
    line: int


class Pipeline(Struct, frozen=True):
    """Commands, each of which gets the value of the one before as its last argument.

    names: variables that take the value. declare: True for :=, False for =.
    """

    commands: tuple[CommandNode, ...]
    names: tuple[str, ...] = ()
    declare: bool = True
    line: int = 1


class TextNode(Struct, frozen=True):
    text: str


class Output(Struct, frozen=True):
    pipeline: Pipeline


class If(Struct, frozen=True):
    condition: Pipeline
    body: Nodes
    otherwise: Nodes


class With(Struct, frozen=True):
    value: Pipeline
    body: Nodes
    otherwise: Nodes


class Range(Struct, frozen=True):
    value: Pipeline
    body: Nodes
    otherwise: Nodes


class Use(Struct, frozen=True):
    """`template "name" value`."""

    name: str
    value: Pipeline | None
    line: int


class Jump(Struct, frozen=True):
    """`break` or `continue`."""

    word: str


Node = TextNode | Output | If | With | Range | Use | Jump
Nodes = tuple[Node, ...]


class Tree(Struct, frozen=True):
    """The main body, and the bodies of `define` by name."""

    body: Nodes
    defined: tuple[tuple[str, Nodes], ...] = ()


def pipelines(nodes: Nodes) -> Iterator[Pipeline]:
    """Yield all pipelines of these nodes, including those in parentheses, in order."""
    for node in nodes:
        match node:
            case Output(pipeline):
                yield from _within(pipeline)
            case If(pipeline, body, otherwise) | With(pipeline, body, otherwise) | Range(pipeline, body, otherwise):
                yield from _within(pipeline)
                yield from pipelines(body)
                yield from pipelines(otherwise)
            case Use(_, pipeline, _) if pipeline is not None:
                yield from _within(pipeline)
            case _:
                pass


def fields(pipeline: Pipeline) -> Iterator[str]:
    """Yield all field names of one pipeline."""
    for command in pipeline.commands:
        for operand in command.operands:
            if isinstance(operand, Dot | Variable | Chain):
                yield from operand.names


def _within(pipeline: Pipeline) -> Iterator[Pipeline]:
    yield pipeline
    for command in pipeline.commands:
        for operand in command.operands:
            if isinstance(operand, Chain):
                yield from _within(operand.base)
