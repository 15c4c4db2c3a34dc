# ruff: noqa: E501 - tables of cases read better on one line each
"""Modelfiles and Mullamafiles: every directive is honoured or refused with its line, and can be written again."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.errors import Invalid, ManifestError
from mullama.manifest.modelfile import (
    ModelfileSpec,
    decode,
    from_tree,
    lost_by_ollama,
    parse_modelfile,
    render_modelfile,
    to_tree,
)
from mullama.manifest.modelfile.spec import ABILITIES, DIRECTIVES, PARAMETERS, ROLES, WITHOUT_EFFECT
from mullama.manifest.spec import Model
from mullama.manifest.tree import unusual
from mullama.problems import Problem
from mullama.struct import replace
from tests.manifest.builders import read

FULL = (
    '''\
# A model of ours
from hf:Qwen/Qwen3-8B-GGUF:Q4_K_M
ADAPTER ./house-style.gguf
ADAPTER "./second one.gguf"
TEMPLATE """{{ if .System }}<s>{{ .System }}</s>{{ end }}
{{- range .Messages }}{{ .Role }}: {{ .Content }}
{{ end }}"""
SYSTEM """
You answer "briefly".
"""
PARAMETER temperature 0.3
parameter Top_K 40
'''.replace("Top_K", "top_k")
    + '''\
PARAMETER stop <|im_end|>
PARAMETER stop "two words "
PARAMETER num_ctx 16384
PARAMETER use_mmap false
MESSAGE user Hello
MESSAGE assistant """Hello.
What do you need?"""
LICENSE apache-2.0
LICENSE """
The full text
"""
DIGEST ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef0123456789
GPU_LAYERS 20
FLASH_ATTENTION yes
CAPABILITY tools true
CAPABILITY vision false
CAPABILITY thinking
AUTHOR Ada
'''
)


def spec_of(text: str) -> ModelfileSpec:
    return parse_modelfile(text).spec


def test_every_directive_becomes_the_manifests_own_words() -> None:
    assert to_tree(spec_of(FULL)) == {
        "from": "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M",
        "adapters": [{"from": "./house-style.gguf"}, {"from": "./second one.gguf"}],
        "digest": "sha256:" + "abcdef0123456789" * 4,
        "gpu": {"layers": 20},
        "context": {"flash_attention": "on"},
        "system": '\nYou answer "briefly".\n',
        "template": {
            "go": "{{ if .System }}<s>{{ .System }}</s>{{ end }}\n{{- range .Messages }}{{ .Role }}: {{ .Content }}\n{{ end }}"
        },
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello.\nWhat do you need?"},
        ],
        "parameters": {
            "temperature": 0.3,
            "top_k": 40,
            "stop": ["<|im_end|>", "two words "],
            "num_ctx": 16384,
            "use_mmap": False,
        },
        "license": "apache-2.0\n\n\nThe full text\n",
        "requires": ["tools", "thinking"],
        "x-author": "Ada",
    }


def test_the_manifest_accepts_what_a_modelfile_becomes() -> None:
    document = {"mullama": "v1", "models": {"m": to_tree(spec_of(FULL))}}
    model = read(json.dumps(document, indent=1).encode()).manifest.models["m"]
    assert model.context.size == 16384
    assert model.memory.mmap is False
    assert model.gpu.layers == 20


def test_a_modelfile_survives_being_written_and_read_again() -> None:
    spec = spec_of(FULL)
    assert spec_of(render_modelfile(spec)) == spec


WORDS = st.one_of(
    st.text(alphabet="ab\"#\n \\\t.{}<>|é$", max_size=20), st.text(max_size=20),
    st.lists(st.sampled_from(['"', '"""', "\n", " ", "a", "#", "\\", "\r", "\x00", "\u00a0", "SYSTEM x", "# mullama: SYSTEM", "\ud800"]), max_size=8).map("".join),
)  # fmt: skip
LINES = st.text(alphabet=string.ascii_letters + string.digits + "./:-_ ", min_size=1, max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.builds(
    lambda **fields: ModelfileSpec(**fields), base=LINES, adapters=st.lists(LINES, max_size=2).map(tuple), projector=st.none() | LINES, draft=st.none() | LINES,
    gpu_layers=st.none() | st.just("all") | st.integers(0, 98), flash_attention=st.sampled_from([None, "on", "off", "auto"]),
    system=st.none() | WORDS, messages=st.lists(st.tuples(st.sampled_from(ROLES), WORDS), max_size=3).map(tuple),
    parameters=st.dictionaries(st.sampled_from(["temperature", "top_p"]), st.floats(0, 1), max_size=2).map(lambda d: tuple(d.items())),
    license=st.lists(WORDS, max_size=2).map(tuple), requires=st.lists(st.sampled_from(ABILITIES), unique=True, max_size=2).map(tuple),
    author=st.none() | LINES, jinja=st.none() | WORDS.filter(bool),
))  # fmt: skip
def test_writing_and_reading_is_a_round_trip(spec: ModelfileSpec) -> None:
    assert spec_of(decode(render_modelfile(spec).encode())) == spec


@settings(max_examples=200, deadline=None)
@given(WORDS)
def test_ollama_reads_every_value_that_is_written_for_it(text: str) -> None:
    line = render_modelfile(ModelfileSpec(base="x", system=text)).split("\n", 1)[1]
    if "# mullama: " not in line:
        assert ollama_values(line) == [text]


def ollama_values(text: str) -> list[str]:
    """The values as Ollama's parser reads them: a value ends at the first line break where its quotes are closed."""
    found = []
    lines = text.split("\n")
    while lines:
        name, _, value = lines.pop(0).partition(" ")
        if not name:
            continue
        while (closed := go_unquote(value)) is None:
            value += "\n" + lines.pop(0)
        found.append(closed)
    return found


def go_unquote(text: str) -> str | None:
    """`unquote` of Ollama's `parser.go`."""
    text = text.strip()
    if text[:3] == '"""':
        return text[3:-3] if len(text) >= 6 and text[-3:] == '"""' else None
    if text[:1] == '"':
        return text[1:-1] if len(text) >= 2 and text[-1] == '"' else None
    return text


# Values of a system prompt, and True where only mullama can read the written form.
SAID = [
    ("plain", False), ("", False), (" both ", False), ("a\n\n b ", False), ("\n", False), ('a\n"b"', False), ('"quoted"', False),
    ('say """x""" now', False), ('ends with "', False), ('"', False), ('""', False), ('"""', False), ("back\\slash\\", False),
    ("# a comment?\n# another", False), ("SYSTEM x\nFROM y", False), ("${HOME} $5", False), ("tab\there", False),
    ('line """\nmore', True), ('a"""\n"', True), ("carriage\rreturn", True), ("bell\x07", True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "own"), SAID)
def test_show_and_create_lose_nothing(text: str, own: bool) -> None:
    tree: dict[str, Any] = {
        "from": "./my models/a b.gguf", "system": text, "messages": [{"role": "user", "content": text}],
        "license": text or "MIT", "parameters": {"stop": [text or "x", "y "]}, "template": {"text": "{{ m }}" + text},
    }  # fmt: skip
    written = render_modelfile(*from_tree(tree))
    assert to_tree(parse_modelfile(decode(written.encode())).spec) == tree
    assert any(line.startswith("SYSTEM ") for line in lost_by_ollama(written)) is own
    assert any(line.startswith("TEMPLATE ") for line in lost_by_ollama(written))


@pytest.mark.parametrize(
    "line",
    [
        "# mullama: is nice",
        "# mullama: SYSTEM x",
        '# mullama: SYSTEM "x',
        '#mullama: SYSTEM "x"',
        '# mullama: SYSTEM "\\q"',
    ],
)
def test_other_comments_stay_comments(line: str) -> None:
    assert spec_of(f"FROM x\n{line}\n").system is None


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet=string.printable + "é", max_size=120), st.sampled_from(["", "FROM x\n", "SYSTEM ", 'TEMPLATE """'])
)
def test_any_text_is_a_modelfile_or_an_error_with_a_line(text: str, start: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        parse_modelfile(start + text)
    except ManifestError as error:
        problems = error.problems
    assert all(problem.place is not None and problem.place.line >= 1 for problem in problems)


def test_defaults_of_adapters_and_draft_models_are_not_named_as_left_out() -> None:
    text = "FROM builtin:tiny\nADAPTER /m/x.gguf\nDRAFT /m/d.gguf\nTEMPLATE {{ .Prompt }}\nPARAMETER seed 1\n"
    model = Model.model_validate(to_tree(spec_of(text)) | {"draft": {"from": "/m/d.gguf"}})
    spec, left = from_tree(unusual(model))
    assert (left, spec) == ((), spec_of(text))
    scaled = model.model_copy(update={"adapters": (model.adapters[0].model_copy(update={"scale": 0.5}),)})
    assert from_tree(unusual(scaled))[1] == ("adapters.scale",)


def test_what_a_model_says_beyond_a_modelfiles_words_is_named() -> None:
    tree: dict[str, Any] = {
        "from": "builtin:tiny", "system": "S", "limits": {"parallel": 2}, "context": {"size": 1024}, "gpu": {"layers": "all"},
        "template": {"text": "{{ m }}", "syntax": "jinja"}, "parameters": {"seed": 7},
    }  # fmt: skip
    spec, left = from_tree(tree)
    assert left == ("limits",)
    text = render_modelfile(spec, left)
    assert "# left out: a Modelfile has no directive for limits\n" in text
    assert to_tree(spec_of(text)) == {
        "from": "builtin:tiny", "gpu": {"layers": "all"}, "system": "S", "parameters": {"seed": 7, "num_ctx": 1024},
        "template": {"text": "{{ m }}"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("residency", "left"),
    [
        ({"load": "on_demand"}, ()),
        ({"load": "on_demand", "ttl": 60.0}, ("residency",)),
        ({"load": "at_start"}, ("residency",)),
    ],
)
def test_the_residency_of_a_created_model_is_not_lost(residency: dict[str, Any], left: tuple[str, ...]) -> None:
    assert from_tree({"from": "builtin:tiny", "residency": residency})[1] == left


VALUES = [
    ("SYSTEM a b  ", "a b"), ('SYSTEM "a b "', "a b "), ('SYSTEM """a "b" c"""', 'a "b" c'), ('SYSTEM "a\nb"', "a\nb"),
    ('SYSTEM """\na\n\n# b\n"""', "\na\n\n# b\n"), ('SYSTEM "a" b\nc"', 'a" b\nc'), ("SYSTEM 'a'", "'a'"), ('SYSTEM ""', ""),
    ("SYSTEM\ta", "a"), ("  SYSTEM a", "a"), ("SYSTEM a # b", "a # b"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "wanted"), VALUES)
def test_values_are_bare_quoted_or_in_three_quotes(line: str, wanted: str) -> None:
    assert spec_of(f"FROM x\n{line}\n").system == wanted


WRONG = [
    ("FORM x", 1, "FORM"), ("FROM x\nPARAMETER temprature 1", 2, "temprature"), ("FROM x\n\nPARAMETER top_k many", 3, "whole number"),
    ("FROM x\nPARAMETER temperature hot", 2, "number"), ("FROM x\nPARAMETER use_mmap maybe", 2, "true nor false"),
    ("FROM x\nMESSAGE robot hi", 2, "robot"), ("# only this", 1, "no FROM line"), ('FROM x\nSYSTEM """abc', 2, "not closed"),
    ('FROM x\nTEMPLATE """{{ .Prompt }}\n{{ if }}"""', 3, "missing"), ("FROM x\nTEMPLATE {{ for m in messages }}", 2, "TEMPLATE"),
    ("FROM x\nDIGEST 12", 2, "digest"), ("FROM x\nFLASH_ATTENTION perhaps", 2, "true nor false"), ("FROM x\nCAPABILITY flight true", 2, "flight"),
    ("FROM x\nTHINKING start <hmm>", 2, "<hmm>"), ("FROM x\nTHINKING enabled false", 2, "switched off"), ("FROM x\nTHINKING middle x", 2, "middle"),
    ("FROM x\nTOOLFORMAT style cobol", 2, "cobol"), ("FROM x\nTOOLFORMAT call_start <<<", 2, "<<<"), ("FROM x\nRENDERER unknown", 2, "unknown"),
    ("FROM x\nREQUIRES soon", 2, "version"), ("FROM x\nFROM y\nFROM z", 3, "projector"), ("FROM", 1, "needs a value"),
    ("FROM x\nGPU_LAYERS 1.5", 2, "whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_what_is_wrong_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_modelfile(text, "Mullamafile")
    problem = caught.value.problems[0]
    assert problem.place is not None
    assert (problem.place.file, problem.place.line) == ("Mullamafile", line)
    assert words in str(problem)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ManifestError) as caught:
        parse_modelfile("FORM x\nPARAMETER a 1\nMESSAGE x y\n")
    assert [p.place.line for p in caught.value.problems if p.place] == [1, 2, 3, 1]


REMARKED = [
    "PARAMETER tfs_z 1.0", "PARAMETER low_vram true", "RENDERER qwen3-coder", "PARSER harmony", "REQUIRES v0.9.0", "CAPABILITY code true",
    "TOOLFORMAT style qwen", "TOOLFORMAT call_start <tool_call>",
]  # fmt: skip


@pytest.mark.parametrize("line", REMARKED)
def test_what_is_said_in_vain_is_remarked_upon_with_its_line(line: str) -> None:
    read = parse_modelfile(f"FROM x\n{line}\n")
    assert read.spec == ModelfileSpec(base="x")
    [remark] = read.remarks
    assert remark.place is not None
    assert remark.place.line == 2


@pytest.mark.parametrize(
    "line", ["THINKING start <think>", 'THINKING end "</think>"', "THINKING enabled true", "CAPABILITY json true"]
)
def test_what_holds_anyway_is_accepted_in_silence(line: str) -> None:
    assert parse_modelfile(f"FROM x\n{line}\n").remarks == ()


def test_every_directive_and_parameter_is_covered() -> None:
    """Each directive appears in a case above; parameters are typed one way or have no effect."""
    told = FULL + "\n".join(text for text, _, _ in WRONG) + "\n".join(REMARKED) + "DRAFT VISION_PROJECTOR MMPROJ"
    assert [name for name in DIRECTIVES if name not in told.upper()] == []
    assert not PARAMETERS.keys() & WITHOUT_EFFECT.keys()


def test_projectors_and_shards_are_told_from_the_model() -> None:
    assert spec_of("FROM a.gguf\nFROM mmproj.gguf").projector == "mmproj.gguf"
    assert spec_of("FROM a.gguf\nMMPROJ p.gguf") == replace(ModelfileSpec(base="a.gguf"), projector="p.gguf")
    parts = "FROM m-00001-of-00002.gguf\nFROM m-00002-of-00002.gguf"
    assert spec_of(parts) == ModelfileSpec(base="m-00001-of-00002.gguf")


@pytest.mark.parametrize(("written", "wanted"), [("99", "all"), ("-1", "all"), ("0", 0), ("33", 33)])
def test_99_layers_and_more_are_all_of_them(written: str, wanted: Any) -> None:
    assert spec_of(f"FROM x\nGPU_LAYERS {written}").gpu_layers == wanted


@pytest.mark.parametrize(
    "data",
    ["\ufeffFROM x\r\nSYSTEM é\r".encode(), "FROM x\nSYSTEM é\x00\x07\n".encode("utf-16"), b"FROM x\nSYSTEM \xc3\xa9"],
)
def test_the_usual_encodings_are_read(data: bytes) -> None:
    assert spec_of(decode(data)) == ModelfileSpec(base="x", system="é")


@pytest.mark.parametrize("data", [b"FROM \xff\xffx", b"x" * 5_000_000])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        decode(data)
