"""The keys of the manifest's types as a tree: the allowed keys of each map, and the values that must be text.

`trim` removes the `x-*` keys and reports unknown ones; `to_plain` converts nodes to plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.nodes import Fields, Items, Leaf, Node, Plain, join
from mullama.manifest.scalars import read_plain
from mullama.manifest.spec import Block, Manifest, McpServer, Model, Parameters
from mullama.manifest.spec.compiled import fields_of
from mullama.names import JSONValue
from mullama.struct import Struct


class KeyTree(Struct, frozen=True):
    """A block with fixed keys, a map or list of `each`, or a scalar (`text`: it must be text)."""

    block: type[Block] | None = None
    each: KeyTree | None = None
    text: bool = False

    def field(self, key: str) -> KeyTree | None:
        """Return the shape of an entry; None for an unknown key."""
        return self.each if self.block is None else block_fields(self.block).get(key)


_PROGRAM = frozenset(("command", "args", "env", "cwd"))
"""Keys of a server of tools that is a program, in the form of other tools."""

SCALAR = KeyTree()
TEXT = KeyTree(text=True)

# Spellings of a Modelfile that `parameters` accepts, and the (block, field) of each.
SPELLINGS: Mapping[str, tuple[str, str]] = {
    "num_ctx": ("context", "size"),
    "num_batch": ("context", "batch"),
    "num_thread": ("context", "threads"),
    "num_gpu": ("gpu", "layers"),
    "main_gpu": ("gpu", "main"),
    "use_mmap": ("memory", "mmap"),
    "use_mlock": ("memory", "mlock"),
    "draft_num_predict": ("draft", "tokens"),
}
# Values of a Modelfile that mean "automatic", and the value of the field.
AUTOMATIC: Mapping[tuple[str, int], str | None] = {("num_gpu", -1): "auto", ("num_thread", 0): None}


@cache
def block_fields(block: type[Block]) -> Mapping[str, KeyTree]:
    """Return the keys that a block has in a manifest, with those that only the written form has."""
    fields = {info.alias or name: shape_of(info.schema) for name, info in fields_of(block).items()}
    if block is Manifest:
        fields["include"] = KeyTree(each=TEXT)
        fields["defaults"] = KeyTree(block=Model)
        fields["profiles"] = KeyTree(each=KeyTree(block=Manifest))
    if block is Model:
        fields["like"] = fields["hardware"] = TEXT
    if block is Parameters:
        fields.update(dict.fromkeys(SPELLINGS, SCALAR))
    return fields


def shape_of(schema: Any) -> KeyTree:
    """Return the shape of a field by its core schema."""
    match schema:
        case {"type": "model", "cls": block}:
            return KeyTree(block=block)
        case {"type": "str"}:
            return TEXT
        case {"type": "dict", "values_schema": each} | {"type": "tuple", "items_schema": [each, *_]}:
            return KeyTree(each=shape_of(each))
        case {"type": "tagged-union", "choices": choices}:
            return _union([shape_of(choice) for choice in choices.values()])
        case {"type": "union", "choices": choices}:
            return _union([shape_of(choice) for choice in choices])
        case {"schema": inner}:  # a default, None as well, a function before or after
            return shape_of(inner)
        case _:
            return SCALAR


def _union(arms: list[KeyTree]) -> KeyTree:
    """Return the shape of a union: its block, else its only type, else a scalar."""
    blocks = [arm for arm in arms if arm.block]
    return blocks[0] if blocks else arms[0] if len(arms) == 1 else SCALAR


def trim(node: Node, shape: KeyTree, report: Diagnostics, path: str = "") -> Node:
    """Return the tree without `x-*` keys; unknown keys are added to the report."""
    match node:
        case Items(items) if shape.each is not None:
            each = shape.each
            done = tuple(trim(item, each, report, join(path, i)) for i, item in enumerate(items))
            return Items(done, node.place)
        case Fields(entries, keys):
            kept: dict[str, Node] = {}
            for key, child in entries.items():
                below = shape.field(key)
                if below is not None:
                    kept[key] = trim(child, below, report, join(path, key))
                elif shape.block is None:
                    kept[key] = child
                elif not key.startswith("x-"):
                    report.add(join(path, key)[:200], keys[key], *_refusal(key, shape.block, report))
            return Fields(kept, keys, node.place)
        case _:
            return node


def _refusal(key: str, block: type[Block], report: Diagnostics) -> tuple[str, str]:
    """Return the message and the hint for an unknown key of a block."""
    if block is McpServer and key in _PROGRAM:
        return "a manifest runs no program", "list it in /etc/mullama/mcp.json of the machine, then from_host: NAME"
    return "no such field", report.suggest(key, block_fields(block)) or _known(block)


def _known(block: type[Block]) -> str:
    known = block_fields(block)
    return f"known keys: {', '.join(known)}" if len(known) <= 12 else "keys that begin with x- are ignored"


def to_plain(node: Node, shape: KeyTree | None, report: Diagnostics, path: str = "") -> JSONValue:
    """Return plain values for validation; loose text gets the type of its field."""
    match node:
        case Leaf(value, place, loose):
            if not loose or (shape is not None and shape.text):
                return value
            return _read_loose(str(value), report, path, place)
        case Items(items):
            each = shape.each if shape else None
            return [to_plain(item, each, report, join(path, i)) for i, item in enumerate(items)]
        case Fields(entries):
            return {
                key: to_plain(child, shape.field(key) if shape else None, report, join(path, key))
                for key, child in entries.items()
            }


def _read_loose(text: str, report: Diagnostics, path: str, place: Any) -> Plain:
    try:
        return read_plain(text)
    except ValueError as error:
        report.add(path, place, str(error))
        return None
