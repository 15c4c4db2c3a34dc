"""The table of model families: how the tool calls and the reasoning of a model are read, by its template.

A new family is one line. The first family whose evidence is in the call that the template itself renders is used.
"""

from __future__ import annotations

import re

from mullama.chat.syntax import (
    BraceCalls,
    CallSyntax,
    ChannelCalls,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
)
from mullama.chat.template.base import ChatTemplate, Thinking
from mullama.errors import NotFound
from mullama.names import suggest
from mullama.struct import Struct


class Family(Struct, frozen=True, kw_only=True):
    """The output format of a model, for its reader and its constraint."""

    name: str
    calls: CallSyntax
    thinking: Thinking | None = None


class _Line(Struct, frozen=True):
    """One line of the table."""

    name: str
    evidence: str
    """Pattern in the trial call."""
    calls: CallSyntax
    mark: str = ""
    """Text in the source of a template that renders no trial call."""


_PROBE = "probe_weather"
_CODER = TaggedCalls(
    open="<tool_call>\n",
    begin="<function=",
    named=">\n",
    key="<parameter=",
    keyed=">\n",
    valued="\n</parameter>\n",
    end="</function>\n",
    close="</tool_call>",
    aliases=("<function=",),
)
_SEED = TaggedCalls(
    open="<seed:tool_call>\n",
    begin="<function=",
    named=">\n",
    key="<parameter=",
    keyed=">",
    valued="</parameter>\n",
    end="</function>\n",
    close="</seed:tool_call>",
)
_GLM = TaggedCalls(
    open="<tool_call>",
    begin="",
    named="\n",
    key="<arg_key>",
    keyed="</arg_key>\n<arg_value>",
    valued="</arg_value>\n",
    end="",
    close="</tool_call>",
)


def _invoking(prefix: str, section: str, *, typed: bool = False) -> TaggedCalls:
    """Return the syntax of the `<invoke name=…>` form, which several families share under different prefixes."""
    return TaggedCalls(
        open=f"<{prefix}{section}>\n",
        begin=f'<{prefix}invoke name="',
        named='">\n',
        key=f'<{prefix}parameter name="',
        keyed='">',
        valued=f"</{prefix}parameter>\n",
        end=f"</{prefix}invoke>\n",
        close=f"</{prefix}{section}>",
        typed=typed,
    )


_MINIMAX = TaggedCalls(
    open="<minimax:tool_call>\n",
    begin='<invoke name="',
    named='">\n',
    key='<parameter name="',
    keyed='">',
    valued="</parameter>\n",
    end="</invoke>\n",
    close="</minimax:tool_call>",
)
_MINICPM = TaggedCalls(
    open="",
    begin='<function name="',
    named='">',
    key='<param name="',
    keyed='">',
    valued="</param>",
    end="</function>",
    close="",
    aliases=('<function name="',),
)
_HUNYUAN = TaggedCalls(
    open="<tool_calls:opensource>\n",
    begin="<tool_call:opensource>",
    named="<tool_sep:opensource>\n",
    key="<arg_key:opensource>",
    keyed="</arg_key:opensource>\n<arg_value:opensource>",
    valued="</arg_value:opensource>\n",
    end="</tool_call:opensource>\n",
    close="</tool_calls:opensource>",
)
_DEEPSEEK_OPENINGS = ("<｜tool▁calls｜>", "<｜tool_calls_begin｜>", "<｜tool calls begin｜>")
_DEEPSEEK = NamedCalls(
    open="<｜tool▁calls▁begin｜>",
    begin="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    middle="\n```json\n",
    end="\n```<｜tool▁call▁end｜>",
    close="<｜tool▁calls▁end｜>",
    aliases=_DEEPSEEK_OPENINGS,
)
_DEEPSEEK_31 = NamedCalls(
    open="<｜tool▁calls▁begin｜>",
    begin="<｜tool▁call▁begin｜>",
    middle="<｜tool▁sep｜>",
    end="<｜tool▁call▁end｜>",
    close="<｜tool▁calls▁end｜>",
    aliases=_DEEPSEEK_OPENINGS,
)
_KIMI = NamedCalls(
    open="<|tool_calls_section_begin|>",
    begin="<|tool_call_begin|>functions.",
    middle="<|tool_call_argument_begin|>",
    end="<|tool_call_end|>",
    close="<|tool_calls_section_end|>",
    ordinal=True,
)
_MISTRAL = NamedCalls(open="[TOOL_CALLS]", middle="[ARGS]", lists=True)
_MISTRAL_ID = NamedCalls(open="[TOOL_CALLS]", middle="[ARGS]", id_mark="[CALL_ID]", lists=True)
_MISTRAL_LIST = JsonCalls(open="[TOOL_CALLS]", one_list=True, id_key="id")
_FUNCTIONARY = NamedCalls(open="<function=", middle=">", end="</function>")
_HERMES = JsonCalls(open="<tool_call>", close="</tool_call>", gap="\n")
_LLAMA = JsonCalls(open="", arguments_key="parameters", between="; ", aliases=("<|python_tag|>",))
_COHERE = JsonCalls(
    open="<|START_ACTION|>",
    close="<|END_ACTION|>",
    one_list=True,
    name_key="tool_name",
    arguments_key="parameters",
    id_key="tool_call_id",
)
_COHERE_PLUS = JsonCalls(
    open="Action:", gap="", close="```", one_list=True, name_key="tool_name", arguments_key="parameters"
)
_XLAM = JsonCalls(
    open='{"tool_calls": ', close="}", one_list=True, aliases=('{\n    "tool_calls":', '{\n  "tool_calls":')
)
GENERIC = JsonCalls(open="")

_LINES = (
    _Line("harmony", r"to=functions\.", ChannelCalls(), "<|channel|>analysis"),
    _Line("qwen-coder", rf"<tool_call>\s*<function={_PROBE}>", _CODER, "<tool_call>\n<function="),
    _Line("seed", rf"<seed:tool_call>\s*<function={_PROBE}>", _SEED, "<seed:tool_call>"),
    _Line("minimax", rf'<minimax:tool_call>\s*<invoke name="{_PROBE}"', _MINIMAX, "<minimax:tool_call>"),
    _Line("deepseek-v3.2", "<｜DSML｜function_calls>", _invoking("｜DSML｜", "function_calls", typed=True)),
    _Line("deepseek-v4", "<｜DSML｜tool_calls>", _invoking("｜DSML｜", "tool_calls", typed=True)),
    _Line("muse", "<atem:function_calls>", _invoking("atem:", "function_calls")),
    _Line("minicpm", f'<function name="{_PROBE}"', _MINICPM),
    _Line("hunyuan", rf"<tool_call:opensource>{_PROBE}", _HUNYUAN, "<tool_calls:opensource>"),
    _Line("glm", rf"<tool_call>{_PROBE}\s*<arg_key>", _GLM),
    _Line("deepseek-v3.1", rf"<｜tool▁call▁begin｜>{_PROBE}<｜tool▁sep｜>", _DEEPSEEK_31),
    _Line("deepseek", "<｜tool▁call▁begin｜>function", _DEEPSEEK, "<｜tool▁calls▁begin｜>"),
    _Line("kimi", r"<\|tool_call_begin\|>", _KIMI, "<|tool_calls_section_begin|>"),
    _Line("mistral-id", rf"\[TOOL_CALLS\]{_PROBE}\[CALL_ID\]", _MISTRAL_ID),
    _Line("mistral", rf"\[TOOL_CALLS\]{_PROBE}", _MISTRAL),
    _Line("mistral-list", r"\[TOOL_CALLS\]\s*\[", _MISTRAL_LIST, "[TOOL_CALLS]"),
    _Line("functionary", rf"<function={_PROBE}>\s*\{{", _FUNCTIONARY),
    _Line("gemma", r"<\|tool_call>call:", BraceCalls(open="<|tool_call>", close="<tool_call|>", quote='<|"|>')),
    _Line("functiongemma", "<start_function_call>call:", BraceCalls(
        open="<start_function_call>", close="<end_function_call>", quote="<escape>"), "<start_function_call>"),
    _Line("gemma-python", "```tool_code", PythonCalls(open="```tool_code\n", close="\n```"), "```tool_code"),
    _Line("lfm", r"<\|tool_call_start\|>", PythonCalls(
        open="<|tool_call_start|>", close="<|tool_call_end|>"), "<|tool_call_start|>"),
    _Line("cohere", r"<\|START_ACTION\|>", _COHERE, "<|START_ACTION|>"),
    _Line("cohere-plus", r"Action:\s*```json", _COHERE_PLUS),
    _Line("phi", r"<\|tool_call\|>\[.*<\|/tool_call\|>", JsonCalls(
        open="<|tool_call|>", close="<|/tool_call|>", one_list=True), "<|/tool_call|>"),
    _Line("granite", r"<\|tool_call\|>", JsonCalls(open="<|tool_call|>", one_list=True), "<|tool_call|>"),
    _Line("apertus", r"<\|tools_prefix\|>", JsonCalls(
        open="<|tools_prefix|>", close="<|tools_suffix|>", one_list=True, name_is_key=True)),
    _Line("nemotron", "<TOOLCALL>", JsonCalls(open="<TOOLCALL>", close="</TOOLCALL>", one_list=True)),
    _Line("apriel", r"<tool_calls>\s*\[", JsonCalls(
        open="<tool_calls>", close="</tool_calls>", one_list=True, id_key="id")),
    _Line("minimax-m1", r"<tool_calls>\s*\{", JsonCalls(open="<tool_calls>", close="</tool_calls>", gap="\n")),
    _Line("firefunction", r"functools\s*\[", JsonCalls(open="functools", one_list=True), "functools["),
    _Line("xlam", r'\{\s*"tool_calls":\s*\[', _XLAM),
    _Line("gigachat", r"<\|function_call\|>", JsonCalls(open="<|function_call|>")),
    _Line("gigachat-roles", r"function call<\|role_sep\|>", JsonCalls(
        open="<|message_sep|>\n\nfunction call<|role_sep|>\n")),
    _Line("hermes", r"<tool_call>\s*\{", _HERMES, "<tool_call>"),
    _Line("llama", r'\{"name": "' + _PROBE + '", "parameters"', _LLAMA, "<|python_tag|>"),
)  # fmt: skip


def family_of(template: ChatTemplate) -> Family:
    """Return the first family whose evidence the template gives; `generic` when none does."""
    traits, source = template.traits, template.source
    for line in _LINES:
        found = re.search(line.evidence, traits.call, re.DOTALL) if traits.call else line.mark and line.mark in source
        if found:
            return Family(name=line.name, calls=line.calls, thinking=traits.thinking)
    return _by_mark(traits.call, traits.thinking) or Family(name="generic", calls=GENERIC, thinking=traits.thinking)


# A mark that speaks of tools or calls, right before the JSON of the trial call, and what closes it.
_MARKED = re.compile(
    r"(?P<open>(?:<[^<>\s]{2,40}>|\[[A-Za-z_]{2,40}\]))\s*(?P<list>\[?)\s*"
    rf'\{{\s*"(?P<name>name|tool_name|function)":\s*"{_PROBE}",\s*"(?P<arguments>arguments|parameters|args|input)":'
    r"[^{}]*\{[^{}]*\}\s*\}\s*\]?\s*(?P<close></[^<>\s]{2,40}>|\[/[A-Za-z_]{2,40}\])?"
)


def _by_mark(call: str, thinking: Thinking | None) -> Family | None:
    """Return a family for JSON calls after a mark that is not in the table."""
    found = _MARKED.search(call)
    if found is None or not re.search("tool|call|func|action", found["open"], re.IGNORECASE):
        return None
    calls = JsonCalls(
        open=found["open"],
        close=found["close"] or "",
        one_list=bool(found["list"]),
        name_key=found["name"],
        arguments_key=found["arguments"],
    )
    return Family(name="marked-json", calls=calls, thinking=thinking)


def family_names() -> tuple[str, ...]:
    """Return all names of the table, for documentation and completeness tests."""
    return (*(line.name for line in _LINES), "generic")


def family_with(name: str, thinking: Thinking | None = None) -> Family:
    """Return a family by its name. Raises `NotFound` with the closest names."""
    calls = {line.name: line.calls for line in _LINES} | {"generic": GENERIC}
    if name not in calls:
        raise NotFound(f"no family of templates is called {name!r}", name=name, near=suggest(name, calls))
    return Family(name=name, calls=calls[name], thinking=thinking)
