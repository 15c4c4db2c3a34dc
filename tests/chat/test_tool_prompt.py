"""Where a template has no place for tools or calls, they are told in words that the readers understand."""

from __future__ import annotations

import json

import pytest

from mullama.chat.answer import fold
from mullama.chat.families import family_names, family_with
from mullama.chat.model_settings import settings_for
from mullama.chat.prompt import prepare
from mullama.chat.reader import read
from mullama.chat.tool_prompt import example, with_calls_written, with_tools_described
from mullama.chat.types import ChatRequest, Message, Tool, ToolCall, text_message

TOOL = Tool(name="get_weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
CALL = ToolCall(id="1", name="get_weather", arguments={"city": "Paris"})


@pytest.mark.parametrize("name", family_names())
def test_a_call_written_as_text_is_one_that_the_family_reads(name: str) -> None:
    family = family_with(name)
    text = with_calls_written(Message(role="assistant", tool_calls=(CALL,)), family.calls).text
    reader = read(family, lambda: "id", tools=(TOOL,))
    answer = fold((*reader.feed(text), *reader.finish()))
    assert [(c.name, c.arguments) for c in answer.choices[0].tool_calls] == [(CALL.name, CALL.arguments)]


@pytest.mark.parametrize("name", family_names())
def test_tools_are_described_at_the_end_of_the_system_message(name: str) -> None:
    syntax = family_with(name).calls
    with_system = with_tools_described(
        (text_message("system", "Be kind."), text_message("user", "Hi")), (TOOL,), syntax
    )
    alone = with_tools_described((text_message("user", "Hi"),), (TOOL,), syntax)
    assert with_system[0].text == f"Be kind.\n\n{alone[0].text}"
    assert json.dumps(TOOL.parameters) in alone[0].text
    assert alone[0].text.endswith(example(syntax))


def test_history_in_a_template_without_calls_speaks_the_models_own_language() -> None:
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{# <|tool_calls_section_begin|> #}"
    settings = settings_for("m", source)
    assert settings.family.name == "kimi"
    history = (text_message("user", "a"), Message(role="assistant", tool_calls=(CALL,)), text_message("user", "b"))
    request = ChatRequest(model="m", messages=history)
    prompt = prepare(request, settings, 0.0, str).prompt
    assert isinstance(prompt, str)
    assert '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}' in prompt
