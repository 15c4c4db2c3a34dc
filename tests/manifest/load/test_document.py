"""YAML within bounds: places, duplicate keys, aliases, and documents that mean harm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.errors import ManifestError
from mullama.manifest.load.document import DocumentBudget, read_document
from mullama.manifest.nodes import walk
from mullama.problems import Problem
from tests.manifest.builders import document
from tests.manifest.load.hostile import hostile
from tests.processor_time import processor_time


def refusal(text: str | bytes, allowance: DocumentBudget | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        document(text, allowance)
    (problem,) = caught.value.problems
    assert problem.place is not None
    return str(problem)


def mistakes(data: bytes) -> Sequence[Problem]:
    try:
        return read_document(data, "m.yaml", DocumentBudget()).problems
    except ManifestError as error:
        return error.problems


READS = [
    ("a: 1\nb: [x, 2.5, true, null]\n", {"a": 1, "b": ["x", 2.5, True, None]}),
    ('{"a": {"b": [1, "\\u00e9", "\\ud83d\\ude00"]}}', {"a": {"b": [1, "é", "😀"]}}),
    ("\ufeffa: b\n", {"a": "b"}),
    ("a: |\n  one\n  two\nb: >\n  three\n  four\n", {"a": "one\ntwo\n", "b": "three four\n"}),
    ("a: &x {k: 1}\nb: *x\n", {"a": {"k": 1}, "b": {"k": 1}}),
    ("base: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}\n", {"base": {"k": 1, "l": 2}, "b": {"l": 3, "k": 1}}),
    ("b: {<<: [{k: 1}, {k: 2, l: 2}]}\n", {"b": {"k": 1, "l": 2}}),
    ("'<<': 1\n", {"<<": 1}),
    ("on: off\nyes: no\n8: 0777\n", {"on": "off", "yes": "no", "8": "0777"}),
    ("a: {q: Hello. What do you need?, p: x?y}\n", {"a": {"q": "Hello. What do you need?", "p": "x?y"}}),
    ("qwen3:8b: hf:Qwen/Qwen3-8B-GGUF:Q4_K_M@main # note\n", {"qwen3:8b": "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M@main"}),
    ("[a, b: c, http://x/y]\n", ["a", {"b": "c"}, "http://x/y"]),
    ("a: one\n  two\n\n  three\n", {"a": "one two\nthree"}),
    ("--- {a: 1}\n...\n", {"a": 1}),
    ("%YAML 1.2\n---\na: 1\n", {"a": 1}),
    ("", None),
    ("# nothing\n", None),
]


@pytest.mark.parametrize(("text", "value"), READS)
def test_documents_are_read(text: str, value: object) -> None:
    assert document(text) == value


def test_every_key_and_value_knows_its_line_and_column() -> None:
    read = read_document(b"a: 1\nb:\n  - x\n  - k: {m: 2}\n", "m.yaml", DocumentBudget())
    assert {path: str(place) for path, place in walk(read.root)} == {
        "a": "m.yaml:1:4",
        "b": "m.yaml:2:1",
        "b[0]": "m.yaml:3:5",
        "b[1]": "m.yaml:4:5",
        "b[1].k": "m.yaml:4:5",
        "b[1].k.m": "m.yaml:4:12",
    }


def test_duplicate_keys_are_all_named_with_both_places() -> None:
    with pytest.raises(ManifestError) as caught:
        document("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert [str(problem) for problem in caught.value.problems] == [
        "m.yaml:2:11: c: this key is already used at m.yaml:2:5 (keep one of them)",
        "m.yaml:3:1: a: this key is already used at m.yaml:1:1 (keep one of them)",
    ]


REFUSED = [
    (
        "a: !!python/object/apply:os.system [x]\n",
        "m.yaml:1:4: the tag 'tag:yaml.org,2002:python/object/apply:os' is not",
    ),
    ("a: !!binary aGk=\n", "tag"),
    ("a: !!set {x}\n", "tag"),
    ("a: !foo b\n", "tag"),
    ("!!map {a: 1}\n", "tag"),
    ("a: ! b\n", "tag"),
    ("a: !x!y b\n", "tag"),
    ("a: .nan\n", "m.yaml:1:4: infinity and not-a-number are not allowed (put quotes around it"),
    ("a: [.inf]\n", "infinity"),
    (f"a: {'9' * 5000}\n", "out of range"),
    ("a: 1\n---\nb: 2\n", "m.yaml:2:1: a second document begins here (a file has one document)"),
    ("a: &x [*x]\n", "m.yaml:1:8: *x refers to a node that contains it"),
    ("a: *nope\n", "there is no anchor &nope"),
    ("? [a, b]\n: c\n", "a key must be a plain scalar"),
    ("? {a: b}\n: c\n", "a key must be a plain scalar"),
    ("&x a: b\n", "a key must be a plain scalar"),
    ("a: {<<: 3}\n", "<< takes a map or a list of maps"),
    ("a: {<<: [1]}\n", "<< takes a map or a list of maps"),
    ("\ta: 1\n", "m.yaml:1:1: a tab is used for indentation (indent with spaces)"),
    ("a:\n\t- 1\n", "tab"),
    ("a: 1\n  b: 2\n", "m.yaml:2:4: a ':' is not allowed here"),
    ("a:\n  - 1\n b: 2\n", "the indentation does not fit the lines above"),
    ("a: 1\nb\nc: 2\n", "this key has no ':'"),
    ("a: [1, 2\n", "m.yaml:1:4: this bracket is not closed (close it)"),
    ("a: [1, {b: 2}]\nb: {c: [1], d: [\n\n  2\n", "m.yaml:2:16: this bracket is not closed (close it)"),
    ("a: [1\nb: 2\n", "m.yaml:1:4: this bracket is not closed before line 2 (check commas and brackets)"),
    ("a: {b: [1, 2\n  c: 3}\n", "m.yaml:1:8: this bracket is not closed before line 2 (check commas and brackets)"),
    ("a: 1\nb:\n  - {c: 1,\n\n\n", "m.yaml:3:5: this bracket is not closed (close it)"),
    ("a: {b: ${X:-1}}\n", "in { } or [ ], put quotes around text with ${…}"),
    ("a: 'b\n", "a quoted text is not closed"),
    ('a: "b\n---\n', "a document separator is inside quoted text"),
    ('a: "\\q"\n', "an unknown escape in double quotes"),
    ('a: "\\u12"\n', "an escape in double quotes is not complete"),
    ('a: "\\U00110000"\n', "a number is out of range"),
    ('a: "\\ud800"\n', "half of a surrogate pair"),
    ('a: "x\\0y"\n', "NUL"),
    ("a: @b\n", "a plain scalar cannot begin with this character (put quotes around the text)"),
    ("a: `b`\n", "a plain scalar cannot begin with this character"),
    ("%YAML 2.0\n---\na: 1\n", "the %YAML line cannot be read"),
    (f"%YAML 1.{'9' * 5000}\n---\na: 1\n", "out of range"),
    ("%YAML x\n---\na: 1\n", "the %YAML line cannot be read"),
    ("a: |x\n  b\n", "the indicator after | or > is wrong"),
    ("a: b\n}\n", ""),
    ("- a\nb: c\n", "the indentation does not fit"),
    ("a: - b\n", "a list cannot begin here"),
    ("a: b: c\n", "a ':' is not allowed here"),
    ("a: & b\n", "no name after &, * or %"),
    ("a: \x07\n", "m.yaml:1:4: the character U+0007 is not allowed in a manifest"),
    ("a: 1\nb: \x00\n", "m.yaml:2:4: the character U+0000 is not allowed in a manifest"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_allowed_is_refused_in_plain_words_with_its_place(text: str, expected: str) -> None:
    said = refusal(text)
    assert expected in said
    assert said.startswith("m.yaml:")
    assert "not valid YAML" not in said


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a: 1\nb: \xff\n", "m.yaml:2:4: the file is not UTF-8 (save it as UTF-8)"),
        ("a: 1\n".encode("utf-16"), "m.yaml:1:1: the file is not UTF-8 (save it as UTF-8)"),
        (b"a: " + b"x" * 1024 * 1024, "m.yaml:1:1: the file is larger than 1 MiB (split it with include)"),
    ],
)
def test_bytes_that_are_no_small_utf8_text_are_refused(data: bytes, expected: str) -> None:
    assert refusal(data) == expected


def test_aliases_are_charged_for_what_they_stand_for_and_not_only_once() -> None:
    allowance = DocumentBudget(aliased=5)
    assert document("a: &x [1, 2]\nb: *x\n", allowance) == {"a": [1, 2], "b": [1, 2]}
    assert allowance.aliased == 2
    assert "aliases and merges expand to more than" in refusal("a: &x [1, 2]\nb: *x\n", allowance)


def test_an_alias_counts_with_the_depth_of_what_it_names() -> None:
    deep = "&x " + "[" * 12 + "]" * 12
    said = refusal(f"a: {deep}\nb: {'[' * 10}*x{']' * 10}\n")
    assert "nested deeper than 20 levels" in said


def test_documents_of_one_manifest_share_one_allowance() -> None:
    allowance = DocumentBudget(nodes=10)
    document("[a, b, c, d]", allowance)
    assert "more than" in refusal("[a, b, c, d, e, f]", allowance)


HOSTILE = tuple(hostile(1000))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("part", "name"),
    [
        *((12, name) for name in HOSTILE),
        *(pytest.param(1, name, marks=pytest.mark.soak) for name in HOSTILE),
    ],
)
def test_a_hostile_document_costs_a_second_at_most_and_its_errors_have_places(part: int, name: str) -> None:
    data = hostile(part)[name]
    with processor_time() as cost:
        assert all(problem.place is not None for problem in mistakes(data))
    # The whole takes one second on an idle machine of 2025; the rest is for slower, busier and traced ones.
    assert cost.seconds < 15 / part


MEASURE = """
import resource
from mullama.errors import ManifestError
from mullama.manifest.load.document import DocumentBudget, read_document
from tests.manifest.load.hostile import hostile
half = hostile(2)
documents = [half[name] for name in ("laughs", "merges", "many keys", "one long quoted word")]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in documents:
    try:
        read_document(data, "m.yaml", DocumentBudget())
    except ManifestError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.timeout(60)
def test_half_a_hostile_document_takes_no_50_mib() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=90)
    assert int(done.stdout) < 50 * 1024


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=60), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
@settings(max_examples=150, deadline=None)
def test_json_is_yaml(value: object) -> None:
    """Unless it holds a NUL, which nothing behind a manifest could take."""
    text = json.dumps(value)
    if "\\u0000" in text:
        with pytest.raises(ManifestError, match="NUL"):
            document(text)
    else:
        assert document(text) == value


@given(st.text(alphabet="ab:-[]{}?,&*!|>'\"%@`#\n\t 01.~<\\", max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    assert all(problem.place is not None for problem in mistakes(text.encode()))


@given(st.text(alphabet="ab:-[]{},'\"#\n 01.", max_size=60))
@settings(max_examples=400, deadline=None)
def test_text_that_the_ordinary_parser_takes_has_the_same_structure(text: str) -> None:
    """The scanner's two faster parts change nothing but the question mark inside brackets."""
    try:
        expected = yaml.load(text, Loader=yaml.BaseLoader)
        found = document(text)
    except (yaml.YAMLError, ManifestError, TypeError, ValueError):
        return  # complex keys, duplicate keys, several documents: refused by one of the two
    assert as_text(found) == as_text(expected)


def as_text(value: object) -> object:
    """Scalars reduced to whether they are there: the base loader makes text of everything."""
    match value:
        case dict():
            return {key: as_text(inner) for key, inner in value.items()}
        case list():
            return [as_text(inner) for inner in value]
        case _:
            return "scalar"
