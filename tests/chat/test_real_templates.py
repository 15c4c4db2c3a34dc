# ruff: noqa: E501 - tables of cases read better on one line each
"""Templates of published models: what is found out about each, and that their own calls are read back."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from mullama.chat.answer import fold
from mullama.chat.families import family_names, family_of
from mullama.chat.reader import read
from mullama.chat.template import ChatInput, ChatTemplate, SpecialTexts, compile_template, declared_prefix
from mullama.chat.types import Message, Tool, ToolCall, text_message
from mullama.struct import replace

FOLDER = Path(__file__).parent / "templates"
BUILTIN = Path(__file__).parents[2] / "mullama" / "sources" / "builtin_models" / "tiny.gguf"

# Ways of writing calls that no file in the folder shows, in as few words as possible.
SHORT = {
    "llama": "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% if m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call') }}{% endif %}{% set c = m.tool_calls[0].function %}"
    '{"name": "{{ c.name }}", "parameters": {{ c.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}'
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "gemma": "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<|tool_call>call:{{ c.function.name }}{{ '{' }}{% for k, v in c.function.arguments.items() %}{{ k }}:"
    "{% if v is string %}<|\"|>{{ v }}<|\"|>{% else %}{{ v | tojson }}{% endif %}{{ ',' if not loop.last }}{% endfor %}{{ '}' }}<tool_call|>{% endfor %}<end_of_turn>\n{% endfor %}",
    "phi": "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'system' and tools %}<|tool|>{{ tools | tojson }}<|/tool|>{% endif %}{{ m.content }}"
    "{% if m.tool_calls %}<|tool_call|>[{% for c in m.tool_calls %}{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}{{ ', ' if not loop.last }}{% endfor %}]<|/tool_call|>{% endif %}<|end|>{% endfor %}",
}  # fmt: skip

# file or name above: family, how it is told to reason, the shapes that it needs
FOUND: dict[str, tuple[str, str, set[str]]] = {
    "Apertus-8B-Instruct": ("apertus", "switch", {"tools", "!several_system", "!late_system"}),
    "ByteDance-Seed-OSS": ("seed", "always", {"tools"}),
    "GLM-4.6": ("glm", "switch", {"tools"}),
    "Mistral-Small-3.2-24B-Instruct-2506": (
        "mistral-id",
        "none",
        {"tools", "alternate", "short_ids", "!several_system", "!late_system"},
    ),
    "Qwen-Qwen3-0.6B": ("hermes", "switch", {"tools"}),
    "Qwen3-Coder": ("qwen-coder", "none", {"tools"}),
    "Qwen3.5-4B": ("qwen-coder", "switch", {"tools", "!several_system", "!late_system"}),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek-v3.1", "switch", set()),
    "deepseek-ai-DeepSeek-V3.2": ("deepseek-v3.2", "switch", {"tools"}),
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", "switch", {"tools"}),
    "ibm-granite-granite-4.0": ("hermes", "none", {"tools"}),
    "llama-cpp-deepseek-r1": ("deepseek", "always", {"tools", "!several_system"}),
    "meetkai-functionary-medium-v3.1": ("functionary", "none", {"tools"}),
    "microsoft-Phi-3.5-mini-instruct": ("generic", "none", {"!tool_role"}),
    "mistralai-Ministral-3-14B-Reasoning-2512": (
        "mistral",
        "always",
        {"tools", "alternate", "!several_system", "!late_system"},
    ),
    "mistralai-Mistral-Nemo-Instruct-2407": (
        "mistral-list",
        "none",
        {"tools", "alternate", "short_ids", "!several_system", "!late_system"},
    ),
    "openai-gpt-oss-120b": (
        "harmony",
        "always",
        {"tools", "single_call", "thinking_or_content", "!several_system", "!late_system"},
    ),
    "tiny.gguf": ("hermes", "switch", {"tools"}),
    "llama": ("llama", "none", {"tools", "single_call"}),
    "gemma": ("gemma", "none", {"tools"}),
    "phi": ("phi", "none", set()),
}
NO_CALLS = ("ibm-granite-granite-3.3-2B-Instruct", "microsoft-Phi-3.5-mini-instruct")
WITH_CALLS = [name for name in FOUND if name not in NO_CALLS]
FLAGS = (
    "tools",
    "alternate",
    "typed_content",
    "string_arguments",
    "single_call",
    "short_ids",
    "thinking_or_content",
    "tools_as_list",
)
RIGHTS = ("system", "several_system", "late_system", "tool_role")


@cache
def template(name: str) -> ChatTemplate:
    if name == "tiny.gguf":
        field = GGUFReader(BUILTIN).fields["tokenizer.chat_template"]
        source = str(field.contents())
    else:
        source = SHORT.get(name) or (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return compile_template(source, "jinja", SpecialTexts(bos="<BOS>", eos="<EOS>"))


def test_every_template_of_the_folder_is_looked_at() -> None:
    assert {path.stem for path in FOLDER.glob("*.jinja")} == set(FOUND) - set(SHORT) - {"tiny.gguf"}
    assert {family for family, _, _ in FOUND.values()} <= set(family_names())


@pytest.mark.parametrize("name", FOUND)
def test_trials_find_the_family_and_the_shapes(name: str) -> None:
    traits = template(name).traits
    shapes = {flag for flag in FLAGS if getattr(traits, flag)} | {
        f"!{flag}" for flag in RIGHTS if not getattr(traits, flag)
    }
    assert (family_of(template(name)).name, traits.think, shapes) == FOUND[name]
    assert bool(traits.call) == (name in WITH_CALLS)


CALL = ToolCall(id="call_0123456789", name="get_weather", arguments={"city": "Paris", "days": 3})
TOOL = Tool(
    name="get_weather",
    description="The weather.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
)
RESULT = Message(
    role="tool", content=text_message("tool", "rainy-result").content, tool_call_id=CALL.id, tool_name=CALL.name
)
TURNS = (
    text_message("system", "system-words"),
    text_message("user", "user-words"),
    Message(role="assistant", tool_calls=(CALL,)),
    RESULT,
)


def render(name: str, *messages: Message, **more: Any) -> str:
    return template(name).render(ChatInput(messages=messages, **more)).text


@pytest.mark.parametrize("name", WITH_CALLS)
def test_the_calls_that_a_template_writes_are_read_back(name: str) -> None:
    """The template is the best witness of what its model was trained to write."""
    text = render(name, *TURNS, tools=(TOOL,))
    start = text.index("user-words") + len("user-words")
    written = text[start : text.index("rainy-result")]
    # These two are read from the beginning of the answer, so the words that open the turn are cut off.
    for opening in ("<|start|>assistant", "<|start_header_id|>assistant<|end_header_id|>\n\n"):
        if name in ("openai-gpt-oss-120b", "llama"):
            written = written.partition(opening)[2] or written
    for pieces in ([written], list(written)):
        reader = read(family_of(template(name)), lambda: "id", tools=(TOOL,))
        events = [event for piece in pieces for event in reader.feed(piece)]
        answer = fold((*events, *reader.finish()))
        assert [(c.name, c.arguments) for c in answer.choices[0].tool_calls] == [(CALL.name, CALL.arguments)]


@pytest.mark.parametrize("name", FOUND)
def test_nothing_that_was_said_is_lost(name: str) -> None:
    text = render(
        name, *TURNS, text_message("assistant", "answer-words"), text_message("user", "more-words"), tools=(TOOL,)
    )
    places = [
        text.find(words)
        for words in ("system-words", "user-words", "get_weather", "rainy-result", "answer-words", "more-words")
    ]
    assert -1 not in places
    assert places[1] < places[3] < places[4] < places[5]


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize(
    "messages",
    [
        (text_message("system", "one"), text_message("system", "two"), text_message("user", "three")),
        (
            text_message("user", "one"),
            text_message("user", "two"),
            text_message("assistant", "three"),
            text_message("system", "four"),
            text_message("user", "five"),
        ),
        (
            text_message("user", "one"),
            text_message("assistant", "two"),
            text_message("assistant", "three"),
            text_message("user", "four"),
        ),
    ],
)
def test_odd_orders_of_roles_are_accepted(name: str, messages: tuple[Message, ...]) -> None:
    """Compatibility bugs 17 and 19: what clients really send neither fails nor disappears."""
    text = render(name, *messages)
    assert [m.text for m in messages if m.text not in text] == []


@pytest.mark.parametrize("name", FOUND)
def test_parallel_calls_and_their_results_are_shown(name: str) -> None:
    other = ToolCall(id="call_other56789", name="get_weather", arguments={"city": "Rome"})
    result = Message(
        role="tool",
        content=text_message("tool", "sunny-result").content,
        tool_call_id=other.id,
        tool_name="get_weather",
    )
    both = Message(role="assistant", tool_calls=(CALL, other))
    text = render(name, *TURNS[:2], both, result, RESULT, tools=(TOOL,))
    assert [words for words in ("Paris", "Rome", "sunny-result", "rainy-result") if words not in text] == []


@pytest.mark.parametrize("name", FOUND)
def test_the_last_message_can_be_left_open(name: str) -> None:
    text = render(name, text_message("user", "user-words"), text_message("assistant", "begun "), continue_final=True)
    assert text.rstrip().endswith("begun")


@pytest.mark.parametrize("name", FOUND)
def test_the_declared_beginning_begins_every_prompt(name: str) -> None:
    begins = (text_message("system", "system-words"),)
    prefix = declared_prefix(template(name), begins).text
    assert render(name, *begins, text_message("user", "Anything at all?")).startswith(prefix)
    if template(name).traits.system and not name.startswith("mistralai-Mistral-Nemo"):
        assert "system-words" in prefix


def test_reasoning_is_switched_and_read_as_the_built_in_model_does_it() -> None:
    asked = (text_message("user", "Hi"),)
    assert render("tiny.gguf", *asked, think=True).endswith("<|im_start|>assistant\n")
    assert render("tiny.gguf", *asked, think=False).endswith("<think>\n\n</think>\n\n")
    assert render("tiny.gguf", *asked) == render("tiny.gguf", *asked, think=True)


def test_harmony_efforts_reach_the_system_message() -> None:
    asked = (text_message("user", "Hi"),)
    for effort, wanted in (("low", "low"), ("high", "high"), ("max", "high")):
        assert f"Reasoning: {wanted}" in render("openai-gpt-oss-120b", *asked, think=effort)


@pytest.mark.parametrize("name", WITH_CALLS)
@pytest.mark.parametrize("arguments", ['{"city": "Xana', "[1]", "plain words"])
def test_arguments_that_are_no_object_stay_readable_in_every_template(name: str, arguments: str) -> None:
    broken = replace(TURNS[2], tool_calls=(replace(CALL, arguments=arguments),))
    text = render(name, *TURNS[:2], broken, *TURNS[3:], tools=(TOOL,))
    assert arguments in text or json.dumps(arguments)[1:-1] in text
