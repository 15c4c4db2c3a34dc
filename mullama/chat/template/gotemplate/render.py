"""Ollama's rules for Go templates: the data of a template, and the rendering of older templates turn by turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from mullama.chat.template.base import ChatInput, Rendered, Thinking, Traits
from mullama.chat.template.fuel import Fuel, budget
from mullama.chat.template.gotemplate.evaluate import execute
from mullama.chat.template.gotemplate.functions import typescript
from mullama.chat.template.gotemplate.nodes import (
    CommandNode,
    Dot,
    If,
    Node,
    Nodes,
    Output,
    Pipeline,
    Range,
    TextNode,
    Tree,
    With,
    fields,
    pipelines,
)
from mullama.chat.template.gotemplate.parser import parse
from mullama.chat.template.gotemplate.values import JsonList, JsonMap, StructValue
from mullama.chat.template.shape import arguments_of, plain, plain_tools
from mullama.chat.template.thinking import ends_open, find_marks, left_open, nearest_level
from mullama.chat.template_arguments import TEMPLATE_ARGUMENTS
from mullama.chat.types import Message, TextPart, Tool, ToolCall, text_message
from mullama.errors import Invalid
from mullama.struct import Struct, replace

PROBE = ToolCall(id="call_0", name="probe_weather", arguments={"probe_place": "Xanadu"})
LEVELS = ("low", "medium", "high", "max")
_END = "\ue0ff\ue0fe\ue0ff"


class GoTemplate(Struct, frozen=True, kw_only=True):
    """The TEMPLATE of a Modelfile.

    names: all fields that it reads, in lower case.
    """

    source: str
    tree: Tree
    names: frozenset[str]
    traits: Traits
    syntax: Literal["go"] = "go"
    arguments: frozenset[str] = TEMPLATE_ARGUMENTS

    def render(self, chat: ChatInput) -> Rendered:
        """Render the prompt of a conversation; raises as the protocol states."""
        fuel = Fuel(budget(sum(len(m.text) >> 6 for m in chat.messages) + 64 * len(chat.tools), len(chat.messages)))
        think = _think(chat, self.traits)
        if chat.suffix and "suffix" in self.names:
            prompt = "\n\n".join(m.text for m in chat.messages if m.role == "user")
            text = self._run(fuel, chat.now, {"Prompt": prompt, "Suffix": chat.suffix, "Response": "", **think})
        else:
            text = self._conversation(chat, fuel, think)
        marks, last = self.traits.thinking, chat.messages[-1]
        continued = chat.continue_final and last.role == "assistant"
        return Rendered(text=text, open_think=left_open(last.text, marks) if continued else ends_open(text, marks))

    def _conversation(self, chat: ChatInput, fuel: Fuel, think: Mapping[str, object]) -> str:
        messages = collate(chat.messages)
        if "messages" not in self.names:
            return self._turns(messages, fuel, chat.now, think)
        open_end = chat.continue_final and bool(messages) and messages[-1].role == "assistant"
        if open_end:
            messages = (*messages[:-1], _marked(messages[-1]))
        system = "\n\n".join(m.text for m in chat.messages if m.role == "system")
        data: dict[str, object] = {
            "System": system,
            "Messages": [_message(message) for message in messages],
            "Tools": JsonList(_tool(tool) for tool in chat.tools),
            "Response": "",
            **think,
        }
        text = self._run(fuel, chat.now, data)
        return (text.rpartition(_END)[0] or text) if open_end else text

    def _turns(self, messages: Sequence[Message], fuel: Fuel, now: float, think: Mapping[str, object]) -> str:
        """Render a template without messages once for each turn; the last turn is cut after the response."""
        made: list[str] = []
        turn = dict.fromkeys(("System", "Prompt", "Response"), "")

        def close() -> None:
            made.append(self._run(fuel, now, {**turn, **think}))
            turn.update(System="", Prompt="", Response="")

        for message in messages:
            match message.role:
                case "system":
                    if turn["Prompt"] or turn["Response"]:
                        close()
                    turn["System"] = message.text
                case "user" | "tool":
                    if turn["Response"]:
                        close()
                    turn["Prompt"] = message.text
                case "assistant":
                    turn["Response"] = message.text
        last = Tree(_cut(self.tree.body)[0], self.tree.defined)
        made.append(execute(last, {**turn, **think}, fuel, now))
        return "".join(made)

    def _run(self, fuel: Fuel, now: float, data: Mapping[str, object]) -> str:
        return execute(self.tree, data, fuel, now)


def compile_go(source: str) -> GoTemplate:
    """Parse and try a template. Raises `Invalid` with the line of a mistake."""
    tree = parse(source)
    bodies: tuple[Nodes, ...] = (tree.body, *(body for _, body in tree.defined))
    names = frozenset(name.lower() for body in bodies for pipeline in pipelines(body) for name in fields(pipeline))
    if not names & {"messages", "response"}:
        response = Output(Pipeline((CommandNode((Dot(("Response",)),), 1),)))
        tree = Tree((*tree.body, response), tree.defined)
        names |= {"response"}
    made = GoTemplate(source=source, tree=tree, names=names, traits=Traits())
    return replace(made, traits=_probe(made))


def collate(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Join neighbouring messages of one role with a blank line between their texts; tool results stay separate."""
    made: list[Message] = []
    for message in messages:
        if made and message.role != "tool" and made[-1].role == message.role:
            last = made[-1]
            joined = (*last.content, TextPart(text="\n\n"), *message.content)
            made[-1] = replace(last, content=joined, tool_calls=last.tool_calls + message.tool_calls)
        else:
            made.append(message)
    return tuple(made)


def _probe(template: GoTemplate) -> Traits:
    """Return the traits that names and one trial show; the trial also finds mistakes that only show at run time."""
    names = template.names
    question = "Kubla?"
    shown = template.render(ChatInput(messages=(text_message("user", question),))).text
    if question not in shown:
        raise Invalid("the template does not render the user's message", field="template")
    tools, thinks = "tools" in names, bool(names & {"think", "thinking", "thinklevel"})
    marks = _marks(template) if thinks or find_marks(template.source) else None
    return Traits(
        tools=tools,
        call=_call(template) if "toolcalls" in names else "",
        thinking=marks,
        think="none" if marks is None else "switch" if "think" in names else "always",
        levels=LEVELS[:3] if "thinklevel" in names else (),
        suffix="suffix" in names,
        tool_role="messages" in names,
    )


def _call(template: GoTemplate) -> str:
    """Return the text of a call: between the words of the user and the end."""
    history = (
        text_message("user", "Kubla?"),
        Message(role="assistant", tool_calls=(PROBE,)),
        text_message("tool", "Pleasure-dome"),
    )
    tool = Tool(name="probe_listed", parameters={"type": "object", "properties": {}})
    text = template.render(ChatInput(messages=history, tools=(tool,))).text
    _, _, call = text.rpartition("Kubla?")
    return call.partition("Pleasure-dome")[0] if PROBE.name in call else ""


_AROUND = re.compile(r"^.*?(<[^<>]+>|\[[^\[\]]+\])\s*$", re.DOTALL)
_BEHIND = re.compile(r"^\s*(<[^<>]+>|\[[^\[\]]+\])", re.DOTALL)


def _marks(template: GoTemplate) -> Thinking:
    """Return the literal texts around `.Thinking`; the usual ones where there are none."""
    for before, after in _neighbours(template.tree.body):
        opening, closing = _AROUND.match(before), _BEHIND.match(after)
        if opening and closing:
            return Thinking(open=opening[1], close=closing[1])
    return find_marks(template.source) or Thinking(open="<think>", close="</think>")


def _neighbours(nodes: Nodes) -> list[tuple[str, str]]:
    """Yield the texts right before and after each place that prints `.Thinking`."""
    found: list[tuple[str, str]] = []
    for position, node in enumerate(nodes):
        if isinstance(node, Output) and "Thinking" in fields(node.pipeline):
            before, after = nodes[position - 1 : position], nodes[position + 1 : position + 2]
            texts = [part[0].text if part and isinstance(part[0], TextNode) else "" for part in (before, after)]
            found.append((texts[0], texts[1]))
        elif isinstance(node, If | With | Range):
            found += _neighbours(node.body) + _neighbours(node.otherwise)
    return found


def _cut(nodes: Nodes) -> tuple[Nodes, bool]:
    """Return the nodes through the first that prints `.Response` in each branch, and True if there is one."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Output) and "Response" in fields(node.pipeline):
            return (*kept, node), True
        if isinstance(node, If | With | Range):
            body, found = _cut(node.body)
            otherwise, other = _cut(node.otherwise)
            if found or other:
                return (*kept, replace(node, body=body, otherwise=otherwise)), True
        kept.append(node)
    return tuple(kept), False


def _think(chat: ChatInput, traits: Traits) -> dict[str, object]:
    level = nearest_level(chat.think, traits.levels) if isinstance(chat.think, str) else ""
    return {"Think": bool(chat.think), "ThinkLevel": level, "IsThinkSet": chat.think is not None}


def _marked(message: Message) -> Message:
    return replace(message, content=(*message.content, TextPart(text=_END)))


def _message(message: Message) -> StructValue:
    calls = [_tool_call(call, index) for index, call in enumerate(message.tool_calls)]
    shown = {"role": message.role, "content": message.text}
    return StructValue(
        {
            "Role": message.role,
            "Content": message.text,
            "Thinking": message.thinking or "",
            "Images": [],
            "ToolCalls": calls,
            "ToolName": message.tool_name or "",
            "ToolCallID": message.tool_call_id or "",
        },
        shown,
    )


def _tool_call(call: ToolCall, index: int) -> StructValue:
    arguments = JsonMap(_plain_map(arguments_of(call)))
    json = {"name": call.name, "arguments": dict(arguments)}
    function = StructValue({"Index": index, "Name": call.name, "Arguments": arguments}, json)  # type: ignore[arg-type]
    return StructValue({"ID": call.id, "Function": function}, {"id": call.id, "function": json})  # type: ignore[dict-item]


def _tool(tool: Tool) -> StructValue:
    [shown] = plain_tools((tool,))
    function = shown["function"]
    assert isinstance(function, dict)
    parameters = function["parameters"]
    properties = parameters.get("properties") or {}
    records = StructValue(
        {
            "Type": parameters.get("type", "object"),
            "Required": parameters.get("required") or [],
            "Properties": JsonMap({name: _property(schema) for name, schema in properties.items()}),
            "Defs": parameters.get("$defs"),
            "Items": parameters.get("items"),
        },
        parameters,
    )
    fields_ = {"Name": tool.name, "Description": tool.description, "Parameters": records}
    return StructValue({"Type": "function", "Function": StructValue(fields_, function)}, shown)  # type: ignore[arg-type]


def _property(schema: object) -> StructValue:
    known = schema if isinstance(schema, dict) else {}
    kind = known.get("type", "")
    return StructValue(
        {
            "Type": kind[0] if isinstance(kind, list) and len(kind) == 1 else kind,
            "Description": known.get("description", ""),
            "Enum": known.get("enum") or [],
            "Items": known.get("items"),
            "ToTypeScriptType": typescript(known),
        },
        known,
    )


def _plain_map(arguments: Mapping[str, object]) -> dict[str, object]:
    made = plain(arguments)  # type: ignore[arg-type]
    return made if isinstance(made, dict) else {}
