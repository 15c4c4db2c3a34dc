"""Requests and settings become prompts: one place, in which the manifest and the client both have their say."""

# ruff: noqa: E501 - tables of cases read better on one line each

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from mullama.chat.answer import fold
from mullama.chat.model_settings import ModelSettings, opening, settings_for
from mullama.chat.prompt import prepare, shortened
from mullama.chat.template import SpecialTexts, declared_prefix
from mullama.chat.types import (
    DEFAULT_SAMPLING,
    ChatRequest,
    CompletionRequest,
    MediaPart,
    Message,
    ReasoningLimit,
    ResponseFormat,
    Sampling,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    text_message,
)
from mullama.errors import Invalid, Unsupported
from mullama.struct import replace
from tests.dialects.wire import decode

CHATML = """\
{%- if tools %}<|im_start|>system
{% for t in tools %}{{ t | tojson }}{% endfor %}<|im_end|>
{% endif %}
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
TOOL = Tool(name="add", parameters={"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]})


def model(source: str = CHATML, **more: Any) -> ModelSettings:
    return settings_for("m", source, special=SpecialTexts(bos="<s>", eos="</s>"), **more)


def chat(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=messages or (text_message("user", "Hi"),), **more)


def prompt(request: Any, settings: ModelSettings | None = None) -> str:
    ids = count()
    text = prepare(request, settings or model(), 0.0, lambda: f"id{next(ids)}").prompt
    assert isinstance(text, str)
    return text


def test_the_prompt_is_what_the_template_makes_of_the_conversation() -> None:
    assert prompt(chat()) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_manifest_says_how_conversations_begin() -> None:
    settings = model(PLAIN, system="Be brief.", messages=(text_message("user", "A"), text_message("assistant", "B")))
    assert prompt(chat(), settings) == "[system]Be brief.\n[user]A\n[assistant]B\n[user]Hi\n"


def test_a_system_message_of_the_client_replaces_the_manifests() -> None:
    settings = model(PLAIN, system="Be brief.", messages=(text_message("user", "A"), text_message("assistant", "B")))
    request = chat(text_message("system", "Be long."), text_message("user", "Hi"))
    assert prompt(request, settings) == "[system]Be long.\n[user]A\n[assistant]B\n[user]Hi\n"


def test_late_system_messages_stay_in_their_place() -> None:
    """Compatibility bug 19: moving them would spoil the cached prefix of every turn."""
    request = chat(
        text_message("system", "S"),
        text_message("user", "a"),
        text_message("assistant", "b"),
        text_message("system", "T"),
        text_message("user", "c"),
    )
    assert prompt(request, model(PLAIN)) == "[system]S\n[user]a\n[assistant]b\n[system]T\n[user]c\n"


def test_a_changing_billing_line_does_not_reach_the_prompt() -> None:
    """Compatibility bug 20: prompts of two requests that differ only in that line are equal."""
    prompts = {
        prompt(
            chat(
                Message(
                    role="system",
                    content=(
                        TextPart(text=f"x-anthropic-billing-header: cc_version=2; cch={nonce};\n"),
                        TextPart(text="You code."),
                    ),
                ),
                text_message("user", "Hi"),
            )
        )
        for nonce in ("a1", "b2")
    }
    assert len(prompts) == 1
    assert "You code." in next(iter(prompts))


def test_sampling_is_the_requests_then_the_manifests_then_the_defaults() -> None:
    settings = model(sampling=Sampling(temperature=0.1, top_k=5), stop=("X",), max_tokens=7)
    made = prepare(chat(sampling=Sampling(top_k=9), stop=("Y", "X")), settings, 0.0, str)
    assert (made.sampling.temperature, made.sampling.top_k, made.sampling.top_p) == (0.1, 9, DEFAULT_SAMPLING.top_p)
    assert (made.stop, made.max_tokens) == (("X", "Y"), 7)
    assert prepare(chat(max_tokens=3), settings, 0.0, str).max_tokens == 3


def test_a_tool_is_shown_constrained_and_read() -> None:
    made = prepare(chat(tools=(TOOL,)), model(), 0.0, lambda: "call_1")
    assert isinstance(made.prompt, str)
    assert '"name": "add"' in made.prompt
    assert made.constraint is not None
    assert made.constraint.triggers == ("<tool_call>",)
    reader = made.reader(0)
    events = reader.feed('<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>')
    answer = fold((*events, *reader.finish()))
    assert answer.choices[0].tool_calls == (ToolCall(id="call_1", name="add", arguments={"x": 1}),)


def test_tool_choice_none_hides_the_tools_and_reads_no_calls() -> None:
    made = prepare(chat(tools=(TOOL,), tool_choice=ToolChoice(mode="none")), model(), 0.0, str)
    assert isinstance(made.prompt, str)
    assert "add" not in made.prompt
    assert (made.constraint, made.tools) == (None, ())


def test_a_required_call_after_reasoning_has_the_reasoning_opened() -> None:
    made = prepare(chat(tools=(TOOL,), tool_choice=ToolChoice(mode="required")), model(), 0.0, str)
    assert isinstance(made.prompt, str)
    assert made.prompt.endswith("<|im_start|>assistant\n<think>\n")
    assert made.open_think
    assert made.constraint is not None
    assert made.constraint.after == "</think>"


def test_a_required_call_without_reasoning_binds_at_once() -> None:
    request = chat(tools=(TOOL,), tool_choice=ToolChoice(mode="required"), think=False)
    made = prepare(request, model(), 0.0, str)
    assert isinstance(made.prompt, str)
    assert made.prompt.endswith("</think>\n\n")
    assert made.constraint is not None
    assert (made.constraint.after, made.constraint.triggers) == (None, ())


@pytest.mark.parametrize("think", [True, "high", None])
def test_a_format_is_enforced_after_the_reasoning_not_instead_of_it(think: bool | str | None) -> None:
    """Compatibility bug 5."""
    made = prepare(chat(format=ResponseFormat(kind="json"), think=think), model(), 0.0, str)
    assert made.constraint is not None
    assert made.constraint.after == "</think>"
    assert made.open_think


def test_tools_are_described_in_words_where_the_template_has_no_place_for_them() -> None:
    made = prepare(chat(tools=(TOOL,)), model(PLAIN), 0.0, str)
    assert isinstance(made.prompt, str)
    assert '{"name": "<function-name>", "arguments": <arguments-json-object>}' in made.prompt
    assert '"name": "add"' in made.prompt
    assert any("no place for tools" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("default", "asked", "closed"),
    [(None, None, False), (False, None, True), (False, True, False), (True, False, True), (True, None, False)],
)
def test_the_manifest_chooses_the_reasoning_of_requests_that_do_not(
    default: bool | None, asked: bool | None, closed: bool
) -> None:
    settings = replace(model(), think=default)
    assert prompt(chat(think=asked), settings).endswith("</think>\n\n") is closed
    assert declared_prefix(settings, opening(settings)).text == "<|im_start|>user\n"


@pytest.mark.parametrize(
    ("declared", "asked", "bound"),
    [
        (None, None, None),
        (100, None, 100),
        (None, 50, 50),
        (100, 50, 50),
        (50, 100, 50),
        (100, -1, 100),
        (None, -1, None),
        (0, None, 0),
    ],
)
def test_the_bound_of_the_reasoning_is_the_lowest(declared: int | None, asked: int | None, bound: int | None) -> None:
    made = prepare(chat(think_budget=asked), replace(model(), think_budget=declared), 0.0, str).reasoning
    if bound is None:
        assert made is None
    else:
        assert made == ReasoningLimit(tokens=bound, open="<think>", close="</think>", closing="\n</think>\n\n")


def test_a_model_without_reasoning_has_no_bound() -> None:
    assert prepare(chat(think_budget=5), model(PLAIN), 0.0, str).reasoning is None


def test_arguments_of_the_manifest_reach_the_template_and_those_of_the_request_win() -> None:
    settings = replace(
        model("{{ messages[0].content }} {{ language }}-{{ length }}"), arguments=(("language", "dry"), ("length", 3))
    )
    assert prompt(chat(), settings) == "Hi dry-3"
    assert prompt(chat(template_arguments=(("language", "warm"),)), settings) == "Hi warm-3"


@pytest.mark.parametrize(
    ("declared", "asked", "several"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_several_calls_need_the_manifest_and_the_request(declared: bool, asked: bool, several: bool) -> None:
    request = chat(tools=(TOOL,), tool_choice=ToolChoice(mode="required"), parallel_tool_calls=asked)
    alone = prepare(replace(request, parallel_tool_calls=False), model(), 0.0, str).constraint
    made = prepare(request, replace(model(), parallel_calls=declared), 0.0, str).constraint
    assert (made != alone) is several


def test_thinking_asked_of_a_model_that_cannot_is_remarked_upon() -> None:
    """Compatibility bug 21: clients send the wish to every model."""
    made = prepare(chat(think=True, think_optional=True), model(PLAIN), 0.0, str)
    assert made.warnings == ('"m" does not support thinking',)
    assert prepare(chat(think=False), model(PLAIN), 0.0, str).warnings == ()
    with pytest.raises(Unsupported, match='"m" does not support thinking'):
        prepare(chat(think=True), model(PLAIN), 0.0, str)


ALWAYS = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}A:<think>\n{% endif %}{# </think> #}"


def test_a_template_that_always_reasons_gets_its_reasoning_closed_when_asked() -> None:
    settings = model(ALWAYS)
    assert settings.template.traits.think == "always"
    assert prepare(chat(), settings, 0.0, str).open_think
    made = prepare(chat(think=False), settings, 0.0, str)
    assert made.prompt == "HiA:<think>\n\n</think>\n\n"
    assert not made.open_think


def test_the_last_assistant_message_can_be_continued() -> None:
    request = chat(text_message("user", "Hi"), text_message("assistant", "Once upon "), continue_final=True)
    assert prompt(request).endswith("<|im_start|>assistant\nOnce upon ")


@pytest.mark.parametrize(("begun", "inside"), [("<think>\nLet me", True), ("<think>a</think>So", False), ("So", False)])
def test_a_continued_answer_may_stop_inside_the_reasoning(begun: str, inside: bool) -> None:
    made = prepare(
        chat(text_message("user", "Hi"), text_message("assistant", begun), continue_final=True), model(), 0.0, str
    )
    assert made.open_think is inside


def test_images_are_refused_where_no_projector_is() -> None:
    picture = Message(role="user", content=(TextPart(text="What?"), MediaPart(data=b"x")))
    with pytest.raises(Unsupported, match="does not support vision"):
        prompt(chat(picture))


IMAGE_URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eHg="}}
PLAIN_URL = {"type": "image_url", "image_url": "https://x.org/a"}
ENCODED = {"type": "image", "source": {"type": "base64", "data": "eHg="}}
LINKED = {"type": "image", "source": {"type": "url", "url": "https://x.org/a"}}


@pytest.mark.parametrize(
    ("path", "message", "field"),
    [
        ("/v1/chat/completions", {"content": [IMAGE_URL]}, "messages[0].content[0].image_url.url"),
        ("/v1/chat/completions", {"content": [IMAGE_URL, PLAIN_URL][1:]}, "messages[0].content[0].image_url"),
        ("/v1/messages", {"content": [ENCODED]}, "messages[0].content[0].source.data"),
        ("/v1/messages", {"content": [LINKED]}, "messages[0].content[0].source.url"),
        ("/api/chat", {"content": "x", "images": ["eHg="]}, "messages[0].images[0]"),
    ],
)
def test_a_picture_is_refused_by_the_field_that_the_caller_sent(path: str, message: dict[str, Any], field: str) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", **message}]}
    with pytest.raises(Unsupported) as caught:
        prepare(decode(path, body), model(), 0.0, str)
    assert caught.value.field == field


def test_generate_is_a_conversation_of_one_turn() -> None:
    settings = model(PLAIN, system="Be brief.")
    request = CompletionRequest(model="m", prompts=("Hi",), raw=False)
    assert prompt(request, settings) == "[system]Be brief.\n[user]Hi\n"
    other = CompletionRequest(model="m", prompts=("Hi",), raw=False, system="Be long.")
    assert prompt(other, settings) == "[system]Be long.\n[user]Hi\n"
    assert prepare(request, settings, 0.0, str).want_tokens


def test_raw_prompts_stay_as_they_are() -> None:
    request = CompletionRequest(model="m", prompts=("<think>a", (1, 2)), suffix="b")
    made = prepare(request, model(system="S"), 0.0, str)
    assert (made.prompts, made.suffix, made.want_tokens) == (("<think>a", (1, 2)), "b", False)
    assert [event.text for event in made.reader(0).feed("<think>x")] == ["<think>x"]  # type: ignore[union-attr]


def test_what_cannot_be_done_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="not rendered"):
        prompt(CompletionRequest(model="m", prompts=("Hi",), raw=False, template="{{ .Prompt }}"))
    with pytest.raises(Unsupported, match="does not support insert"):
        prompt(CompletionRequest(model="m", prompts=("Hi",), suffix="x"), model(fim=False))
    with pytest.raises(Invalid, match="messages is empty"):
        prompt(ChatRequest(model="m", messages=()))
    with pytest.raises(Invalid, match="not among the tools"):
        prompt(chat(tools=(TOOL,), tool_choice=ToolChoice(mode="required", names=("nope",))))
    with pytest.raises(Invalid, match="there are no tools"):
        prompt(chat(tool_choice=ToolChoice(mode="required")))


def test_the_oldest_turn_goes_first_and_takes_its_results_along() -> None:
    request = chat(
        text_message("system", "S"),
        text_message("user", "1"),
        text_message("assistant", "a"),
        text_message("tool", "r"),
        text_message("user", "2"),
        text_message("user", "3"),
    )
    first = shortened(request)
    assert first is not None
    assert [m.text for m in first.messages] == ["S", "2", "3"]
    second = shortened(first)
    assert second is not None
    assert [m.text for m in second.messages] == ["S", "3"]
    assert shortened(second) is None


def test_the_declared_beginning_is_a_prefix_of_every_prompt() -> None:
    settings = model(system="You answer briefly.")
    prefix = declared_prefix(settings, opening(settings)).text
    assert "You answer briefly." in prefix
    for text in ("Hi", "0", "\n", "<x>"):
        assert prompt(chat(text_message("user", text)), settings).startswith(prefix)


def test_capabilities_are_what_trials_found() -> None:
    assert model().capabilities == ("completion", "tools", "thinking", "insert")
    assert model(PLAIN, fim=False).capabilities == ("completion",)
