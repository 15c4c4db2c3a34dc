"""The tools of a server that models may have, out of those that it lists. Pure.

A server decides on names, descriptions and schemas, so each of them is checked and bounded here. A tool that fails a
check is left out with the reason; the others serve.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mullama.chat.constraint.metaschema import malformed
from mullama.chat.constraint.schema import enforceable
from mullama.errors import Invalid
from mullama.struct import Struct, field, replace
from mullama.tools.base import ServerTool
from mullama.units import printable, size

MOST_TOOLS: Final = 256
_LONGEST_NAME: Final = 128
_LONGEST_DESCRIPTION: Final = 16 * 1024


class ToolListing(Struct, frozen=True, kw_only=True):
    """The tools of a server, sorted by name, and the reasons for which others are left out."""

    tools: tuple[ServerTool, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    """A clause for each allowed tool that is left out, by its name."""
    unmatched: tuple[str, ...] = ()
    """The allowed names and patterns that no listed tool has."""


def usable_tools(listed: Iterable[ServerTool], allowed: Sequence[str]) -> ToolListing:
    """Return the listed tools with an allowed name that a model can have.

    Their parameters have a type and properties, because some chat templates fail without them. allowed: names or
    patterns. Work that takes some milliseconds for each tool: call it in a thread.
    """
    named = [(tool, [pattern for pattern in allowed if fnmatch.fnmatchcase(tool.name, pattern)]) for tool in listed]
    matched = {pattern for _, patterns in named for pattern in patterns}
    chosen = [tool for tool, patterns in named if patterns]
    names = Counter(tool.name for tool in chosen)
    functions = Counter(tool.function for tool in {tool.name: tool for tool in chosen}.values())
    usable: list[ServerTool] = []
    left_out: dict[str, str] = {}
    for tool in sorted(chosen, key=lambda tool: tool.name):
        if names[tool.name] > 1:
            reason = "is listed twice"
        elif functions[tool.function] > 1:
            reason = f"has the function name {tool.function} of another tool"
        else:
            reason = _mistake(tool)
        if reason:
            left_out[_shown(tool.name)] = printable(reason)[:300]  # it quotes the schema
        else:
            usable.append(replace(tool, parameters={"type": "object", "properties": {}, **tool.parameters}))
    for tool in usable[MOST_TOOLS:]:
        left_out[_shown(tool.name)] = f"is beyond the {MOST_TOOLS} tools of a server"
    unmatched = tuple(pattern for pattern in allowed if pattern not in matched and pattern != "*")
    return ToolListing(tools=tuple(usable[:MOST_TOOLS]), left_out=left_out, unmatched=unmatched)


def _mistake(tool: ServerTool) -> str:
    """Return the reason why a model cannot have a tool; "" for none."""
    if not tool.name.isprintable() or not 0 < len(tool.name) <= _LONGEST_NAME:
        return f"has a name that is not of 1 to {_LONGEST_NAME} printable characters"
    if len(tool.description.encode("utf-8", "replace")) > _LONGEST_DESCRIPTION:
        return f"has a description of more than {size(_LONGEST_DESCRIPTION)}"
    kind = tool.parameters.get("type", "object")
    if kind != "object":
        return f"has a schema of the type {str(kind)[:40]!r}, and arguments are an object"
    try:
        enforceable(tool.parameters, what="its schema", strict=False, field="parameters")
    except Invalid as error:
        return f"has a schema that cannot be enforced: {error.message}"
    mistake = malformed(tool.parameters)
    return f"has a schema that cannot be enforced: {mistake}" if mistake else ""


def _shown(name: str) -> str:
    """Return a name for messages, which a server cannot use to write into a log or a terminal."""
    return name if name.isprintable() and 0 < len(name) <= _LONGEST_NAME else repr(name[:40])


def summary(listing: ToolListing) -> str:
    """Return the tools that are left out in words; "" for none."""
    shown = [f"{name} {reason}" for name, reason in list(listing.left_out.items())[:3]]
    if (more := len(listing.left_out) - len(shown)) > 0:
        shown.append(f"{more} more are left out")
    missing = [f"no tool is named {pattern}" for pattern in listing.unmatched[:3]]
    return "; ".join((*shown, *missing))
