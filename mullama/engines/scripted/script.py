"""Scripts: answers to prompts, as values read from JSON; commands in the words of a prompt; vectors of texts.

A script is a JSON object. Every key is optional:

    {"name": "greeter", "context": 8192, "template": "…Jinja…", "embedding_length": 64, "burst": 1,
     "constraints": false, "media": ["image", "audio"], "faults": false, "on_load": "", "on_open": "",
     "rules": [{"when": "weather", "say": "It rains.", "think": "", "call": {"name": "f", "arguments": {}}}],
     "default": "echo"}

The first rule whose `when` (a regular expression, case ignored) matches in the user's last message answers. Without
one, commands in the message answer: `say TEXT`, `think TEXT` (up to the end of the line), `call NAME {JSON}`,
`count to N`, `N tokens`. A message with calls may have several parts with ` then ` between them: the first part
answers, and each further one after results of tools, which stand for the word RESULT in it. Without a command the
answer is `default`, where `echo` repeats the message. `slow 50ms` delays every token. `crash segv|abort|exit`, `hang`,
`flood stderr` and `garbage` misbehave if `faults` is true.
An image in the message has the text `[image 1a2b3c4d]`, by the first digits of its SHA-256, and a sound `[audio …]`.
A scripted answer cannot be made to follow a grammar: constrained requests are refused unless `constraints` is true,
which promises that the answers follow every constraint.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from mullama.chat.media import Medium
from mullama.errors import BadWeights, Invalid
from mullama.struct import Struct, field_names

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
_USER = "<|im_start|>user\n"
_CALLS = re.compile(r"\bcall [\w.-]+ \{|<tool_call>")
_RESULTS = re.compile(r"<\|im_start\|>tool\n(.*?)<\|im_end\|>", re.DOTALL)
_LONGEST_ANSWER = 1_000_000  # tokens


class Rule(Struct, frozen=True, kw_only=True):
    """An answer to messages in which `when`, a regular expression, matches."""

    when: str
    say: str = ""
    think: str = ""
    call: Mapping[str, Any] | None = None


class Script(Struct, frozen=True, kw_only=True):
    """A script with its settings."""

    name: str = "scripted"
    context: int = 8192
    """Tokens."""
    template: str = TEMPLATE
    embedding_length: int = 64
    burst: int = 1
    """Tokens of each answer in one step."""
    media: tuple[str, ...] = ()
    """Kinds of media that the model reads: image, audio."""
    constraints: bool = False
    """The answers follow every constraint."""
    faults: bool = False
    """Faults are allowed."""
    on_load: str = ""
    """Fault when the script is loaded."""
    on_open: str = ""
    """Fault when a context is opened."""
    rules: tuple[Rule, ...] = ()
    default: str = "echo"


class ScriptedReply(Struct, frozen=True, kw_only=True):
    """The answer to one prompt."""

    text: str
    pause: float = 0.0
    """Seconds per token."""
    fault: str = ""
    """Fault after the first token."""


def parse(text: str, source: str) -> Script:
    """Return the script in a JSON text; raise `BadWeights` with the mistake and its source."""
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise BadWeights(f"{source} is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise BadWeights(f"{source} is not a JSON object", hint="see mullama.engines.scripted.script")
    rules = tuple(_rule(rule, source) for rule in tree.pop("rules", ()))
    media = tuple(tree.pop("media", ()))
    return _checked(Script, tree | {"rules": rules, "media": media}, source)


def reply(script: Script, prompt: str) -> ScriptedReply:
    """Return the script's answer to a prompt."""
    message = _part(last_message(prompt), prompt)
    pause = re.search(r"\bslow (\d+)ms\b", message)
    found = _FAULTS.search(message) if script.faults else None
    return ScriptedReply(
        text=_text(script, message),
        pause=int(pause[1]) / 1000 if pause else 0.0,
        fault=found[0] if found else "",
    )


def with_media(prompt: str, marker: str, media: Sequence[Medium]) -> str:
    """Return a prompt with a text in place of each marker; raise `Invalid` unless there is one for each medium."""
    parts = prompt.split(marker) if marker else [prompt]
    if len(parts) - 1 != len(media):
        raise Invalid(f"the prompt has {len(parts) - 1} places for {len(media)} media")
    texts = (f"[{medium.kind} {medium.digest[:8]}]" for medium in media)
    return parts[0] + "".join(text + part for text, part in zip(texts, parts[1:], strict=True))


def last_message(prompt: str) -> str:
    """Return the user's last turn of a prompt from `TEMPLATE`; any other prompt as it is."""
    start = prompt.rfind(_USER)
    if start < 0:
        return prompt.strip()
    body = prompt[start + len(_USER) :]
    return body.partition(END)[0].strip()


@lru_cache(maxsize=1024)
def chunks(text: str) -> tuple[bytes, ...]:
    """Return a text as tokens: complete characters, up to three bytes together."""
    parts: list[bytes] = []
    part = b""
    for char in text:
        data = char.encode("utf-8", "surrogatepass")
        if part and len(part) + len(data) > 3:
            parts.append(part)
            part = b""
        part += data
    return (*parts, part) if part else tuple(parts)


def token_of(chunk: bytes) -> int:
    """Return the id of a token: its bytes as a number, after a leading 1 that preserves their count."""
    return int.from_bytes(b"\x01" + chunk)


def chunk_of(token: int) -> bytes:
    """Return the bytes of a token; b"" for an id that is no token."""
    data = token.to_bytes((token.bit_length() + 7) // 8)
    return data[1:] if data[:1] == b"\x01" else b""


def vector(text: str, length: int) -> tuple[float, ...]:
    """Return a unit vector by hashing the words of a text; texts that share words have near vectors."""
    sums = [0.0] * length
    for word in re.findall(r"\w+", text.casefold()) or [text]:
        seed = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        for index in range(length):
            byte = seed[index % 32] ^ (index // 32 * 37 & 0xFF)
            sums[index] += byte / 127.5 - 1.0
    size = math.sqrt(sum(x * x for x in sums)) or 1.0
    return tuple(x / size for x in sums)


def similarity(left: tuple[float, ...], right: tuple[float, ...]) -> float:
    """Return the cosine similarity of two unit vectors."""
    return sum(x * y for x, y in zip(left, right, strict=True))


def _part(message: str, prompt: str) -> str:
    """Return the part of the user's message that answers now, by the turns of tools after it."""
    parts = message.split(" then ") if _CALLS.search(message) else [message]
    if len(parts) == 1:
        return message
    after = prompt[prompt.rfind(_USER) :]
    results = _RESULTS.findall(after)
    turns = after.count("<|im_start|>assistant\n") - 1  # the last one begins the answer
    part = parts[min(turns if results else 0, len(parts) - 1)]
    return part.replace("RESULT", " | ".join(result.strip() for result in results))


def _text(script: Script, message: str) -> str:
    for rule in script.rules:
        if re.search(rule.when, message, re.IGNORECASE):
            return _answer_text(rule.say, rule.think, rule.call)
    think = re.search(r"\bthink (.+)", message)
    call = re.search(r"\bcall ([\w.-]+) (\{.*\})", message, re.DOTALL)
    if call:
        arguments = json.loads(call[2])
        return _answer_text("", think[1] if think else "", {"name": call[1], "arguments": arguments})
    say = re.search(r"\bsay (.+)", message, re.DOTALL)
    return _answer_text(say[1] if say else _counted(script, message), think[1] if think else "", None)


def _counted(script: Script, message: str) -> str:
    number = re.search(r"\bcount to (\d+)\b", message)
    if number:
        return " ".join(str(i) for i in range(1, min(int(number[1]), _LONGEST_ANSWER) + 1))
    number = re.search(r"\b(\d+) tokens\b", message)
    if number:
        return "".join(f"{i % 100:02} " for i in range(min(int(number[1]), _LONGEST_ANSWER)))
    return message if script.default == "echo" else script.default


def _answer_text(say: str, think: str, call: Mapping[str, Any] | None) -> str:
    thought = f"<think>\n{think}\n</think>\n\n" if think else ""
    called = f"<tool_call>\n{json.dumps(call)}\n</tool_call>" if call else ""
    return thought + say + called


def _rule(tree: Any, source: str) -> Rule:
    if not isinstance(tree, dict) or not isinstance(tree.get("when"), str):
        raise BadWeights(f"{source}: a rule is an object with a text `when`")
    try:
        re.compile(tree["when"])
    except re.error as error:
        raise BadWeights(f"{source}: {tree['when']!r} is not a regular expression: {error}") from error
    return _checked(Rule, tree, source)


_Part = TypeVar("_Part", Script, Rule)


def _checked(cls: type[_Part], tree: Mapping[str, Any], source: str) -> _Part:
    unknown = tree.keys() - set(field_names(cls))
    if unknown:
        raise BadWeights(f"{source}: unknown key {min(unknown)!r}")
    return cls(**tree)
