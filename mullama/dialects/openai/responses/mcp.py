"""Servers of tools of the Responses API (`type: mcp`): the tools of a request, the items of its calls and approvals."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from mullama.chat.tool_servers import ALWAYS, NO_APPROVAL, Approval, ApprovalRule, ToolServer, function_name
from mullama.chat.types import ApprovalNeeded, ToolCall, ToolEnded, ToolsListed, ToolStarted
from mullama.dialects import fields, schema
from mullama.dialects.fields import Body
from mullama.dialects.tools import NAME, arguments_of, compact
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue
from mullama.struct import Struct

Item = Mapping[str, JSONValue]

_LABEL = fields.text("server_label", 256)
_URL = fields.text("server_url", 4096)
_ID = fields.text("id", 256)
_REQUEST_ID = fields.text("approval_request_id", 256)
_APPROVE = fields.flag("approve")
_REASON = fields.text("reason", 4096)
_NAMES = fields.many("tool_names", fields.to_text, schema.STRING, 1024)
_ELSEWHERE = ("connector_id", "tunnel_id")
_REFUSED = "Error: A person refused this call."
_UNANSWERED = "Error: This call was not made, because it was not approved."


def tool_servers(tools: Iterable[Item], items: Iterable[Item]) -> tuple[ToolServer, ...]:
    """Return the servers that the tools of a request name. items: of the conversation, which may list their tools."""
    listed = {item.get("server_label") for item in items if item.get("type") == "mcp_list_tools"}
    bodies = (Body(tool, f"tools[{i}]") for i, tool in enumerate(tools))
    return tuple(_server(body, listed) for body in bodies if body.raw("type") == "mcp")


def _server(body: Body, listed: set[JSONValue]) -> ToolServer:
    for name in _ELSEWHERE:
        if body.has(name):
            raise Unsupported(
                f"{body.at(name)} is not supported: it is a service of OpenAI",
                hint="name a server of the manifest by server_label or server_url",
                field=body.at(name),
            )
    label = body.need(_LABEL)
    return ToolServer(
        label=label,
        url=body.get(_URL) or "",
        only=_allowed(body),
        approve=_approval_rule(body),
        listed=label in listed,
        credentials=next((name for name in ("authorization", "headers") if body.has(name)), ""),
        place=body.path,
    )


def _allowed(body: Body) -> tuple[str, ...] | None:
    value = body.raw("allowed_tools")
    if value is None:
        return None
    if isinstance(value, Mapping):
        return _filter(Body(value, body.at("allowed_tools")))
    return fields.to_list(value, body.at("allowed_tools"), fields.to_text, 1024)


def _filter(body: Body) -> tuple[str, ...] | None:
    """Return the names of a filter of tools; None for a filter of all."""
    if body.has("read_only"):
        raise Unsupported(
            f"{body.at('read_only')} is not supported: the claim of a server about its tools is not trusted",
            hint="name the tools by tool_names",
            field=body.at("read_only"),
        )
    return body.get(_NAMES)


def _approval_rule(body: Body) -> ApprovalRule:
    """Return the approvals that a request asks for; without the field, every call needs one, as the API defines."""
    value = body.raw("require_approval")
    if value is None or value == "always":
        return ALWAYS
    if value == "never":
        return NO_APPROVAL
    if not isinstance(value, Mapping):
        raise fields.unfit(body.at("require_approval"), "always, never, or an object with filters for always and never")
    rule = Body(value, body.at("require_approval"))
    always, never = rule.child("always"), rule.child("never")
    if never is not None:
        names = _filter(never)
        return ApprovalRule(others=True, names=names) if names is not None else NO_APPROVAL
    names = _filter(always) if always is not None else None
    return ApprovalRule(names=names) if names is not None else ALWAYS


# Items of the conversation.


class McpItems(Struct, frozen=True, kw_only=True):
    """The approvals of a conversation, and the calls that followed them."""

    answers: Mapping[str, Approval]
    """By the id of the question."""
    made: frozenset[str]
    """The ids of the questions whose calls were made."""

    @property
    def pending(self) -> tuple[Approval, ...]:
        """The answers whose calls were not made yet."""
        return tuple(answer for id, answer in self.answers.items() if id not in self.made)


def read_items(items: Iterable[Item]) -> McpItems:
    """Return the approvals in the items of a conversation.

    Raises `Invalid` for the answer to a question that the conversation does not have, or has answered before.
    """
    asked: set[str] = set()
    answers: dict[str, Approval] = {}
    made: set[str] = set()
    for i, item in enumerate(items):
        body = Body(item, f"input[{i}]")
        match body.raw("type"):
            case "mcp_approval_request":
                asked.add(body.need(_ID))
            case "mcp_approval_response":
                id = body.need(_REQUEST_ID)
                _check_asked(id, asked, answers)
                answers[id] = Approval(id=id, approved=body.need(_APPROVE), reason=body.get(_REASON) or "")
            case "mcp_call" if body.has("approval_request_id"):
                made.add(body.need(_REQUEST_ID))
            case _:
                pass
    return McpItems(answers=answers, made=frozenset(made))


def _check_asked(id: str, asked: Container[str], answers: Container[str]) -> None:
    if id not in asked:
        raise Invalid(
            f"approval_request_id {id[:80]!r} names no approval request of this conversation",
            hint="name the response that asked in previous_response_id, or send its item mcp_approval_request first",
            field="input",
        )
    if id in answers:
        raise Invalid(
            f"the approval request {id[:80]!r} was answered already",
            hint="each mcp_approval_request takes one mcp_approval_response; leave the second one out",
            field="input",
        )


def call_of(item: Body) -> ToolCall:
    """Return the call of an item for a call or for an approval, by the name of its function."""
    name = function_name(item.need(_LABEL), item.need(NAME))
    return ToolCall(id=item.need(_ID), name=name, arguments=arguments_of(item.raw("arguments")))


def result_of(item: Body) -> str:
    """Return the result of a call as the model read it."""
    error = item.raw("error")
    if error is not None:
        return f"Error: {_error_text(error)}"
    output = item.raw("output")
    return output if isinstance(output, str) else "" if output is None else compact(output)


def _error_text(error: JSONValue) -> str:
    if not isinstance(error, Mapping):
        return error if isinstance(error, str) else compact(error)
    content = error.get("content")
    if isinstance(content, list | tuple):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(error.get("message") or content or "")


def unmade(id: str, items: McpItems) -> str | None:
    """Return the result of a call that was not made; None for an approved one, which is made now."""
    answer = items.answers.get(id)
    if answer is None:
        return _UNANSWERED
    if answer.approved:
        return None
    return f"{_REFUSED} The reason: {answer.reason}" if answer.reason else _REFUSED


# Items of the answer.


def list_item(id: str, event: ToolsListed) -> dict[str, JSONValue]:
    """Return the item with the tools of a server."""
    tools: list[JSONValue] = [
        {
            "name": tool.name,
            "description": tool.description or None,
            "input_schema": tool.parameters if tool.parameters is not None else {"type": "object"},
            "annotations": None,
        }
        for tool in event.tools
    ]
    error = {"error": event.error} if event.error else {}
    return {"id": id, "type": "mcp_list_tools", "server_label": event.server, "tools": tools, **error}


def call_item(id: str, started: ToolStarted, ended: ToolEnded | None, status: str = "") -> dict[str, JSONValue]:
    """Return the item of a call, with its result if it has one."""
    error: JSONValue = None
    if ended is not None and ended.is_error:
        error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": ended.text}]}
    result = "in_progress" if ended is None else "failed" if ended.is_error else "completed"
    return {
        "id": id,
        "type": "mcp_call",
        "server_label": started.server,
        "name": started.name,
        "arguments": compact(started.arguments),
        "approval_request_id": started.approval,
        "output": None if ended is None or ended.is_error else ended.text,
        "error": error,
        "status": status or result,
    }


def approval_item(id: str, event: ApprovalNeeded) -> dict[str, JSONValue]:
    """Return the item that asks for an approval."""
    return {
        "id": id,
        "type": "mcp_approval_request",
        "server_label": event.server,
        "name": event.name,
        "arguments": compact(event.arguments),
    }
