"""A script: what to answer to which prompt, as a value read from JSON; and what the words of a prompt ask for.

A script is a JSON object; every key may be missing:

    {"name": "greeter", "context": 8192, "template": "…Jinja…", "embedding_length": 64, "burst": 1,
     "constraints": false, "faults": false, "on_load": "", "on_open": "",
     "rules": [{"when": "weather", "say": "It rains.", "think": "", "call": {"name": "f", "arguments": {}}}],
     "default": "echo"}

The first rule whose `when` (a regular expression, case ignored) is found in the user's last message answers. Else
these words in it do: `say TEXT`, `think TEXT` (up to the end of the line), `call NAME {JSON}`, `count to N`,
`N tokens`; else `default` is said, where `echo` repeats the message. `slow 50ms` makes every token take that long.
`crash segv|abort|exit`, `hang`, `flood stderr` and `garbage` misbehave, but only where the script says `faults`.
A script cannot be made to follow a grammar: constrained requests are refused unless it says `constraints`, by
which its author promises that the answers follow whatever is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, TypeVar

from mullama.errors import BadWeights

END = "<|im_end|>"
TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' ~ (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>\\nCall one by <tool_call>{"name": …, "arguments": {…}}</tool_call><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>\\n' ~ (call.function | tojson) ~ '\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""

_FAULTS = re.compile(r"\bcrash (?:segv|abort|exit)\b|\bhang\b|\bflood stderr\b|\bgarbage\b")
_LONGEST_ANSWER = 1_000_000  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    when: str
    say: str = ""
    think: str = ""
    call: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """burst: tokens that one step gives to each answer."""

    name: str = "scripted"
    context: int = 8192
    template: str = TEMPLATE
    embedding_length: int = 64
    burst: int = 1
    constraints: bool = False
    faults: bool = False
    on_load: str = ""
    on_open: str = ""
    rules: tuple[Rule, ...] = ()
    default: str = "echo"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedReply:
    """text: the whole answer. pause: seconds per token. fault: what to do instead of ending well."""

    text: str
    pause: float = 0.0
    fault: str = ""


def parse(text: str, source: str) -> Script:
    """The script in a JSON text; `BadWeights` names what is wrong and where."""
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise BadWeights(f"{source} is no JSON: {error}") from error
    if not isinstance(tree, dict):
        raise BadWeights(f"{source} holds no JSON object", hint="see mullama.engines.scripted.script")
    rules = tuple(_rule(rule, source) for rule in tree.pop("rules", ()))
    return _checked(Script, tree | {"rules": rules}, source)


def reply(script: Script, prompt: str) -> ScriptedReply:
    """What the script answers to a prompt."""
    message = last_message(prompt)
    pause = re.search(r"\bslow (\d+)ms\b", message)
    found = _FAULTS.search(message) if script.faults else None
    return ScriptedReply(
        text=_text(script, message),
        pause=int(pause[1]) / 1000 if pause else 0.0,
        fault=found[0] if found else "",
    )


def last_message(prompt: str) -> str:
    """The user's last turn of a prompt that `TEMPLATE` made; the whole of any other prompt."""
    start = prompt.rfind("<|im_start|>user\n")
    if start < 0:
        return prompt.strip()
    body = prompt[start + len("<|im_start|>user\n") :]
    return body.partition(END)[0].strip()


@lru_cache(maxsize=1024)
def chunks(text: str) -> tuple[bytes, ...]:
    """A text as tokens: whole characters, up to three octets together."""
    parts: list[bytes] = []
    part = b""
    for char in text:
        octets = char.encode("utf-8", "surrogatepass")
        if part and len(part) + len(octets) > 3:
            parts.append(part)
            part = b""
        part += octets
    return (*parts, part) if part else tuple(parts)


def token_of(chunk: bytes) -> int:
    """The id of a token: its octets read as a number, after a one that keeps their count."""
    return int.from_bytes(b"\x01" + chunk)


def chunk_of(token: int) -> bytes:
    """The octets of a token; none for an id that is no token."""
    octets = token.to_bytes((token.bit_length() + 7) // 8)
    return octets[1:] if octets[:1] == b"\x01" else b""


def _text(script: Script, message: str) -> str:
    for rule in script.rules:
        if re.search(rule.when, message, re.IGNORECASE):
            return _spoken(rule.say, rule.think, rule.call)
    think = re.search(r"\bthink (.+)", message)
    call = re.search(r"\bcall ([\w.-]+) (\{.*\})", message, re.DOTALL)
    if call:
        arguments = json.loads(call[2])
        return _spoken("", think[1] if think else "", {"name": call[1], "arguments": arguments})
    say = re.search(r"\bsay (.+)", message, re.DOTALL)
    return _spoken(say[1] if say else _counted(script, message), think[1] if think else "", None)


def _counted(script: Script, message: str) -> str:
    number = re.search(r"\bcount to (\d+)\b", message)
    if number:
        return " ".join(str(i) for i in range(1, min(int(number[1]), _LONGEST_ANSWER) + 1))
    number = re.search(r"\b(\d+) tokens\b", message)
    if number:
        return "".join(f"{i % 100:02} " for i in range(min(int(number[1]), _LONGEST_ANSWER)))
    return message if script.default == "echo" else script.default


def _spoken(say: str, think: str, call: Mapping[str, Any] | None) -> str:
    thought = f"<think>\n{think}\n</think>\n\n" if think else ""
    called = f"<tool_call>\n{json.dumps(call)}\n</tool_call>" if call else ""
    return thought + say + called


def _rule(tree: Any, source: str) -> Rule:
    if not isinstance(tree, dict) or not isinstance(tree.get("when"), str):
        raise BadWeights(f"{source}: a rule is an object with a text `when`")
    try:
        re.compile(tree["when"])
    except re.error as error:
        raise BadWeights(f"{source}: {tree['when']!r} is no regular expression: {error}") from error
    return _checked(Rule, tree, source)


_Part = TypeVar("_Part", Script, Rule)


def _checked(cls: type[_Part], tree: Mapping[str, Any], source: str) -> _Part:
    unknown = tree.keys() - {f.name for f in fields(cls)}
    if unknown:
        raise BadWeights(f"{source}: unknown key {min(unknown)!r}")
    return cls(**tree)
