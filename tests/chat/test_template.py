"""Jinja chat templates: what they get, how they are bounded, and what trials find out about them."""

# ruff: noqa: E501 - tables of cases read better on one line each

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.chat.template import ChatInput, SpecialTexts, Traits, compile_template, declared_prefix
from mullama.chat.template.fuel import MAX_TICKS, OutOfFuel, budget, weigh
from mullama.chat.types import Message, Tool, ToolCall, text_message
from mullama.errors import Invalid, MullamaError, TooLarge
from tests.processor_time import processor_time

SHOW = "{% for m in messages %}{{ m.content }}{% endfor %}"
HI = (text_message("user", "Hi"),)


def template(source: str) -> Any:
    return compile_template(source, "jinja", SpecialTexts(bos="<s>", eos="</s>"))


def render(source: str, messages: tuple[Message, ...] = HI, **more: Any) -> str:
    text: str = template(source).render(ChatInput(messages=messages, **more)).text
    return text


RENDERS = [
    ("{{ bos_token }}" + SHOW + "{{ eos_token }}", "<s>Hi</s>"),
    ("{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}", "Hi\n"),
    ("{% for m in messages %}{% if loop.index0 %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}", "Hi"),
    (SHOW + "{{ {'b': '<é>', 'a': [1, none, true]} | tojson }}", 'Hi{"b": "<é>", "a": [1, null, true]}'),
    (SHOW + "{% generation %}!{% endgeneration %}", "Hi!"),
    (SHOW + "{{ strftime_now('%Y-%m-%d') }}", "Hi1970-01-02"),
    (SHOW + "{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "Hi3"),
    (SHOW + "{{ 'a b'.split(' ') | join('-') ~ 1 ~ none }}", "Hia-b1None"),
    (SHOW + "{{ messages[0].content[::-1] ~ messages[:1] | length }}", "HiiH1"),
    (SHOW + "{{ '%s-%03d' % ('x', 7) }}{{ '{:>4}'.format('y') }}{{ 'z'.center(3) }}", "Hix-007   y z "),
    (SHOW + "{{ [3, 1, 2] | sort | first }}{{ {'a': 1}.items() | list }}{{ 'x' if missing is undefined }}",
     "Hi1[('a', 1)]x"),
    (SHOW + "{{ 2 ** 10 + 7 % 4 * 3 }}{{ [1] + [2] }}{{ 'ab' * 2 }}", "Hi1033[1, 2]abab"),
    (SHOW + "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('a') }}{{ 'a\nb' | indent(2) }}", "Hi<a>a\n  b"),
    (SHOW + "{{ (1, 2) | sum }}{{ [1.25] | map('round', 1) | list }}{{ ['a b c'] | map('wordwrap', 3) | list }}",
     "Hi3[1.2]['a b\\nc']"),
    (SHOW + "{{ [1, 2, 3] | batch(2) | list }}{{ [1, 2, 3] | select('gt', 1) | list }}", "Hi[[1, 2], [3]][2, 3]"),
    (SHOW + "{% if 'i' in messages[0].content and messages[0]['content'] != 'x' %}y{% endif %}", "Hiy"),
    (SHOW + "{{ enable_thinking is defined }}{{ tools is none }}{{ add_generation_prompt }}", "HiFalseTrueTrue"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "wanted"), RENDERS)
def test_templates_mean_what_they_mean_elsewhere(source: str, wanted: str) -> None:
    assert render(source, now=86_400.0) == wanted


# The ways to loop, grow or print for ever that a template can find; each would be ended by nothing else.
HOSTILE = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) if false %}{% endfor %}{% for a in range(99999) if false %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{{ lipsum(n=100000) }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 10 ** 10000000000 }}",
    "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10000000000) }}",
    "{{ 'a'.ljust(10000000000) }}",
    "{{ 'a'.center(10000000000) }}{{ 'a'.zfill(10000000000) }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ 'a' | indent(10000000000) }}",
    "{{ [1] | batch(10000000000, 0) | list }}",
    "{{ [1] | slice(10000000000) | list }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{{ 'a' | tojson(indent=100000000) }}",
    "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s.replace('a', n.s) %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s.join([n.s, n.s]) %}{% endfor %}",
    "{% set n = namespace(l=[0]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}",
    "{% set n = namespace(l=[0]) %}{% for i in range(99) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
    "{% set n = namespace(l=0) %}{% for i in range(99) %}{% set n.l = dict(a=n.l, b=n.l) %}{% endfor %}{{ n.l }}",
    "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}{% endmacro %}{{ f(90) }}",
    "{% for i in range(20000) %}{{ range(99999) | list | length }}{% endfor %}",
    "{% for i in range(20000) %}{{ messages | tojson | tojson | tojson }}{% endfor %}",
    "{% set x %}{% for i in range(19000) %}" + "x" * 200_000 + "{% endfor %}{% endset %}{{ x }}",
    "{% for i in range(19000) %}" + "x" * 1000 + "{% endfor %}",
    "{{ [[1], [2]] | sum(start=[]) }}",
    "{{ (1).to_bytes(10000000000, 'big') }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
    "{{ __fuel__.burn(-1000000) }}",
    "{{ cycler('a') }}{{ joiner(',') }}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "(" * 500 + "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "x" * 300_000,
    "{{ 1 }}" * 40_000,
    "{% set __fuel__ = 1 %}{% block b %}{% for i in range(99999) %}{% endfor %}{% endblock %}",
]  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_templates_end_soon_and_with_an_error(source: str) -> None:
    with processor_time() as cost, pytest.raises((Invalid, TooLarge)):
        render(SHOW + source)
    assert cost.seconds < 4.0


@settings(max_examples=30, deadline=None)
@given(st.recursive(
    st.sampled_from(["{{ x }}", "{{ messages }}", "{{ l }}", "a", "{% set l = [l, l] %}", "{% set x = x ~ x %}"]),
    lambda inner: st.tuples(
        st.sampled_from([
            "{{% for i in range(999) %}}{}{{% endfor %}}", "{{% if x %}}{}{{% endif %}}",
            "{{% set x %}}{}{{% endset %}}", "{{% filter upper %}}{}{{% endfilter %}}",
        ]), st.lists(inner, min_size=1, max_size=3),
    ).map(lambda pair: pair[0].format("".join(pair[1]))), max_leaves=12,
))  # fmt: skip
def test_nests_of_any_kind_end(body: str) -> None:
    begun = time.process_time()
    with suppress(MullamaError):
        render("{% set x = 'ab' %}{% set l = [1] %}" + SHOW + body)
    assert time.process_time() - begun < 10.0


def test_a_long_plain_conversation_costs_little_of_its_budget() -> None:
    messages = tuple(text_message("user" if i % 2 else "assistant", "x" * 200) for i in range(4096))
    with processor_time() as cost:
        assert len(render(SHOW, messages)) == 4096 * 200
    assert cost.seconds < 2.0


def test_looking_back_at_every_message_is_affordable_in_long_conversations() -> None:
    back = "{% for m in messages %}{% for j in range(loop.index0) %}{% endfor %}{{ m.content }}{% endfor %}"
    assert render(back, (text_message("user", "x"),) * 500) == "x" * 500


def test_the_budget_is_deterministic_and_bounded() -> None:
    assert budget(0, 0) == 20_000
    assert budget(10, 100) == 30_500
    assert budget(10**9, 10**9) == MAX_TICKS
    shared: list[Any] = [0]
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(OutOfFuel):
        weigh(shared)


def test_a_templates_own_refusal_is_told_with_its_words_and_line() -> None:
    """Compatibility bug 17."""
    source = SHOW + "\n{% if messages | length > 1 %}\n{{ raise_exception('Only one message, please.') }}\n{% endif %}"
    with pytest.raises(Invalid, match=r"Only one message, please\.") as caught:
        render(source, (text_message("user", "a"), text_message("assistant", "b"), text_message("user", "c")))
    assert "line 3" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for %}", "line 1"),
        (SHOW + "\n{{ messages[0].content.nope() }}", "line 2"),
        ("no messages in here", "does not render the user's message"),
        (SHOW + "{{ 1 / 0 }}", "line 1"),
    ],
)
def test_mistakes_in_templates_are_found_when_they_are_compiled(source: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        template(source)


def test_arguments_are_an_allow_list() -> None:
    source = SHOW + "{{ custom_tools }}{{ reasoning_effort }}"
    assert render(source, arguments=(("custom_tools", ("a",)), ("reasoning_effort", "low"))) == "Hi['a']low"
    for name in ("messages", "bos_token", "__fuel__", "raise_exception", "chat_template"):
        with pytest.raises(Invalid, match="not an argument"):
            render(SHOW, arguments=((name, "x"),))


CALL = Message(role="assistant", tool_calls=(ToolCall(id="call_1234567890", name="f", arguments={"b": 1, "a": "é"}),))
RESULT = Message(role="tool", content=text_message("tool", "42").content, tool_call_id="call_1234567890", tool_name="f")
TURN = (*HI, CALL, RESULT)

SHAPES: list[tuple[str, str, dict[str, Any], tuple[Message, ...], str]] = [
    ("content as parts", "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
     {"typed_content": True}, HI, "Hi"),
    ("no system role", "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
     "[{{ m.content }}]{% endfor %}", {"system": False}, (text_message("system", "S"), *HI), "[S\n\nHi]"),
    ("one system message, first", "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
     "{{ raise_exception('first') }}{% endif %}[{{ m.role }}:{{ m.content }}]{% endfor %}",
     {"several_system": False, "late_system": False},
     (text_message("system", "S"), text_message("system", "T"), *HI, text_message("system", "U")), "[system:S\n\nT][user:Hi][user:U]"),
    ("roles alternate", "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
     "{{ raise_exception('alternate') }}{% endif %}[{{ m.content }}]{% endfor %}", {"alternate": True},
     (text_message("user", "a"), text_message("user", "b"), text_message("assistant", "c")), "[a\n\nb][c]"),
    ("arguments as an object", "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
     "{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}",
     {"string_arguments": False}, TURN, 'Hif{"b": 1, "a": "é"}42'),
    ("arguments as a string", "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
     "{{ c.function.name }}{{ c.function.arguments }}{% endfor %}{% endfor %}",
     {"string_arguments": True}, TURN, 'Hif{"b": 1, "a": "é"}42'),
    ("short ids", "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
     "{{ raise_exception('nine') }}{% endif %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}"
     "{% endfor %}", {"short_ids": True}, TURN, 'Hif{"b": 1, "a": "é"}42'),
    ("no tool calls, no tool role", "{% for m in messages %}{% if m.role != 'tool' %}[{{ m.content }}]{% endif %}"
     "{% endfor %}", {"call": "", "tool_role": False}, TURN,
     '[Hi][{"name": "f", "arguments": {"b": 1, "a": "é"}}][Result of f:\n42]'),
    ("one call at a time", "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}"
     "{{ raise_exception('one') }}{% endif %}<{{ m.tool_calls[0].function.name }}{{ m.tool_calls[0].function.arguments"
     " | tojson }}>{% else %}[{{ m.content }}]{% endif %}{% endfor %}", {"single_call": True},
     (*HI, Message(role="assistant", tool_calls=(ToolCall(id="1", name="f", arguments={}),
      ToolCall(id="2", name="g", arguments={}))), Message(role="tool", content=text_message("tool", "B").content, tool_call_id="2"),
      Message(role="tool", content=text_message("tool", "A").content, tool_call_id="1")), "[Hi]<f{}>[A]<g{}>[B]"),
    ("tools as a list", "{% for t in tools %}{{ t.function.name }}{% endfor %}" + SHOW, {"tools_as_list": True}, HI, "Hi"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "traits", "messages", "wanted"), SHAPES, ids=[s[0] for s in SHAPES])
def test_a_conversation_is_changed_only_as_a_template_needs_it(
    name: str, source: str, traits: dict[str, Any], messages: tuple[Message, ...], wanted: str
) -> None:
    made = template(source)
    for trait, value in traits.items():
        assert getattr(made.traits, trait) == value, name
    assert made.render(ChatInput(messages=messages)).text == wanted


def test_thinking_beside_text_in_a_call_is_joined_for_templates_that_refuse_both() -> None:
    source = (
        "{% for m in messages %}{% if m.tool_calls and m.content and m.thinking %}{{ raise_exception('both') }}"
        "{% endif %}{{ m.thinking }}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
        "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    made = template(source)
    assert made.traits.thinking_or_content
    both = Message(
        role="assistant", content=text_message("assistant", "B").content, thinking="A", tool_calls=CALL.tool_calls
    )
    assert made.render(ChatInput(messages=(*HI, both))).text == 'HiA\n\nBf{"b": 1, "a": "é"}'


def test_tool_schemas_reach_the_template_verbatim_and_in_order() -> None:
    """Compatibility bug 4."""
    schema = {"type": "object", "properties": {"z": {"type": "string", "minLength": 2, "x-y": [1]}, "a": {"$ref": "#"}}}
    source = SHOW + "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    text = render(source, tools=(Tool(name="f", description="d", parameters=schema),))
    assert text == (
        'Hi{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", '
        '"properties": {"z": {"type": "string", "minLength": 2, "x-y": [1]}, "a": {"$ref": "#"}}}}}'
    )


SWITCHES = [
    ("{% if enable_thinking %}<think>{% else %}</think>{% endif %}", "switch", ()),
    ("{% if thinking is defined and thinking %}on{% endif %}{# </think> #}", "switch", ()),
    ("{{ '<think>' if add_generation_prompt }}{# </think> #}", "always", ()),
    ("effort {{ reasoning_effort or 'medium' }}{# </think> #}", "always", ("low", "medium", "high")),
    ("{% if thinking_effort == 'max' %}x{% endif %}{# </think> #}", "always", ("low", "medium", "high", "max")),
    ("{{ enable_thinking }}", "none", ()),
]


@pytest.mark.parametrize(("source", "think", "levels"), SWITCHES)
def test_trials_find_how_a_template_is_told_to_reason(source: str, think: str, levels: tuple[str, ...]) -> None:
    traits: Traits = template(SHOW + source).traits
    assert (traits.think, traits.levels) == (think, levels)


def test_an_effort_that_a_template_does_not_know_becomes_the_next_lower_one() -> None:
    source = SHOW + "{{ reasoning_effort or 'medium' }}{# </think> #}"
    assert render(source, think="max") == "Hihigh"
    assert render(source, think="low") == "Hilow"
    assert render(source) == "Himedium"


def test_an_open_reasoning_at_the_end_of_the_prompt_is_seen() -> None:
    made = template(SHOW + "{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}")
    assert made.render(ChatInput(messages=HI)).open_think
    assert not made.render(ChatInput(messages=HI, generate=False)).open_think


def test_the_declared_prefix_is_common_to_all_questions() -> None:
    made = template("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    begin = declared_prefix(made, (text_message("system", "S"), text_message("user", "a")))
    assert begin.text == "<system>S<user>a<user>"


def test_an_unknown_syntax_is_refused() -> None:
    with pytest.raises(Invalid, match="mustache"):
        compile_template(SHOW, "mustache", SpecialTexts())


SWITCHED = SHOW + "<think></think>{# marks #}"


@pytest.mark.parametrize(
    ("reads", "unasked"),
    [
        ("{% if not enable_thinking %}off{% endif %}", True),
        ("{% if enable_thinking is true %}{% else %}off{% endif %}", True),
        ("{% if enable_thinking is defined and not enable_thinking %}off{% endif %}", True),
        ("{% if enable_thinking is defined and enable_thinking %}{% else %}off{% endif %}", False),
        (
            "{% set enable_thinking = enable_thinking | default(false) %}{% if not enable_thinking %}off{% endif %}",
            False,
        ),
        ("{% set enable_thinking = enable_thinking | default(true) %}{% if not enable_thinking %}off{% endif %}", True),
        ("{% if not thinking %}off{% endif %}", False),
    ],
)
def test_a_model_thinks_unasked_unless_its_template_has_another_default(reads: str, unasked: bool) -> None:
    made = template(SWITCHED + reads)
    assert made.traits.think == "switch"
    for think, thinks in ((None, unasked), (True, True), (False, False)):
        assert made.render(ChatInput(messages=HI, think=think)).text.endswith("off") is not thinks


def test_a_template_that_reads_a_date_gets_the_date_of_the_request() -> None:
    made = template(
        SHOW + "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}"
    )
    assert made.render(ChatInput(messages=HI, now=1.8e9)).text == "Hi15 Jan 2027"
    chosen = ChatInput(messages=HI, now=1.8e9, arguments=(("date_string", "1 Jan 2000"),))
    assert made.render(chosen).text == "Hi1 Jan 2000"
