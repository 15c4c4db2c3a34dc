"""The fields of the manifest with path and description, for the schema and the reference page."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

from mullama.manifest.spec.definitions import Block, Manifest
from mullama.struct import Struct


class DescribedField(Struct, frozen=True, kw_only=True):
    """One field of a block."""

    path: str
    """Dotted path, with `*` for any key; lists add nothing to it."""
    block: type[Block]
    key: str
    """Key in a manifest."""
    name: str
    """Attribute of the block."""
    description: str


@cache
def described() -> tuple[DescribedField, ...]:
    """Return the fields of each block once: models first, then in the order of the manifest."""
    found: dict[tuple[type[Block], str], DescribedField] = {}
    inside_models = (field for field in _below(Manifest, "", only="models") if field.block is not Manifest)
    for field in (*inside_models, *_below(Manifest, "")):
        found.setdefault((field.block, field.key), field)
    return tuple(found.values())


def _below(block: type[Block], path: str, only: str = "") -> Iterator[DescribedField]:
    docs = attribute_docs(block)
    for name, info in block.model_fields.items():
        key = info.alias or name
        if only and key != only:
            continue
        here = f"{path}.{key}" if path else key
        description = docs.get(name) or info.description or ""
        yield DescribedField(path=here, block=block, key=key, name=name, description=description)
        inner, named = _inner(info.annotation)
        if inner is not None:
            yield from _below(inner, f"{here}.*" if named else here)


def _inner(annotation: Any) -> tuple[type[Block] | None, bool]:
    """Return the block that a field has, or each entry of it; True for entries with names."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation, False
    found = (_inner(argument)[0] for argument in get_args(annotation))
    return next(filter(None, found), None), get_origin(annotation) is dict


def attribute_docs(block: type[Block]) -> dict[str, str]:
    """Return the string under each attribute in the source of a class, in one line, as a row of a table needs it.

    The attributes of its base classes are among them.
    """
    inherited = attribute_docs(base) if issubclass(base := block.__bases__[0], Block) and base is not Block else {}
    return inherited | _own_docs(block)


def _own_docs(block: type[Block]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(block))).body
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = following.value if isinstance(following, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[statement.target.id] = " ".join(value.value.split())
    return docs
