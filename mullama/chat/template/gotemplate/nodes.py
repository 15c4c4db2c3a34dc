"""The nodes of a parsed Go template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constant:
    value: object


@dataclass(frozen=True, slots=True)
class Dot:
    """`.` and its fields: `.Messages`, `.Function.Name`."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.Name`; the name of the root is ""."""

    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields of an expression in parentheses."""

    base: Pipeline
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionNode:
    name: str
    line: int


Operand = Constant | Dot | Variable | Chain | FunctionNode


@dataclass(frozen=True, slots=True)
class CommandNode:
    """A value, or a function with its arguments."""

    operands: tuple[Operand, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each of which gets the value of the one before as its last argument.

    names: variables that take the value. declare: True for :=, False for =.
    """

    commands: tuple[CommandNode, ...]
    names: tuple[str, ...] = ()
    declare: bool = True
    line: int = 1


@dataclass(frozen=True, slots=True)
class TextNode:
    text: str


@dataclass(frozen=True, slots=True)
class Output:
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class If:
    condition: Pipeline
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class With:
    value: Pipeline
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class Range:
    value: Pipeline
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class Use:
    """`template "name" value`."""

    name: str
    value: Pipeline | None
    line: int


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    word: str


Node = TextNode | Output | If | With | Range | Use | Jump
Nodes = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Tree:
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
