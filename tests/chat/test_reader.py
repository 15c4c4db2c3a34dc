"""Readers: every family's calls and reasoning come out right, however the text is cut."""

# ruff: noqa: E501 - tables of cases read better on one line each

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.chat.answer import fold
from mullama.chat.families import GENERIC, Family, family_names, family_with
from mullama.chat.reader import read
from mullama.chat.template import Thinking
from mullama.chat.types import (
    Choice,
    Event,
    Finished,
    StopReason,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    Tool,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)

THINK = Thinking(open="<think>", close="</think>")
TOOLS = (
    Tool(
        name="get_weather",
        parameters={
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        },
    ),
    Tool(name="add", parameters={"type": "object", "properties": {"x": {"type": "number"}}}),
)


def events_of(family: Family, pieces: list[str], **options: Any) -> tuple[Event, ...]:
    ids = count()
    options.setdefault("tools", TOOLS)
    reader = read(family, lambda: f"id{next(ids)}", **options)
    events = [event for piece in pieces for event in reader.feed(piece)]
    return (*events, *reader.finish(), Finished(reason=StopReason.STOP))


def answer_of(family: Family, pieces: list[str], **options: Any) -> Choice:
    return fold(events_of(family, pieces, **options)).choices[0]


def short(choice: Choice) -> tuple[str, str, list[tuple[str, Any]]]:
    return choice.text, choice.thinking, [(c.name, c.arguments) for c in choice.tool_calls]


PARIS = ("get_weather", {"city": "Paris"})
ADD = ("add", {"x": 1.5})

# family, what the model writes, (text, calls)
CALLS: list[tuple[str, str, tuple[str, list[tuple[str, Any]]]]] = [
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', ("", [PARIS])),
    (
        "hermes",
        'Let me look.\n<tool_call>{"name":"get_weather","arguments":{"city":"Paris"}}</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"x": 1.5}}\n</tool_call>',
        ("Let me look.", [PARIS, ADD]),
    ),
    ("hermes", '<tool_call>\n{"arguments": {"city": "Paris"}, "name": "get_weather"}\n</tool_call>', ("", [PARIS])),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}\n</tool_call>', ("", [PARIS])),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>', ("", [PARIS])),
    ("hermes", '<tool_call>{"name": "get_weather"}</tool_call>', ("", [("get_weather", {})])),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": null}</tool_call>', ("", [("get_weather", {})])),
    ("hermes", '{"name": "get_weather", "arguments": {"city": "Paris"}}', ("", [PARIS])),
    ("hermes", '```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```', ("", [PARIS])),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"city": "a\nb\t\\u00e9"}}</tool_call> done',
        ("done", [("get_weather", {"city": "a\nb\té"})])),
    ("qwen-coder",
        "I will.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>", ("I will.", [("get_weather", {"city": "Paris", "days": 3})])),
    ("qwen-coder", "<function=get_weather>\n<parameter=city>\na\n\nb <c>\n</parameter>\n</function>",
        ("", [("get_weather", {"city": "a\n\nb <c>"})])),
    ("qwen-coder", "<tool_call>\n<function=add>\n</function>\n</tool_call>\n<tool_call>\n<function=get_weather>\n"
        '<parameter=tags>\n["x", "y"]\n</parameter>\n</function>\n</tool_call>',
        ("", [("add", {}), ("get_weather", {"tags": ["x", "y"]})])),
    ("seed", "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n"
        "</seed:tool_call>", ("", [PARIS])),
    ("minimax", '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '</invoke>\n<invoke name="add">\n<parameter name="x">1.5</parameter>\n</invoke>\n</minimax:tool_call>',
        ("", [PARIS, ADD])),
    ("deepseek-v3.2", '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" '
        'string="true">Paris</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>", ("", [("get_weather", {"city": "Paris", "days": 2})])),
    ("deepseek-v4", '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" '
        'string="true">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>', ("", [PARIS])),
    ("muse", '<atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">Paris'
        "</atem:parameter>\n</atem:invoke>\n</atem:function_calls>", ("", [PARIS])),
    ("minicpm", '<function name="get_weather"><param name="city">Paris</param></function>', ("", [PARIS])),
    ("hunyuan", "<tool_calls:opensource>\n<tool_call:opensource>get_weather<tool_sep:opensource>\n<arg_key:opensource>city"
        "</arg_key:opensource>\n<arg_value:opensource>Paris</arg_value:opensource>\n</tool_call:opensource>\n"
        "</tool_calls:opensource>", ("", [PARIS])),
    ("glm", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>", ("", [("get_weather", {"city": "Paris", "days": 3})])),
    ("glm", "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>", ("", [PARIS])),
    ("deepseek", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n'
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"x": 1.5}\n'
        "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", ("", [PARIS, ADD])),
    ("deepseek-v3.1", 'Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>", ("Hm.", [PARIS])),
    ("kimi", '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>'
        '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>{"x": 1.5}'
        "<|tool_call_end|><|tool_calls_section_end|>", ("", [PARIS, ADD])),
    ("mistral-id", '[TOOL_CALLS]get_weather[CALL_ID]123456789[ARGS]{"city": "Paris"}', ("", [PARIS])),
    ("mistral-id", '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', ("", [PARIS])),
    ("mistral", '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]add[ARGS]{"x": 1.5}', ("", [PARIS, ADD])),
    ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]', ("", [PARIS])),
    ("mistral-list", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "123456789"}, '
        '{"name": "add", "arguments": {"x": 1.5}, "id": "123456780"}]', ("", [PARIS, ADD])),
    ("functionary", '<function=get_weather>{"city": "Paris"}</function><function=add>{"x": 1.5}</function>',
        ("", [PARIS, ADD])),
    ("gemma", '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3,tags:[<|"|>a,b<|"|>]}<tool_call|>',
        ("", [("get_weather", {"city": "Paris", "days": 3, "tags": ["a,b"]})])),
    ("functiongemma", "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
        ("", [PARIS])),
    ("gemma-python", '```tool_code\nprint(get_weather(city="Paris"))\n```', ("", [PARIS])),
    ("lfm", "<|tool_call_start|>[get_weather(city='Paris'), add(x=1.5)]<|tool_call_end|>So.", ("So.", [PARIS, ADD])),
    ("cohere", '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
        '{"city": "Paris"}}\n]<|END_ACTION|>', ("", [PARIS])),
    ("cohere-plus", 'Action: ```json\n[{"tool_name": "get_weather", "parameters": {"city": "Paris"}}]```',
        ("", [PARIS])),
    ("phi", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "add", "arguments": '
        '{"x": 1.5}}]<|/tool_call|>', ("", [PARIS, ADD])),
    ("granite", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', ("", [PARIS])),
    ("xlam", '{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "add", "arguments": {"x": 1.5}}]}',
        ("", [PARIS, ADD])),
    ("xlam", '{\n    "tool_calls": [\n    {"name": "get_weather", "arguments": {"city": "Paris"}}\n    ]\n}', ("", [PARIS])),
    ("xlam", '{"tool_calls": []}', ('{"tool_calls": []}', [])),
    ("apertus", '<|tools_prefix|>[{"get_weather": {"city": "Paris"}}, {"add": {"x": 1.5}}]<|tools_suffix|>',
        ("", [PARIS, ADD])),
    ("nemotron", '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</TOOLCALL>', ("", [PARIS])),
    ("apriel", '<tool_calls>[{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "1"}]</tool_calls>',
        ("", [PARIS])),
    ("minimax-m1", '<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n{"name": "add", '
        '"arguments": {"x": 1.5}}\n</tool_calls>', ("", [PARIS, ADD])),
    ("firefunction", ' functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]', ("", [PARIS])),
    ("gigachat", '<|function_call|>{"name": "get_weather", "arguments": {"city": "Paris"}}', ("", [PARIS])),
    ("gigachat-roles", '<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "get_weather", "arguments": '
        '{"city": "Paris"}}', ("", [PARIS])),
    ("llama", '{"name": "get_weather", "parameters": {"city": "Paris"}}', ("", [PARIS])),
    ("llama", '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}; '
        '{"name": "add", "parameters": {"x": 1.5}}', ("", [PARIS, ADD])),
    ("harmony", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        ("", [PARIS])),
    ("harmony", ' to=functions.get_weather<|channel|>commentary json<|message|>{"city":"Paris"}', ("", [PARIS])),
    ("harmony", "<|channel|>final<|message|>Hello<|return|>", ("Hello", [])),
    ("harmony", "to be or not", ("to be or not", [])),
    ("generic", '{"name": "get_weather", "arguments": {"city": "Paris"}}', ("", [PARIS])),
    ("generic", '[{"name": "get_weather", "arguments": {"city": "Paris"}}]', ("", [PARIS])),
    ("generic", '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}',
        ("", [PARIS])),
]  # fmt: skip

# Not calls: every character comes back as text.
TEXTS = [
    ("hermes", "<tool_call>not json</tool_call>"),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": [1]}</tool_call>'),
    ("hermes", "<tool_call"),
    ("hermes", "a <tool_ b <tool_c\n"),
    ("hermes", '{"name": "unknown", "arguments": {}}'),
    ("hermes", '{"city": "Paris"}'),
    ("hermes", '```python\nprint("x")\n```'),
    ("hermes", "```"),
    ("hermes", "[1, 2, 3]"),
    ("mistral", "[TOOL"),
    ("deepseek", "<｜tool▁calls▁begin｜>oops"),
    ("gemma", "<|tool_call>call:get_weather{city:<tool_call|>"[:-12]),
    ("llama", '{"answer": 42}'),
    ("llama", '<|python_tag|>print("hi")'),
    ("generic", "   leading and trailing   "),
    ("generic", ""),
]


@pytest.mark.parametrize(("name", "written", "wanted"), CALLS)
def test_calls_are_read_from_what_each_family_writes(
    name: str, written: str, wanted: tuple[str, list[tuple[str, Any]]]
) -> None:
    choice = answer_of(family_with(name), [written])
    assert short(choice) == (wanted[0], "", wanted[1])
    assert len({call.id for call in choice.tool_calls}) == len(choice.tool_calls)


def test_every_family_of_the_table_has_a_case_here() -> None:
    assert set(family_names()) == {name for name, _, _ in CALLS}


# Calls that are cut or malformed after their name: they keep what there is of their arguments, and are no text.
BEGUN = [
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": Paris}}\n</tool_call> So.', "So.", '{"city":'),
    ("hermes", 'Hm. <tool_call>{"name": "get_weather", "arguments": {"city": "Par', "Hm.", '{"city":"Par'),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"x": 1e999}}</tool_call>', "", '{"x":'),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"x": oops} and more', '} and more', '{"x":'),
    ("qwen-coder", "<function=get_weather>\n<parameter=city>\nParis", "", '{"city":"Paris'),
    ("glm", "<tool_call>get_weather\n<arg_key>city", "", "{"),
    ("mistral", "[TOOL_CALLS]get_weather[ARGS]{", "", "{"),
    ("harmony", '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Par', "", '{"city":"Par'),
    ("deepseek-v3.1", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city"', "", '{"city"'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "written", "text", "arguments"), BEGUN)
def test_a_call_that_has_begun_keeps_what_there_is_of_its_arguments(
    name: str, written: str, text: str, arguments: str
) -> None:
    for pieces in ([written], list(written)):
        assert short(answer_of(family_with(name), pieces)) == (text, "", [("get_weather", arguments)])


@pytest.mark.parametrize(("name", "written", "wanted"), CALLS)
def test_a_call_is_cut_in_the_same_way_for_streams_and_for_whole_answers(
    name: str, written: str, wanted: tuple[str, list[tuple[str, Any]]]
) -> None:
    """Wherever a limit cuts an answer: each call that begins ends, its pieces join to its arguments, and no mark is text."""
    before = written.partition(wanted[0])[0] if wanted[0] and written.startswith(wanted[0]) else ""
    for position in range(len(before) + 1, len(written) + 1):
        reader = read(family_with(name), lambda: "id", tools=TOOLS)
        events = (*reader.feed(written[:position]), *reader.finish(cut=True))
        begun = [event.name for event in events if isinstance(event, ToolCallStarted)]
        ended = [event for event in events if isinstance(event, ToolCallFinished)]
        assert [event.call.name for event in ended] == begun
        for event in ended:
            pieces = "".join(e.text for e in events if isinstance(e, ToolCallDelta) and e.index == event.index)
            arguments = event.call.arguments
            assert arguments == pieces if isinstance(arguments, str) else arguments == json.loads(pieces)
        if begun:
            text = "".join(event.text for event in events if isinstance(event, TextDelta))
            assert text in wanted[0]


@pytest.mark.parametrize(("name", "written"), TEXTS)
def test_what_is_no_call_comes_back_as_text(name: str, written: str) -> None:
    assert short(answer_of(family_with(name), [written])) == (written, "", [])


@pytest.mark.parametrize(("name", "written"), [(name, text) for name, text, *_ in (*CALLS, *BEGUN)] + TEXTS)
def test_any_cut_gives_the_same_answer(name: str, written: str) -> None:
    family = family_with(name, THINK)
    whole = short(answer_of(family, [written]))
    assert short(answer_of(family, list(written))) == whole
    for position in range(len(written) + 1):
        cut = [written[:position], written[position:]]
        assert short(answer_of(family, cut)) == whole


FRAGMENTS = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "add", "arguments": {"x": 1}}', "{", "}", "[", "]",
    "\n", "  ", "text", "```json", "```", '"', '{"name": "get_weather", "arguments": {"city": "é\\n"}}', "<", "</", ",",
    "<|channel|>", "analysis", "final", "<|message|>", "<|end|>", "to=functions.add", "assistant", "<|start|>",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["hermes", "llama", "generic", "harmony", "mistral", "qwen-coder"]),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_text_is_read_alike_however_it_is_cut(name: str, parts: list[str], inside: bool, random: Any) -> None:
    text = "".join(parts)
    family = family_with(name, THINK if name != "harmony" else None)
    whole = short(answer_of(family, [text], open_think=inside))
    pieces: list[str] = []
    rest = text
    while rest:
        size = random.randint(1, 4)
        pieces.append(rest[:size])
        rest = rest[size:]
    assert short(answer_of(family, pieces, open_think=inside)) == whole


@settings(max_examples=200, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers(-10**6, 10**6) | st.text(max_size=8) | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_arguments_survive_the_way_through_a_reader(value: Any) -> None:
    written = "<tool_call>" + json.dumps({"name": "f", "arguments": {"v": value}}) + "</tool_call>"
    choice = answer_of(family_with("hermes"), [written])
    assert [(c.name, c.arguments) for c in choice.tool_calls] == [("f", {"v": value})]


def test_fragments_of_arguments_join_to_the_whole_and_arrive_early() -> None:
    written = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>'
    reader = read(family_with("hermes"), lambda: "one", tools=TOOLS)
    seen: list[Event] = []
    early = None
    for index, char in enumerate(written):
        seen.extend(reader.feed(char))
        if early is None and any(isinstance(event, ToolCallDelta) for event in seen):
            early = index
    deltas = "".join(event.text for event in seen if isinstance(event, ToolCallDelta))
    assert json.loads(deltas) == {"city": "Paris", "days": 3}
    assert early == written.index('{"city"')
    kinds = [type(event) for event in seen if not isinstance(event, ToolCallDelta)]
    assert kinds == [ToolCallStarted, ToolCallFinished]


THOUGHTS = [
    ("<think>\nHm.\n</think>\n\nHello", False, ("Hello", "Hm.")),
    ("Hm.\n</think>\n\nHello", True, ("Hello", "Hm.")),
    ("<think>\n\n</think>\n\nHello", False, ("Hello", "")),
    ("\n<think>Hm", False, ("", "Hm")),
    ("Hello <think> there", False, ("Hello <think> there", "")),
    ("Hm\n", True, ("", "Hm")),
    ("<thin", False, ("<thin", "")),
]


@pytest.mark.parametrize(("written", "inside", "wanted"), THOUGHTS)
def test_reasoning_is_separated(written: str, inside: bool, wanted: tuple[str, str]) -> None:
    family = family_with("hermes", THINK)
    for pieces in ([written], list(written)):
        choice = answer_of(family, pieces, open_think=inside)
        assert (choice.text, choice.thinking) == wanted


def test_harmony_reasons_on_the_analysis_channel() -> None:
    written = (
        "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"x": 2}<|call|>'
    )
    for pieces in ([written], list(written)):
        choice = answer_of(family_with("harmony"), pieces)
        assert short(choice) == ("Wait.", "Think.", [("add", {"x": 2})])


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("<", ("", "")), ("<th", ("", "")), ("<think", ("", "")), ("<think>", ("", "")), ("</th", ("</th", "")),
        ("<think>r</", ("", "r")), ("<think>r</th", ("", "r")), ("<think>r\n</think", ("", "r")), ("<think><", ("", "")),
        ("<think>if a <", ("", "if a <")), ("<think>r</think>ok <th", ("ok <th", "r")),
        ("<table", ("<table", "")), ("a <th", ("a <th", "")), ("r</think", ("r</think", "")),
    ],
)  # fmt: skip
def test_a_limit_leaves_no_part_of_a_mark_of_reasoning(written: str, wanted: tuple[str, str]) -> None:
    for pieces in ([written], list(written)):
        reader = read(family_with("hermes", THINK), lambda: "id")
        events = [event for piece in pieces for event in reader.feed(piece)]
        choice = fold((*events, *reader.finish(cut=True), Finished(reason=StopReason.LENGTH))).choices[0]
        assert short(choice)[:2] == wanted


def cut_answer(name: str, written: str, *, cut: bool) -> tuple[str, str, list[tuple[str, Any]]]:
    """Return the answer of a family to a text that ends here, the same however the text is cut into pieces."""
    answers = []
    for pieces in ([written], list(written)):
        reader = read(family_with(name, None if name == "harmony" else THINK), lambda: "id", tools=TOOLS)
        events = [event for piece in pieces for event in reader.feed(piece)]
        choice = fold((*events, *reader.finish(cut=cut), Finished(reason=StopReason.LENGTH))).choices[0]
        answers.append(short(choice))
    assert answers[0] == answers[1]
    return answers[0]


# family, a text that ends inside a mark, the answer if a limit ended it, the answer if the model ended it
PARTS: list[tuple[str, str, tuple[str, str, Any], tuple[str, str, Any]]] = [
    ("hermes", "Hm. <tool_c", ("Hm.", "", None), ("Hm. <tool_c", "", None)),
    ("mistral", "Hm.\n[TOOL", ("Hm.", "", None), ("Hm.\n[TOOL", "", None)),
    ("harmony", "<|channel|>final<|message|>Hello<|en", ("Hello", "", None), ("Hello<|en", "", None)),
    ("harmony", "<|channel|>analysis<|message|>Hm<|e", ("", "Hm", None), ("", "Hm<|e", None)),
    (
        "harmony", "<|channel|>commentary to=functions.add<|message|>", ("", "", None),
        ("<|channel|>commentary to=functions.add<|message|>", "", None),
    ),
    ("harmony", '<|channel|>commentary to=functions.add<|message|>{"x": 1}<|ca', ("", "", {"x": 1}), ("", "", {"x": 1})),
    (
        "qwen-coder", "<function=get_weather>\n<parameter=city>\nParis\n</par", ("", "", '{"city":"Paris'),
        ("", "", '{"city":"Paris\\n</par'),
    ),
    ("gemma", "<|tool_call>call:add{x:1}<tool_", ("", "", {"x": 1}), ("<|tool_call>call:add{x:1}<tool_", "", None)),
    (
        "hermes", '<tool_call>{"name": "add", "arguments": {"x": oops}} and more </tool_c', ("}} and more", "", '{"x":'),
        ("}} and more </tool_c", "", '{"x":'),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "written", "limited", "ended"), PARTS)
def test_a_limit_leaves_no_part_of_a_mark_in_any_family(
    name: str, written: str, limited: tuple[str, str, Any], ended: tuple[str, str, Any]
) -> None:
    for cut, (text, thinking, arguments) in ((True, limited), (False, ended)):
        answer = cut_answer(name, written, cut=cut)
        assert (*answer[:2], answer[2][0][1] if answer[2] else None) == (text, thinking, arguments)


@pytest.mark.parametrize(("name", "written"), [(name, written) for name, written, _ in CALLS])
def test_a_text_that_a_limit_cuts_is_read_alike_in_any_pieces(name: str, written: str) -> None:
    for position in range(len(written) + 1):
        cut_answer(name, written[:position], cut=True)


def test_without_tools_marks_of_calls_are_text() -> None:
    written = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
    assert short(answer_of(family_with("hermes"), [written], tools=())) == (written, "", [])


def test_reasoning_and_a_call_after_it_are_both_read() -> None:
    written = '<think>I need it.</think>\n<tool_call>{"name": "add", "arguments": {"x": 1}}</tool_call>'
    assert short(answer_of(family_with("hermes", THINK), list(written))) == ("", "I need it.", [("add", {"x": 1})])


def test_text_before_a_broken_call_is_not_lost_nor_are_calls_before_it() -> None:
    good = '<tool_call>{"name": "add", "arguments": {"x": 1}}</tool_call>'
    choice = answer_of(family_with("hermes"), ["Well. " + good + "<tool_call>{oops"])
    assert short(choice) == ("Well.\n<tool_call>{oops", "", [("add", {"x": 1})])


def test_a_lone_surrogate_cannot_reach_the_encoders() -> None:
    written = '<tool_call>{"name": "add", "arguments": {"x": "\\ud800"}}</tool_call>'
    [call] = answer_of(family_with("hermes"), [written]).tool_calls
    assert call.arguments == {"x": "\ufffd"}


def test_text_beside_a_call_is_kept_and_the_call_is_no_text() -> None:
    """Compatibility bug 7."""
    written = 'I look it up. <tool_call>{"name": "add", "arguments": {"x": 1}}</tool_call> A moment.'
    assert short(answer_of(family_with("hermes"), list(written))) == (
        "I look it up.\nA moment.",
        "",
        [("add", {"x": 1})],
    )


def logprob(text: str) -> TokenLogprob:
    return TokenLogprob(id=0, text=text, bytes=text.encode(), logprob=-1.0)


@pytest.mark.parametrize(
    ("name", "pieces", "wanted"),
    [
        ("hermes", ["<think>", "hm", "</think>", "\n\n", "Hel", "lo"], ["Hel", "lo"]),
        ("hermes", ["Yes", " <tool_call>", '{"name": "add", "arguments": {}}', "</tool_call>"], ["Yes"]),
        (
            "harmony",
            ["<|channel|>", "analysis", "<|message|>", "hm", "<|end|>", "<|channel|>final<|message|>", "Yes"],
            ["Yes"],
        ),
    ],
)
def test_logprobs_go_with_the_text_that_is_shown(name: str, pieces: list[str], wanted: list[str]) -> None:
    reader = read(family_with(name, THINK), lambda: "id", tools=TOOLS)
    events = [event for piece in pieces for event in reader.feed(piece, (logprob(piece),))]
    found = [p.text for e in (*events, *reader.finish()) if isinstance(e, TextDelta) for p in e.logprobs]
    assert found[-len(wanted) :] == wanted
    assert not {"hm", "<think>", "analysis", '{"name": "add", "arguments": {}}'} & set(found)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [("hermes", ["<think>", "so ", "far"]), ("harmony", ["<|channel|>analysis<|message|>", "so ", "far"])],
)
def test_logprobs_of_reasoning_go_with_it(name: str, pieces: list[str]) -> None:
    reader = read(family_with(name, THINK), lambda: "id", tools=TOOLS)
    events = [event for piece in pieces for event in reader.feed(piece, (logprob(piece),))]
    thoughts = [event for event in (*events, *reader.finish()) if isinstance(event, ThinkingDelta)]
    assert "".join(thought.text for thought in thoughts) == "so far"
    assert [token.text for thought in thoughts for token in thought.logprobs][-2:] == ["so ", "far"]


def test_deep_nesting_in_arguments_is_text_not_a_crash() -> None:
    written = '<tool_call>{"name": "add", "arguments": ' + '{"a":' * 5000
    [call] = answer_of(family_with("hermes"), [written]).tool_calls
    assert call.arguments == '{"a":' * 65
    assert GENERIC.open == ""


# Values between tags: the schema of the argument, what the model writes, the value.
NAMED: dict[str, Any] = {
    "Text": {"type": "string"}, "Kind": {"enum": ["edit", "create"], "type": "string"}, "A<B>": {"type": "string"}, "Loop": {"$ref": "#/$defs/Loop"},
}  # fmt: skip
TAGGED: list[tuple[Any, str, Any]] = [
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "1e5", "1e5"), ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
    ({"oneOf": [{"type": "null"}, {"$ref": "#/$defs/Text"}]}, "true", "true"), ({"$ref": "#/$defs/Text"}, "12345", "12345"),
    ({"allOf": [{"$ref": "#/$defs/Text"}], "default": "x"}, "[1]", "[1]"), ({"$ref": "#/$defs/A%3CB%3E"}, "7", "7"),
    ({"enum": ["edit", "create"]}, '"edit"', "edit"), ({"$ref": "#/$defs/Kind"}, "create", "create"), ({"$ref": "#/$defs/Kind"}, '"edit"', "edit"),
    ({"anyOf": [{"const": "1"}, {"const": "2"}]}, "1", "1"), ({"const": 5}, "5", 5), ({"enum": ["5", 5]}, "5", "5"), ({"enum": ["edit"]}, "other", "other"),
    ({"type": "string", "nullable": True}, "12", "12"), ({"type": "string", "nullable": True}, "null", None), ({"type": ["string", "integer"]}, "null", "null"),
    ({"type": ["string", "array"]}, '["a"]', ["a"]), ({"type": ["string", "array"]}, "[a", "[a"), ({"type": ["string", "object"]}, "[1]", "[1]"),
    ({"type": "boolean"}, "True", True), ({"type": ["boolean", "null"]}, "None", None), ({"type": "string"}, "True", "True"),
    ({"type": "integer"}, " 3 ", 3), ({"type": "number"}, "3", 3), ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
    ({"properties": {"x": {"type": "integer"}}}, '{"x": 1}', {"x": 1}), ({"$ref": "#/$defs/Loop"}, "3", 3), ({"$ref": "#/nowhere"}, "3", 3), (True, "3", 3),
    ({"type": "array"}, '["</parameter>", "x"]', ["</parameter>", "x"]), ({"type": "array"}, '["a', '["a'), ({"type": "array"}, "[1, 2", "[1, 2"),
    ({}, "{ if a < b", "{ if a < b"), ({}, '{"a": "b', '{"a": "b'), ({"type": "object"}, '{"a": 1', '{"a": 1'),
]  # fmt: skip
CODER_CALL = "<tool_call>\n<function=f>\n<parameter=v>\n{}\n</parameter>\n<parameter=w>\nlast\n</parameter>\n</function>\n</tool_call>"


@pytest.mark.parametrize(("schema", "written", "value"), TAGGED, ids=range(len(TAGGED)))
def test_a_value_between_tags_has_the_type_of_its_whole_schema(schema: Any, written: str, value: Any) -> None:
    tools = (Tool(name="f", parameters={"$defs": NAMED, "type": "object", "properties": {"v": schema}}),)
    text = CODER_CALL.format(written) + " tail"
    for pieces in ([text], list(text)):
        answer = answer_of(family_with("qwen-coder"), pieces, tools=tools)
        assert short(answer) == ("tail", "", [("f", {"v": value, "w": "last"})])


def test_the_type_of_an_argument_is_found_wherever_the_tool_describes_it() -> None:
    text = {"type": "string"}
    for parameters in (
        {"$defs": {"A": {"properties": {"v": text}}}, "$ref": "#/$defs/A"},
        {"$defs": {"A": {"properties": {"v": text}}}, "allOf": [{"$ref": "#/$defs/A"}, {"properties": {"w": {}}}]},
        {"anyOf": [{"properties": {"v": text}}, {"properties": {"w": {}}}]},
        {"type": "object", "additionalProperties": text},
    ):
        answer = answer_of(
            family_with("qwen-coder"), [CODER_CALL.format("12")], tools=(Tool(name="f", parameters=parameters),)
        )
        assert short(answer)[2] == [("f", {"v": "12", "w": "last"})]


def test_a_value_that_is_never_closed_loses_no_call_after_it() -> None:
    text = CODER_CALL.format('["a') + "\n" + CODER_CALL.format('"b"]')
    answer = answer_of(family_with("qwen-coder"), list(text), tools=(Tool(name="f"),))
    assert [call.arguments for call in answer.tool_calls] == [{"v": '["a', "w": "last"}, {"v": '"b"]', "w": "last"}]
