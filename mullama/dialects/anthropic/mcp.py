"""Servers of tools of a message (`mcp_servers`, and toolsets in `tools`), and the blocks of their calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mullama.chat import types
from mullama.chat.tool_servers import ToolServer
from mullama.dialects import fields, schema
from mullama.dialects.fields import Body
from mullama.dialects.reply_values import prefixed
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct, replace

_MOST_SERVERS = 64
_NAME = fields.text("name", 255)
_URL = fields.text("url", 4096)
_SERVER = fields.text("mcp_server_name", 255)
_ENABLED = fields.flag("enabled")
_ALLOWED = fields.many("allowed_tools", fields.to_text, schema.STRING, 1024)
_SERVER_SCHEMA = schema.record("name url", name=schema.STRING, url=schema.STRING)
SERVERS = fields.many("mcp_servers", fields.to_record, _SERVER_SCHEMA, _MOST_SERVERS)
TOOLSET = "mcp_toolset"


class _Toolset(Struct, frozen=True, kw_only=True):
    """The tools of one server that a request enables."""

    enabled: bool
    """All but those of `others`."""
    others: tuple[str, ...] = ()


def tool_servers(body: Body, tools: Sequence[Mapping[str, JSONValue]]) -> tuple[ToolServer, ...]:
    """Return the servers of a request. One with a toolset offers the tools that the toolset enables, else all."""
    bodies = [Body(value, f"mcp_servers[{i}]") for i, value in enumerate(body.get(SERVERS) or ())]
    servers = [server for one in bodies if (server := _server(one)) is not None]
    names = {one.need(_NAME) for one in bodies}
    if len(names) < len(bodies):
        raise Invalid("mcp_servers has two servers of one name", field="mcp_servers")
    toolsets = _toolsets(tools, names)
    return tuple(_with_toolset(server, toolsets.get(server.label)) for server in servers)


def _server(body: Body) -> ToolServer | None:
    """Return a server; None for one that the request disables."""
    if (kind := body.raw("type")) not in (None, "url"):
        raise fields.unfit(body.at("type"), f"url, not {str(kind)[:40]!r}")
    choice = body.child("tool_configuration")
    if choice is not None and choice.get(_ENABLED) is False:
        return None
    return ToolServer(
        label=body.need(_NAME),
        url=body.need(_URL),
        only=choice.get(_ALLOWED) if choice is not None else None,
        credentials="authorization_token" if body.has("authorization_token") else "",
        place=body.path,
    )


def _toolsets(tools: Sequence[Mapping[str, JSONValue]], names: set[str]) -> dict[str, _Toolset]:
    found: dict[str, _Toolset] = {}
    for i, value in enumerate(tools):
        one = Body(value, f"tools[{i}]")
        if one.raw("type") != TOOLSET:
            continue
        name = one.need(_SERVER)
        if name not in names:
            raise Invalid(
                f"{one.at('mcp_server_name')}: mcp_servers has no server {name!r}", field=one.at(_SERVER.name)
            )
        usual, single = one.child("default_config"), one.child("configs")
        enabled = usual is None or usual.get(_ENABLED) is not False
        others = tuple(
            tool
            for tool in (single.names() if single is not None else ())
            if single is not None
            and (config := single.child(tool)) is not None
            and config.get(_ENABLED) is (not enabled)
        )
        found[name] = _Toolset(enabled=enabled, others=others)
    return found


def _with_toolset(server: ToolServer, toolset: _Toolset | None) -> ToolServer:
    if toolset is None:
        return server
    if toolset.enabled:
        return replace(server, without=toolset.others)
    allowed = server.only
    return replace(server, only=toolset.others if allowed is None else tuple(t for t in toolset.others if t in allowed))


def use_block(started: types.ToolStarted) -> dict[str, JSONValue]:
    """Return the block of a call that the server makes, without its input."""
    return {
        "type": "mcp_tool_use",
        "id": prefixed(started.id, "mcptoolu_"),
        "name": started.name,
        "server_name": started.server,
        "input": {},
    }


def result_block(ended: types.ToolEnded) -> dict[str, JSONValue]:
    """Return the block of the result of a call."""
    return {
        "type": "mcp_tool_result",
        "tool_use_id": prefixed(ended.id, "mcptoolu_"),
        "is_error": ended.is_error,
        "content": [{"type": "text", "text": ended.text}],
    }


def run_blocks(run: types.ToolRun) -> Iterator[JSONValue]:
    """Yield the blocks of a call and of its result."""
    yield {**use_block(run.started), "input": run.started.arguments}
    if run.ended is not None:
        yield result_block(run.ended)
