"""Writes a JSON tree as YAML text that YAML 1.1 and 1.2 read as the same tree, and sizes and durations with units."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mullama.manifest.interpolate import literal
from mullama.manifest.spec import Block, Manifest, readers
from mullama.manifest.spec.compiled import fields_of
from mullama.units import duration_literal, parse_duration, parse_size, size_literal

# Text that every version of YAML reads as a string. Other text is quoted as JSON, which is valid YAML.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"))


class Comment(str):
    """A key of a map that is written as lines of comment; its value is ignored."""

    __slots__ = ()


class TextBlock(str):
    """A text of several lines, written as a literal block."""

    __slots__ = ()


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Return the YAML text of a tree."""
    return "".join(f"{line}\n" for line in _map(tree, ""))


def manifest_text(manifest: Manifest, *, defaults: bool = True) -> str:
    """Return the text of a file that reads as an equal manifest. defaults: False leaves out fields with their default.

    Paths are absolute, and references to the environment have their values.
    """
    return resolved_text(
        manifest.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults)
    )


def resolved_text(tree: Mapping[str, Any]) -> str:
    """Return the text of a resolved tree, with units."""
    return to_yaml({"mullama": "v1", **{key: literal(value) for key, value in with_units(tree, Manifest).items()}})


def with_units(tree: Mapping[str, Any], block: type[Block]) -> dict[str, Any]:
    """Return the tree of a block with its bytes and seconds as a manifest spells them: `8MiB`, `30s`.

    A number that no such text has exactly stays a number.
    """
    schemas = {info.alias or name: info.schema for name, info in fields_of(block).items()}
    return {key: _with_unit(value, schemas[key]) for key, value in tree.items()}


def _with_unit(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return a value with its unit. schema: the core schema of its field."""
    match schema:
        case {"type": "model", "cls": block} if isinstance(value, Mapping):
            return with_units(value, block)
        case {"type": "dict", "values_schema": each} if isinstance(value, Mapping):
            return {key: _with_unit(item, each) for key, item in value.items()}
        case {"type": "tuple", "items_schema": [each, *_]} if isinstance(value, (list, tuple)):
            return [_with_unit(item, each) for item in value]
        case {"type": "union" | "tagged-union", "choices": choices}:
            arms = choices.values() if isinstance(choices, Mapping) else choices
            shown = (_with_unit(value, arm) for arm in arms)
            return next((text for text in shown if text != value), value)
        case {"type": "function-before", "function": {"function": read}} if read in _LITERALS:
            return _literal(value, *_LITERALS[read])
        case {"schema": inner}:  # a default, None as well, another function
            return _with_unit(value, inner)
        case _:
            return value


def _literal(value: Any, write: Callable[[Any], str], read: Callable[[str], float]) -> Any:
    """Return the text of a number, unless it does not read as the same number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    text = write(value)
    with suppress(ValueError):
        return text if read(text) == value else value
    return value


_LITERALS: Mapping[Any, tuple[Callable[[Any], str], Callable[[str], float]]] = {
    readers.read_size: (size_literal, parse_size),
    readers.parse_share: (size_literal, parse_size),
    readers.read_duration: (duration_literal, parse_duration),
}
"""How a number is written and read, by the function that reads its field."""


def _map(tree: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(key, Comment):
            yield from (f"{indent}# {line}".rstrip() for line in key.split("\n"))
        else:
            yield from _entry(f"{indent}{_scalar(key)}:", value, indent + "  ")


def _list(items: Sequence[Any], indent: str) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and item:
            first, *rest = _map(item, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield from _entry(f"{indent}-", item, indent + "  ")


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield head
        yield from _map(value, indent)
    elif isinstance(value, (list, tuple)) and value:
        yield head
        yield from _list(value, indent)
    elif isinstance(value, TextBlock) and _is_literal(value):
        yield f"{head} |"
        yield from (f"{indent}{line}" if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _is_literal(text: str) -> bool:
    """Return True if a literal block carries exactly this text: it ends with one line end, and begins with no space."""
    return (
        text.endswith("\n")
        and text.strip() != ""
        and text[0] not in " \n"
        and not text.endswith("\n\n")
        and all(line.isprintable() for line in text.removesuffix("\n").split("\n"))
    )


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _reserved(value):
        return value
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 reads 1e9 as a string
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _reserved(text: str) -> bool:
    return text.casefold() in _WORDS
