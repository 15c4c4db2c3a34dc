"""The manifest's types as a tree of keys: which keys a map may have, and which values are text.

Two walks use it: `trim` takes out the free `x-*` notes and names unknown keys, `to_plain` makes plain values.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.nodes import Fields, Items, Leaf, Node, Plain, join
from mullama.manifest.scalars import read_plain
from mullama.manifest.spec import Block, Manifest, Model, Parameters
from mullama.names import JSONValue


@dataclass(frozen=True, slots=True)
class KeyTree:
    """One of: a block with fixed keys, a map or list of `each`, or a scalar (`text`: only text will do)."""

    block: type[Block] | None = None
    each: KeyTree | None = None
    text: bool = False

    def field(self, key: str) -> KeyTree | None:
        """The shape of an entry; None for an unknown key."""
        return self.each if self.block is None else block_fields(self.block).get(key)


SCALAR = KeyTree()
TEXT = KeyTree(text=True)

# Other spellings of a Modelfile inside `parameters`, and the fields of the blocks that they mean.
SPELLINGS: Mapping[str, tuple[str, str]] = {
    "num_ctx": ("context", "size"),
    "num_batch": ("context", "batch"),
    "num_thread": ("context", "threads"),
    "num_gpu": ("gpu", "layers"),
    "main_gpu": ("gpu", "main"),
    "use_mmap": ("memory", "mmap"),
    "use_mlock": ("memory", "mlock"),
}
# What a Modelfile writes for "as the program likes", and what that is here.
AUTOMATIC: Mapping[tuple[str, int], str | None] = {("num_gpu", -1): "auto", ("num_thread", 0): None}


@cache
def block_fields(block: type[Block]) -> Mapping[str, KeyTree]:
    """The keys of a block as they are written, with what only the written form has."""
    fields = {info.alias or name: shape_of(info.annotation) for name, info in block.model_fields.items()}
    if block is Manifest:
        fields["include"] = KeyTree(each=TEXT)
        fields["defaults"] = KeyTree(block=Model)
        fields["profiles"] = KeyTree(each=KeyTree(block=Manifest))
    if block is Model:
        fields["like"] = fields["hardware"] = TEXT
    if block is Parameters:
        fields.update(dict.fromkeys(SPELLINGS, SCALAR))
    return fields


def shape_of(annotation: Any) -> KeyTree:
    """The shape of a field's type."""
    if get_origin(annotation) is Annotated:
        return shape_of(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return KeyTree(block=annotation)
    origin, arms = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union([shape_of(arm) for arm in arms if arm is not type(None)])
    if origin is dict:
        return KeyTree(each=shape_of(arms[1]))
    if origin is tuple:
        return KeyTree(each=shape_of(arms[0]))
    return TEXT if annotation is str else SCALAR


def _union(arms: list[KeyTree]) -> KeyTree:
    """The block among them, else the only arm, else a scalar that may be several things."""
    blocks = [arm for arm in arms if arm.block]
    return blocks[0] if blocks else arms[0] if len(arms) == 1 else SCALAR


def trim(node: Node, shape: KeyTree, report: Diagnostics, path: str = "") -> Node:
    """The tree without its `x-*` notes; unknown keys go to the report."""
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
                    hint = report.suggest(key, block_fields(shape.block)) or _known(shape.block)
                    report.add(join(path, key)[:200], keys[key], "no such field", hint)
            return Fields(kept, keys, node.place)
        case _:
            return node


def _known(block: type[Block]) -> str:
    known = block_fields(block)
    return f"known here: {', '.join(known)}" if len(known) <= 12 else "keys that begin with x- are free"


def to_plain(node: Node, shape: KeyTree | None, report: Diagnostics, path: str = "") -> JSONValue:
    """Plain values for the types to judge; loose text becomes what its field can take."""
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
