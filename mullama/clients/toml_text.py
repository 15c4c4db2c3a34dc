"""TOML configuration files, by tomlkit, which keeps comments and order; the only importer of tomlkit."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.clients.base import PathStep
from mullama.clients.spans import DamagedText


def read(text: str) -> Any:
    """Return the tree of a text; raise `DamagedText` with its place."""
    import tomlkit
    from tomlkit.exceptions import ParseError, TOMLKitError

    try:
        tomlkit.parse(text)
        return tomllib.loads(text)
    except ParseError as error:
        message = str(error).partition(" at line ")[0]
        raise DamagedText(f"not valid TOML: {message}", error.line, error.col + 1) from error
    except (TOMLKitError, tomllib.TOMLDecodeError) as error:
        raise DamagedText(f"not valid TOML: {error}", 1, 1) from error


def put(text: str, path: Sequence[PathStep], value: Any) -> str:
    """Return the text with a value at a path, whose nodes have the types of its steps."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import InlineTable

    keys = [str(step) for step in path]
    try:
        document = tomlkit.parse(text)
        table: Any = document
        for depth, key in enumerate(keys[:-1]):
            if key not in table:
                inline = isinstance(table, InlineTable)
                only_tables = depth < len(keys) - 2 or isinstance(value, Mapping)
                table[key] = tomlkit.inline_table() if inline else tomlkit.table(is_super_table=only_tables)
            table = table[key]
        _set(table, keys[-1], value)
        made: str = tomlkit.dumps(document)
        if not text.endswith("\n\n"):
            made = made.rstrip("\n") + "\n"
    except TOMLKitError as error:
        raise DamagedText(str(error), 1, 1) from error
    return made.replace("\r\n", "\n").replace("\n", "\r\n") if "\r\n" in text else made


def _set(table: Any, key: str, value: Any) -> None:
    import tomlkit
    from tomlkit.items import InlineTable, Table

    if not isinstance(value, Mapping):
        if table.get(key) != value:
            table[key] = value
        return
    is_new = key not in table
    if is_new:
        table[key] = tomlkit.inline_table() if isinstance(table, InlineTable) else tomlkit.table()
    for name, inner in value.items():
        _set(table[key], name, inner)
    if is_new and isinstance(table[key], Table):
        table[key].add(tomlkit.nl())  # the table may be followed by another
