"""Go templates mean what they mean to Go and to Ollama, within bounds."""

# ruff: noqa: E501 - tables of cases read better on one line each

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.chat.answer import fold
from mullama.chat.families import family_of
from mullama.chat.reader import read
from mullama.chat.template import ChatInput, SpecialTexts, Thinking, compile_template
from mullama.chat.template.fuel import Fuel
from mullama.chat.template.gotemplate.evaluate import execute
from mullama.chat.template.gotemplate.parser import parse
from mullama.chat.template.gotemplate.values import JsonMap, StructValue
from mullama.chat.types import Message, Tool, ToolCall, text_message
from mullama.errors import Invalid, MullamaError, TooLarge
from tests.processor_time import processor_time

DATA: dict[str, Any] = {
    "S": "text", "N": 3, "F": 1.5, "T": True, "Nil": None, "Empty": "", "L": ["a", "b", "c"], "M": {"y": 2, "x": 1},
    "R": StructValue({"Name": "Ada", "In": StructValue({"Deep": "d"}, {"deep": "d"})}, {"name": "Ada<&>"}),
    "J": JsonMap({"z": 1, "a": [True, None, "<"]}),
}  # fmt: skip


def run(source: str, **data: Any) -> str:
    return execute(parse(source), {**DATA, **data}, Fuel(20_000), 86_400.0)


EXPRESSIONS = [
    ("a{{ .S }}b", "atextb"),
    ("a {{- .S -}} b", "atextb"),
    ("a\n{{- /* note */ -}}\n b{{/* x */}}c", "abc"),
    ("{{ .R.Name }}{{ .R.In.Deep }}{{ .R.Missing }}{{ .Missing.Deeper }}", "Adad"),
    ("{{ .N }} {{ .F }} {{ .T }} {{ .Nil }} {{ 1e3 }} {{ 0x10 }} {{ -2 }} {{ 2.50 }}", "3 1.5 true <nil> 1000 16 -2 2.5"),
    ("{{ .L }} {{ .M }} {{ .J }} {{ .R }}",
     '[a b c] map[x:1 y:2] {"z":1,"a":[true,null,"\\u003c"]} {"name":"Ada\\u003c\\u0026\\u003e"}'),
    ("{{ json .L }}{{ json .M }}{{ json \"<\" }}", '["a","b","c"]{"x":1,"y":2}"\\u003c"'),
    ('{{ "a\\tb\\n\\"\\\\" }}{{ `raw\\n` }}{{ "\\u00e9\\x41\\101\\U0001F600" }}', 'a\tb\n"\\raw\\néAA😀'),
    ("{{ 'a' }}", "97"),
    ("{{ if .S }}y{{ else }}n{{ end }}{{ if .Empty }}y{{ else if .T }}z{{ else }}n{{ end }}", "yz"),
    ("{{ if .Missing }}y{{ end }}{{ if not .Nil }}n{{ end }}{{ if .R }}r{{ end }}", "nr"),
    ("{{ with .R }}{{ .Name }}{{ $.S }}{{ end }}{{ with .Empty }}x{{ else }}e{{ end }}", "Adatexte"),
    ("{{ range .L }}{{ . }},{{ end }}{{ range $i, $v := .L }}{{ $i }}{{ $v }}{{ end }}", "a,b,c,0a1b2c"),
    ("{{ range $k, $v := .M }}{{ $k }}={{ $v }};{{ end }}{{ range 3 }}{{ . }}{{ end }}", "x=1;y=2;012"),
    ("{{ range .Missing }}x{{ else }}none{{ end }}", "none"),
    ("{{ range .L }}{{ if eq . \"b\" }}{{ continue }}{{ end }}{{ . }}{{ if eq . \"c\" }}{{ break }}{{ end }}{{ end }}", "ac"),
    ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 9 }}{{ $x }}{{ end }}{{ $x }}", "92"),
    ("{{ $last := \"\" }}{{ range .L }}{{ $last = . }}{{ end }}{{ $last }}", "c"),
    ("{{ .S | printf \"%s-%s\" \"a\" }}{{ printf \"%05d|%-4s|%q|%v|%.2f|%%|%x|%t\" 42 \"x\" \"a\\\"b\" .L 1.0 255 true }}",
     'a-text00042|x   |"a\\"b"|[a b c]|1.00|%|ff|true'),
    ("{{ print 1 2 \"a\" \"b\" 3 }}{{ println 1 \"a\" }}", "1 2a b31 a\n".replace("a b", "ab")),
    ("{{ len .S }}{{ len \"é\" }}{{ len .L }}{{ len .M }}{{ len .Nil }}", "42320"),
    ("{{ index .L 1 }}{{ index .M \"x\" }}{{ index .J \"a\" 2 }}", "b1<"),
    ("{{ slice .L 1 }}{{ slice .L 0 2 }}{{ slice .S 1 3 }}", "[b c][a b]ex"),
    ("{{ and .S .N }}{{ and .Empty .N }}|{{ or .Empty .S }}{{ or .Empty \"\" }}", "3|text"),
    ("{{ and false (index .L 99) }}", "false"),
    ("{{ eq .N 3 }}{{ eq .N 1 2 3 }}{{ ne .S \"text\" }}{{ lt 1 2 }}{{ le 2 2 }}{{ gt 1.5 1.0 }}{{ ge \"b\" \"a\" }}",
     "truetruefalsetruetruetruetrue"),
    ("{{ eq (len (slice .L 2)) 1 }}{{ (index .L 0) }}{{ (.R).Name }}", "trueaAda"),
    ("{{ html \"<a b='c'>\" }}{{ urlquery \"a b&c\" }}", "&lt;a b=&#39;c&#39;&gt;a+b%26c"),
    ("{{ currentDate }} {{ yesterdayDate }}", "1970-01-02 1970-01-01"),
    ('{{ define "t" }}[{{ . }}{{ $ }}]{{ end }}{{ template "t" .S }}{{ block "b" .N }}<{{ . }}>{{ end }}', "[texttext]<3>"),
    ("{{ \"}}\" }}{{ `{{` }}", "}}{{"),
    ("no action at all { } }}", "no action at all { } }}"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "wanted"), EXPRESSIONS)
def test_the_language_means_what_it_means_in_go(source: str, wanted: str) -> None:
    assert run(source) == wanted


MISTAKES = [
    ("a\n{{ if .S }}", "line 2"), ("{{ end }}", "line 1"), ("\n\n{{ .S", "line 3"), ("{{ }}", "empty"),
    ("{{ nope }}", "no function 'nope'"), ("{{ .S | }}", "missing"), ("{{ eq 1 \"a\" }}", "cannot be compared"),
    ("{{ $x }}", "no variable"), ("{{ index .L 9 }}", "out of range"), ("{{ template \"x\" }}", "no template"),
    ("{{ break }}", "outside of range"), ("{{ .S 1 }}", "not a function"), ("{{ ( .S }}", "not closed"),
    ("{{ else }}", "unexpected"), ("{{ define x }}{{ end }}", "name in quotes"), ("{{ # }}", "not understood"),
    ("{{ call .S }}", "no function 'call'"), ("{{ range .F }}{{ end }}", "range over"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "words"), MISTAKES)
def test_mistakes_are_named_with_their_line(source: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        run(source)


HOSTILE = [
    '{{ define "a" }}{{ template "a" }}{{ template "a" }}{{ end }}{{ template "a" }}',
    "{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}",
    "{{ range 1000000000 }}x{{ end }}",
    '{{ printf "%1000000000d" 1 }}',
    '{{ $x := "ab" }}{{ range 90 }}{{ $x = print $x $x }}{{ end }}{{ $x }}',
    "{{ if 1 }}" * 3000 + "{{ end }}" * 3000,
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "x" * 300_000,
    "{{ range 100000 }}" + "x" * 100_000 + "{{ end }}",
]


@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_templates_end_soon_and_with_an_error(source: str) -> None:
    with processor_time() as cost, pytest.raises((Invalid, TooLarge)):
        run(source)
    assert cost.seconds < 4.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([
    "{{ ", " }}", "{{- ", " -}}", "if ", "range ", "end", "else ", ".S", ".L", "$x", " := ", "(", ")", "|", "eq ", '"a"',
    "text", "\n", "with ", "{{/*", "*/}}", "`", "'", "1", "and ", "define ", "template ", ",",
]), max_size=14).map("".join))  # fmt: skip
def test_any_text_is_a_template_or_an_error_of_ours(source: str) -> None:
    with suppress(MullamaError):
        run(source)


def template(source: str) -> Any:
    return compile_template(source, "go", SpecialTexts())


def text_of(source: str, *messages: Message, **more: Any) -> str:
    text: str = template(source).render(ChatInput(messages=messages, **more)).text
    return text


FRIENDS = (
    text_message("user", "Hello friend!"),
    text_message("assistant", "Hello human!"),
    text_message("user", "Your name?"),
)
SYSTEM = text_message("system", "Be kind.")

CONVERSATIONS = [
    # Old templates know one turn; they run once per turn, and the last is cut after the response.
    ("[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] ", FRIENDS,
     "[INST] Hello friend![/INST] Hello human![INST] Your name?[/INST] "),
    ("[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] {{ .Response }}", (SYSTEM, *FRIENDS),
     "[INST] Be kind.\n\nHello friend![/INST] Hello human![INST] Your name?[/INST] "),
    ("U: {{ .Prompt }}\nA: {{ .Response }}</s>\n", FRIENDS,
     "U: Hello friend!\nA: Hello human!</s>\nU: Your name?\nA: "),
    ("U: {{ .Prompt }} A: {{ .Response }}</s>", FRIENDS[:2], "U: Hello friend! A: Hello human!"),
    ("{{ if .Prompt }}U: {{ .Prompt }}{{ end }}{{ if .Prompt }} A: {{ .Response }}</s>{{ else }}no{{ end }}|", FRIENDS,
     "U: Hello friend! A: Hello human!</s>|U: Your name? A: "),
    ("{{ if .System }}S: {{ .System }} {{ .Prompt }} A: {{ .Response }}</s>{{ else }}{{ .Prompt }} A: {{ .Response }}</s>{{ end }}",
     (SYSTEM, *FRIENDS), "S: Be kind. Hello friend! A: Hello human!</s>Your name? A: "),
    # Templates with messages see them all.
    ("{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}<assistant>", (SYSTEM, *FRIENDS),
     "<system>Be kind.<user>Hello friend!<assistant>Hello human!<user>Your name?<assistant>"),
    ("{{ .System }}:{{ range $i, $_ := .Messages }}{{ .Content }}{{ if eq (len (slice $.Messages $i)) 1 }}!{{ end }}{{ end }}",
     (SYSTEM, text_message("system", "Be brief."), text_message("user", "a"), text_message("user", "b")),
     "Be kind.\n\nBe brief.:Be kind.\n\nBe brief.a\n\nb!"),
    ('{{- $s := "" }}{{- range .Messages }}{{- if eq .Role "system" }}{{ $s = printf "%s|%s" $s .Content }}{{ continue }}{{ end }}'
     '{{ $s }}>{{ .Content }};{{ $s = "" }}{{ end }}A:', (SYSTEM, *FRIENDS), "|Be kind.>Hello friend!;>Hello human!;>Your name?;A:"),
    ("{{ range $i, $m := .Messages }}{{ $late := or (eq (len (slice $.Messages $i)) 1) (eq (len (slice $.Messages $i)) 2) -}}\n"
     ' {{ "{" }}{{ if $late }}late {{ end }}{{ $m.Role }}{{ "}" }}\n {{- .Content }}{{ end }}',
     FRIENDS, "{user}Hello friend!{late assistant}Hello human!{late user}Your name?"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "messages", "wanted"), CONVERSATIONS)
def test_conversations_are_run_by_ollamas_rules(source: str, messages: tuple[Message, ...], wanted: str) -> None:
    assert text_of(source, *messages) == wanted


TOOLS = """\
{{- if .Tools }}<tools>{{ range .Tools }}{{ . }}{{ end }}</tools>{{ end }}
{{- range .Messages }}{{ if eq .Role "user" }}<user>{{ .Content }}
{{- else if eq .Role "assistant" }}<assistant>{{ if .Thinking }}<reason>{{ .Thinking }}</reason>{{ end }}{{ .Content }}
{{- range .ToolCalls }}<tool_call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>{{ end }}
{{- else if eq .Role "tool" }}<tool {{ .ToolName }}>{{ .Content }}{{ end }}{{ end }}
{{- if and .IsThinkSet (not .Think) }}<reason></reason>{{ end }}"""


def test_tools_calls_and_results_reach_the_template() -> None:
    call = Message(
        role="assistant", thinking="hm", tool_calls=(ToolCall(id="1", name="f", arguments={"b": 1, "a": "é<"}),)
    )
    result = Message(role="tool", content=text_message("tool", "42").content, tool_name="f", tool_call_id="1")
    tool = Tool(name="f", description="d", parameters={"type": "object", "properties": {"z": {"type": "string"}}})
    assert text_of(TOOLS, text_message("user", "Hi"), call, result, tools=(tool,), think=False) == (
        '<tools>{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":'
        '{"z":{"type":"string"}}}}}</tools><user>Hi<assistant><reason>hm</reason><tool_call>{"name": "f", "arguments": '
        '{"b":1,"a":"é\\u003c"}}</tool_call><tool f>42<reason></reason>'
    )


def test_traits_are_read_off_the_fields_and_a_trial() -> None:
    made = template(TOOLS)
    assert (made.traits.tools, made.traits.think, made.traits.suffix) == (True, "switch", False)
    assert made.traits.thinking == Thinking(open="<reason>", close="</reason>")
    assert family_of(made).name == "hermes"
    plain = template("{{ .System }} {{ .Prompt }}")
    assert (plain.traits.tools, plain.traits.think, plain.traits.call) == (False, "none", "")


def test_calls_behind_a_mark_that_no_family_has_are_read_by_it() -> None:
    source = (
        "{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}<toolcall> "
        '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}} </toolcall>{{ end }}{{ end }}'
    )
    family = family_of(template(source))
    assert family.name == "marked-json"
    tool = Tool(name="f")
    reader = read(family, lambda: "id", tools=(tool,))
    answer = fold((*reader.feed('<toolcall> {"name": "f", "arguments": {"a": 1}} </toolcall>'), *reader.finish()))
    assert [(c.name, c.arguments) for c in answer.choices[0].tool_calls] == [("f", {"a": 1})]


CALL = '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}'
WRITTEN = {
    "hermes": "<tool_call>" + CALL + "</tool_call>",
    "mistral-list": "[TOOL_CALLS] [" + CALL + "]",
    "xlam": '{"tool_calls": [' + CALL + "]}",
    "firefunction": ' functools[{{ "{" }}' + CALL.removeprefix("{").removesuffix("}") + '{{ "}" }}]',
    "llama": '{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}',
    "cohere-plus": 'Action: ```json\n[\n    {"tool_name": "{{ .Function.Name }}", "parameters": {{ json .Function.Arguments }}}\n]```',
    "deepseek": "<｜tool▁calls▁begin｜>{{ \"\\n\" }}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ .Function.Name }}\n```json\n"
                "{{ .Function.Arguments }}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
}  # fmt: skip


@pytest.mark.parametrize("family", WRITTEN)
def test_the_family_is_told_by_how_the_template_writes_a_call(family: str) -> None:
    source = "{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}" + WRITTEN[family] + "{{ end }}{{ end }}"

    assert family_of(template(source)).name == family


def test_a_schema_can_be_shown_field_by_field() -> None:
    source = (
        "{{ range .Tools }}{{ .Function.Name }}({{ range $k, $p := .Function.Parameters.Properties }}{{ $k }}: "
        "{{ $p.ToTypeScriptType }} // {{ $p.Description }};{{ end }}) {{ .Function.Parameters.Required }}{{ end }}"
        "{{ range .Messages }}{{ .Content }}{{ end }}"
    )
    parameters = {
        "type": "object",
        "properties": {"b": {"type": ["string", "null"]}, "a": {"type": "array", "description": "A"}},
        "required": ["a", "b"],
    }
    text = text_of(source, text_message("user", "!"), tools=(Tool(name="f", parameters=parameters),))
    assert text == "f(a: any[] // A;b: string | null // ;) [a b]!"


def test_a_suffix_fills_in_the_middle() -> None:
    source = "{{ if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ .Prompt }}{{ end }}"
    assert text_of(source, text_message("user", "def add("), suffix="return x") == "<PRE> def add( <SUF>return x <MID>"
    assert text_of(source, text_message("user", "hello")) == "hello"
    assert template(source).traits.suffix


def test_the_last_assistant_message_can_be_continued() -> None:
    source = "{{ range .Messages }}<{{ .Role }}>{{ .Content }}<end>{{ end }}"
    assert (
        text_of(source, text_message("user", "a"), text_message("assistant", "b "), continue_final=True)
        == "<user>a<end><assistant>b "
    )


def test_a_template_that_shows_nothing_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(Invalid, match="does not render"):
        template("{{ .System }}{{ range .Messages }}{{ .Role }}{{ end }}")
    with pytest.raises(Invalid, match="line 2"):
        template("{{ .Prompt }}\n{{ nope }}")
