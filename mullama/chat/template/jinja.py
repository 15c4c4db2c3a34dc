"""Jinja chat templates: compiled once, tried once, then rendered for each request within their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

from jinja2 import Template as Compiled
from jinja2 import TemplateSyntaxError, meta, nodes

from mullama.chat.template.base import ChatInput, Rendered, SpecialTexts, Traits
from mullama.chat.template.filters import FUEL, to_json
from mullama.chat.template.fuel import MAX_ITEMS, MAX_OUTPUT, Fuel, OutOfFuel, budget, weigh
from mullama.chat.template.probe import probe
from mullama.chat.template.sandbox import FILE, Raised, Sandbox, compile_source
from mullama.chat.template.shape import Plain, plain, plain_messages, plain_tools, shape
from mullama.chat.template.thinking import effort, ends_open, left_open, nearest_level, think_flag
from mullama.chat.template_arguments import TEMPLATE_ARGUMENTS
from mullama.errors import Invalid, TooLarge
from mullama.names import JSONValue
from mullama.struct import Struct, replace

_SWITCH = "enable_thinking"
_DEFAULTS = frozenset(("defined", "undefined", "default", "d"))  # tests and filters of a variable that may be unset
END = "\ue0ff\ue0fe\ue0ff"  # private characters that mark where the last message's content ends

# The variables that `run` sets, and that are no arguments.
_SET = frozenset((
    "messages", "tools", "bos_token", "eos_token", "add_generation_prompt", "strftime_now", "functions", "datetime",
    FUEL,
))  # fmt: skip

_SANDBOX = Sandbox()


class JinjaTemplate(Struct, frozen=True, kw_only=True):
    """A chat template of a GGUF file or a manifest."""

    source: str
    special: SpecialTexts
    compiled: Compiled
    traits: Traits
    asks: frozenset[str] = frozenset()
    """Those of the older names that it reads."""
    arguments: frozenset[str] = TEMPLATE_ARGUMENTS
    """The usual ones, and those that it reads by other names."""
    syntax: Literal["jinja"] = "jinja"

    def render(self, chat: ChatInput) -> Rendered:
        """Render the prompt of a conversation; raises as the protocol states."""
        messages = plain_messages(shape(chat.messages, self.traits), self.traits)
        tools = plain_tools(chat.tools, described=self.traits.described)
        arguments = {name: plain(value) for name, value in _allowed(chat, self.arguments)}
        variables = _think_variables(chat.think, self.traits) | arguments
        closed = chat.continue_final and bool(messages) and messages[-1]["role"] == "assistant"
        if closed:
            _mark_end(messages[-1])
        text = run(
            self.compiled,
            self.special,
            messages,
            tools=tools or ([] if self.traits.tools_as_list else None),
            generate=chat.generate and not closed,
            variables=_old_names(self.asks, tools, chat.now) | variables,
            now=chat.now,
        )
        marks = self.traits.thinking
        if closed:
            text = text.rpartition(END)[0] or text
            return Rendered(text=text, open_think=left_open(chat.messages[-1].text, marks))
        return Rendered(text=text, open_think=ends_open(text, marks))


def compile_jinja(source: str, special: SpecialTexts) -> JinjaTemplate:
    """Parse, sandbox, compile and try a template. Raises `Invalid` or `TooLarge` when it cannot be used."""
    try:
        compiled = compile_source(_SANDBOX, source)
        tree = _SANDBOX.parse(source)
        reads = frozenset(meta.find_undeclared_variables(tree))
        asks = reads & {"functions", "datetime", "date_string"}
    except TemplateSyntaxError as error:
        raise Invalid(f"the chat template has an error in line {error.lineno}: {error.message}") from error
    except OutOfFuel as error:
        raise TooLarge(f"the chat template is not accepted: {error}") from error
    except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise Invalid("the chat template is nested too deeply to compile") from error

    def attempt(
        messages: list[Plain],
        tools: list[Plain] | None = None,
        variables: Mapping[str, object] | None = None,
        **options: Any,
    ) -> str:
        names = _old_names(asks, tools or [], 0.0) | dict(variables or {})
        return run(compiled, special, messages, tools=tools, variables=names, **options)

    traits = probe(attempt, source)
    if traits.think == "switch" and not _has_default(tree, _SWITCH):
        traits = replace(traits, thinks_unasked=True)
    return JinjaTemplate(
        source=source,
        special=special,
        compiled=compiled,
        traits=traits,
        asks=asks,
        arguments=TEMPLATE_ARGUMENTS | _own_arguments(reads),
    )


def _own_arguments(reads: frozenset[str]) -> frozenset[str]:
    """Return the variables that a template reads and that only its user can set."""
    return reads - _SET - _SANDBOX.globals.keys()


def _has_default(tree: nodes.Template, name: str) -> bool:
    """Return True if the template chooses a value where this variable is not set, or does not read it."""
    if name not in meta.find_undeclared_variables(tree):
        return True
    return any(
        isinstance(node.node, nodes.Name) and node.node.name == name and node.name in _DEFAULTS
        for node in tree.find_all((nodes.Filter, nodes.Test))
    )


def run(
    compiled: Compiled,
    special: SpecialTexts,
    messages: list[Plain],
    *,
    tools: list[Plain] | None = None,
    generate: bool = True,
    variables: Mapping[str, object] | None = None,
    now: float = 0.0,
) -> str:
    """Run one rendering within its fuel, and translate its errors."""
    nodes = _nodes(messages, tools or [])
    names: dict[str, object] = {
        "messages": messages,
        "tools": tools,
        "documents": None,
        "bos_token": special.bos,
        "eos_token": special.eos,
        "add_generation_prompt": generate,
        "strftime_now": lambda form: _date(now, str(form)[:200]),
        **(variables or {}),
        FUEL: Fuel(budget(nodes, len(messages))),
    }
    pieces: list[str] = []
    length = 0
    try:
        for piece in compiled.generate(names):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_OUTPUT:
                raise OutOfFuel(f"its output is longer than {MAX_OUTPUT} characters")
    except OutOfFuel as error:
        raise TooLarge(f"the chat template stopped{_place(error)}: {error}") from error
    except Raised as error:
        raise Invalid(
            f"the chat template refuses this conversation: {error}",
            hint=f"the template raised this error itself{_place(error)}; another template can be set in the manifest",
        ) from error
    except Exception as error:  # a template can make any operation fail
        raise Invalid(
            f"the chat template failed{_place(error)}: {_reason(error)}",
            hint="another template can be set in the manifest",
        ) from error
    return "".join(pieces)


def _nodes(messages: list[Plain], tools: list[Plain]) -> int:
    """Return the weight of a conversation in its budget. Raises `Invalid` for one that no template could render."""
    try:
        return weigh(messages) // 16 + len(messages) + weigh(tools)
    except OutOfFuel as error:
        raise Invalid(
            f"the messages and tools hold more than {MAX_OUTPUT} characters or {MAX_ITEMS} values",
            hint="send a shorter conversation",
            field="messages",
        ) from error


def _date(now: float, form: str) -> str:
    return datetime.fromtimestamp(now, tz=UTC).strftime(form)


def _old_names(asks: frozenset[str], tools: list[Plain], now: float) -> dict[str, object]:
    """Return variables that some older templates read instead of `tools` and `strftime_now`."""
    known: dict[str, object] = {
        "date_string": _date(now, "%d %b %Y"),
        "functions": to_json(tools, indent=4) if "functions" in asks and tools else "",
        "datetime": _date(now, "%b %d %Y %H:%M:%S GMT"),
    }
    return {name: known[name] for name in asks}


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it calls itself too deeply"
    return str(error)[:500] or type(error).__name__


def _place(error: Exception) -> str:
    """Return ` in line N`, the innermost line of the template in the traceback."""
    line, trace = None, error.__traceback__
    while isinstance(trace, TracebackType):
        if trace.tb_frame.f_code.co_filename == FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" in line {line}" if line else ""


def _allowed(chat: ChatInput, arguments: frozenset[str]) -> list[tuple[str, JSONValue]]:
    for name, _ in chat.arguments:
        if name not in arguments:
            raise Invalid(
                f"{name!r} is not an argument of the chat template",
                hint=f"one of {', '.join(sorted(arguments))}",
                field="chat_template_kwargs",
            )
    return list(chat.arguments)


def _think_variables(think: bool | str | None, traits: Traits) -> dict[str, object]:
    """Return the names by which templates read the reasoning switch and effort."""
    if think is None:
        return {_SWITCH: True} if traits.thinks_unasked else {}
    if isinstance(think, bool):
        return think_flag(think)
    return think_flag(True) | effort(nearest_level(think, traits.levels))


def _mark_end(message: Plain) -> None:
    content = message["content"]
    if isinstance(content, str):
        message["content"] = content + END
    elif isinstance(content, list):
        message["content"] = [*content[:-1], {"type": "text", "text": content[-1]["text"] + END}]
