"""Tools of the Responses API: functions, functions in namespaces, and tools that take free text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mullama.chat.types import Tool
from mullama.dialects import schema
from mullama.dialects.fields import Body, many, record, to_record
from mullama.dialects.openai.web_search import KINDS
from mullama.dialects.tools import DESCRIPTION, MOST_TOOLS, NAME, compact, function_tool, unique
from mullama.names import JSONValue
from mullama.struct import Struct

# A tool that takes free text is a function of one string to the model; the reply returns the text.
_FREE_TEXT: Mapping[str, JSONValue] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
TOOL_SCHEMA = schema.record("type", type=schema.STRING)
TOOLS = many("tools", to_record, TOOL_SCHEMA, MOST_TOOLS)
_FORMAT = record("format")


class Known(Struct, frozen=True, kw_only=True):
    """A callable tool, with its name and kind at the client."""

    tool: Tool
    name: str
    namespace: str | None = None
    custom: bool = False


def flat(namespace: str | None, name: str) -> str:
    """Return the name by which the model calls a function of a namespace."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def known_tools(body: Body) -> tuple[Known, ...]:
    """Return the tools that the client calls. Other kinds but those of `mcp` run on OpenAI's servers only."""
    found: list[Known] = []
    for i, value in enumerate(body.get(TOOLS) or ()):
        found += _known(Body(value, f"tools[{i}]"), None)
    unique((one.tool for one in found), "tools")
    return tuple(found)


def _known(one: Body, namespace: str | None) -> Iterator[Known]:
    match one.raw("type"):
        case "function":
            function = function_tool(one)
            name = flat(namespace, function.name)
            tool = Tool(
                name=name,
                description=function.description,
                parameters=function.parameters,
                strict=function.strict,
            )
            yield Known(tool=tool, name=function.name, namespace=namespace)
        case "custom":
            yield _custom(one, namespace)
        case "namespace" if namespace is None:
            space = one.need(NAME)
            for i, inner in enumerate(one.get(TOOLS) or ()):
                yield from _known(Body(inner, f"{one.at('tools')}[{i}]"), space)
        case _:
            pass


def _custom(one: Body, namespace: str | None) -> Known:
    name = one.need(NAME)
    shape = one.get(_FORMAT)
    rule = f"\nThe input has this format: {compact(shape)}" if shape else ""
    tool = Tool(
        name=flat(namespace, name),
        description=(one.get(DESCRIPTION) or "") + rule,
        parameters=_FREE_TEXT,
    )
    return Known(tool=tool, name=name, namespace=namespace, custom=True)


def tool_warnings(body: Body) -> tuple[str, ...]:
    """Return a warning for each tool that only OpenAI's servers run, and for each format that is not enforced."""
    warnings: list[str] = []
    for i, tool in enumerate(body.get(TOOLS) or ()):
        kind, shape = str(tool.get("type"))[:40], tool.get("format")
        if kind not in ("function", "custom", "namespace", "mcp", *KINDS):
            warnings.append(f"tools[{i}] of type {kind} was left out: it does not run here")
        elif kind == "custom" and isinstance(shape, Mapping) and shape.get("type") == "grammar":
            warnings.append(f"tools[{i}]: the grammar is part of the prompt and is not enforced")
    return tuple(warnings)


def echoed(tools: JSONValue) -> list[JSONValue]:
    """Return the tools for the response object, with all members that functions require."""
    if not isinstance(tools, list | tuple):
        return []
    blank: dict[str, JSONValue] = {"description": None, "parameters": None, "strict": None}
    return [{**blank, **tool} if isinstance(tool, dict) and tool.get("type") == "function" else tool for tool in tools]
