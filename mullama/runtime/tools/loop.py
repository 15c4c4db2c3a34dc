"""The decisions of a loop over tools: which calls of an answer this server makes, and when the loop ends. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from mullama.chat import types as chat
from mullama.chat.tool_servers import function_name
from mullama.names import JSONValue
from mullama.struct import Struct, field, replace
from mullama.tools.base import ServerTool

MOST_EQUAL = 2
"""Times that one answer makes the same call. A tool may return another result at the second time."""
_RESERVED = 4
"""The answer after the results has at least this part of the context, unless the request limits it to fewer tokens."""
_SMALLEST = 32
"""Tokens of a result, also in a context that is full."""
_NOTE = 16
"""Tokens of the sentence after a shortened result, at most."""
_LONGEST_TOKEN = 32
"""Characters of a token, at most in almost all texts: a text of longer tokens is shortened more than it must be."""


class Offered(Struct, frozen=True, kw_only=True):
    """A tool that this server calls for the model."""

    tool: ServerTool
    function: str
    """Its name in the prompt, which begins with `label`."""
    label: str
    """The name of its server at the client."""
    prompt: chat.Tool
    """The tool as the model sees it."""
    approve: bool = False
    """A person must approve each call."""
    fixed: tuple[tuple[str, JSONValue], ...] = ()
    """Arguments that the request sets in each call, unseen by the model."""


def offered_tool(
    tool: ServerTool, *, label: str = "", approve: bool = False, fixed: tuple[tuple[str, JSONValue], ...] = ()
) -> Offered:
    """Return a tool to offer. label: the name of its server at the client; "" for that in the manifest."""
    function = function_name(label or tool.server, tool.name)
    return Offered(
        tool=tool,
        function=function,
        label=label or tool.server,
        prompt=chat.Tool(name=function, description=tool.description, parameters=tool.parameters),
        approve=approve,
        fixed=fixed,
    )


class LoopLimits(Struct, frozen=True, kw_only=True):
    """The limits of one answer."""

    turns: int = 8
    """Times that the model may call tools."""
    calls: int | None = None
    """Calls of tools of this server; None for any number."""


class LoopState(Struct, frozen=True, kw_only=True):
    """The calls of one answer so far."""

    turns: int = 0
    """Times that the model called tools."""
    calls: int = 0
    """Calls of tools of this server."""
    made: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Number of equal calls, by function and canonical arguments."""


Action = Literal["make", "ask", "refuse"]


class Verdict(Struct, frozen=True, kw_only=True):
    """The decision on one call of a tool of this server."""

    call: chat.ToolCall
    action: Action
    tool: Offered | None = None
    """None for a function that no server has."""
    refusal: str = ""
    """The result that the model gets in place of that of the tool."""


class Decision(Struct, frozen=True, kw_only=True):
    """The decision on one answer of the model."""

    verdicts: tuple[Verdict, ...]
    """Of the calls of this server's tools, in the order of the model."""
    state: LoopState
    ends: bool = False
    """The answer ends after these calls: its client makes others, or a person must approve some."""
    closing: bool = False
    """The next answer of the model is the last one, and further calls in it are not made."""


def is_ours(name: str, tools: Mapping[str, Offered], clients: Iterable[str]) -> bool:
    """Return True if this server answers a call of this function: it has the tool, or neither side has it.

    clients: the names of the client's own tools. Without any, a call of an unknown function would reach a client that
    expects none.
    """
    own = frozenset(clients)
    if name in tools or name in own:
        return name in tools
    return not own or any(name.startswith(f"{tool.label}__") for tool in tools.values())


def decide(
    calls: Sequence[chat.ToolCall],
    state: LoopState,
    tools: Mapping[str, Offered],
    limits: LoopLimits,
    *,
    asks: bool,
    others: bool = False,
) -> Decision:
    """Decide on the calls of this server's tools in one answer.

    asks: the client can ask a person for an approval. others: the answer calls tools of the client as well.
    """
    verdicts: list[Verdict] = []
    for call in calls:
        verdict, state = _decide_one(call, state, tools, limits, asks=asks)
        verdicts.append(verdict)
    state = replace(state, turns=state.turns + 1)
    asked = any(verdict.action == "ask" for verdict in verdicts)
    circles = bool(verdicts) and all(verdict.action == "refuse" and verdict.tool for verdict in verdicts)
    spent = state.turns >= limits.turns or (limits.calls is not None and state.calls >= limits.calls)
    return Decision(verdicts=tuple(verdicts), state=state, ends=asked or others, closing=circles or spent)


def _decide_one(
    call: chat.ToolCall, state: LoopState, tools: Mapping[str, Offered], limits: LoopLimits, *, asks: bool
) -> tuple[Verdict, LoopState]:
    tool = tools.get(call.name)
    if tool is None:
        names = ", ".join(sorted(tools)) or "none"
        return Verdict(
            call=call, action="refuse", refusal=f"There is no tool {call.name}. The tools are: {names}."
        ), state
    if isinstance(call.arguments, str):
        refusal = "The arguments are not a JSON object. Call the tool again with a JSON object."
        return Verdict(call=call, action="refuse", tool=tool, refusal=refusal), state
    key = (call.name, canonical(call.arguments))
    times = state.made.get(key, 0)
    if times >= MOST_EQUAL:
        refusal = f"This call was made {times} times with the same arguments. Its result is above. Answer with it."
        return Verdict(call=call, action="refuse", tool=tool, refusal=refusal), state
    if limits.calls is not None and state.calls >= limits.calls:
        refusal = f"The limit of {limits.calls} calls is reached. Answer with the results above."
        return Verdict(call=call, action="refuse", tool=tool, refusal=refusal), state
    if tool.approve and not asks:
        refusal = "A person must approve this call, and this API has no way to ask. The call was not made."
        return Verdict(call=call, action="refuse", tool=tool, refusal=refusal), state
    if tool.approve:
        return Verdict(call=call, action="ask", tool=tool), state
    made = {**state.made, key: times + 1}
    return Verdict(call=call, action="make", tool=tool), replace(state, calls=state.calls + 1, made=made)


def canonical(arguments: Mapping[str, JSONValue]) -> str:
    """Return arguments as JSON text that is the same for every order of their members."""
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def continued(
    request: chat.ChatRequest, text: str, thinking: str, calls: Sequence[chat.ToolCall], results: Mapping[str, str]
) -> chat.ChatRequest:
    """Return the request for the answer after the results of these calls, by the ids of the calls.

    A call that the request demands is made only once, and a beginning of the answer is continued only once.
    """
    messages, content = request.messages, (chat.TextPart(text=text),) if text else ()
    if request.continue_final and messages and messages[-1].role == "assistant":
        content = (*messages[-1].content, *content)
        messages = messages[:-1]
    spoken = chat.Message(role="assistant", content=content, thinking=thinking or None, tool_calls=tuple(calls))
    answers = tuple(
        chat.Message(
            role="tool", content=(chat.TextPart(text=results[call.id]),), tool_call_id=call.id, tool_name=call.name
        )
        for call in calls
    )
    choice = request.tool_choice
    if choice.mode == "required":
        choice = chat.ToolChoice(names=choice.names if len(choice.names) > 1 else ())
    return replace(
        request,
        messages=(*messages, spoken, *answers),
        tool_choice=choice,
        continue_final=False,
        open_answer=True,
    )


def with_results(request: chat.ChatRequest, results: Mapping[str, str]) -> chat.ChatRequest:
    """Return the request with these texts in the empty places of results, by the ids of their calls."""

    def filled(message: chat.Message) -> chat.Message:
        text = results.get(message.tool_call_id or "") if message.role == "tool" and not message.content else None
        return message if text is None else replace(message, content=(chat.TextPart(text=text),))

    return replace(request, messages=tuple(map(filled, request.messages)))


def room_for_results(context: int, used: int, max_tokens: int | None) -> int | None:
    """Return the tokens that all results of one turn may have; None without a known context.

    used: tokens of the conversation so far. max_tokens: the limit of the answer.
    """
    if context <= 0:
        return None
    answer = context // _RESERVED
    if max_tokens is not None and max_tokens >= 0:
        answer = min(answer, max_tokens)
    return max(_SMALLEST, context - used - answer)


def share_of(room: int, waiting: int) -> int:
    """Return the tokens that one result may have, where this many results share the room that is left."""
    return max(_SMALLEST, room // max(1, waiting))


def beginning(text: str, most: int) -> str:
    """Return the part of a text that decides on its first tokens, at most `most`: the rest need not be tokenized."""
    return text[: most * _LONGEST_TOKEN]


def shortened(pieces: Sequence[bytes], most: int, *, whole: bool = True) -> str:
    """Return the text of these tokens, at most `most` of them, with a remark on those that are left out.

    whole: False for the tokens of a beginning of a text.
    """
    if whole and len(pieces) <= most:
        return b"".join(pieces).decode("utf-8", "replace")
    kept = max(0, most - _NOTE)
    text = b"".join(pieces[:kept]).decode("utf-8", "ignore")
    missing = f"{len(pieces) - kept} of {len(pieces)} tokens are" if whole else "the rest is"
    return f"{text}\n[{missing} left out]"


def summed(one: chat.Usage, other: chat.Usage) -> chat.Usage:
    """Return the sum of the tokens of two turns."""
    return chat.Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        draft_tokens=one.draft_tokens + other.draft_tokens,
        draft_accepted=one.draft_accepted + other.draft_accepted,
    )


def added(one: chat.Timings, other: chat.Timings, total: float) -> chat.Timings:
    """Return the times of two turns as one. total: seconds since the arrival, with the calls between them."""
    return chat.Timings(
        total=total,
        load=one.load + other.load,
        prompt=one.prompt + other.prompt,
        decode=one.decode + other.decode,
        answers=one.answers + other.answers,
    )


def tokens_left(limit: int | None, spent: int) -> int | None:
    """Return the limit of the next turn; None and -1 are no limit."""
    return limit if limit is None or limit < 0 else max(0, limit - spent)
