"""Strict JSON: accepted and refused bodies, and the time to refuse a hostile one."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid, TooLarge
from mullama.names import JSONValue
from mullama.server.http import strict_json
from mullama.server.http.strict_json import MOST_CONTAINERS, MOST_KEYS, MOST_VALUES, parse, to_json, to_json_parts
from tests.processor_time import processor_time

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b"  [1, 2.5, -3e2, true, false, null]\n", [1, 2.5, -300.0, True, False, None]),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"ü": "日本 😀"}'.encode(), {"ü": "日本 😀"}),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\\ud83d"', "\\ud83d"),
        (rb'"\\\ud83d\ude00"', "\\😀"),
        (rb'"NaN \" Infinity"', 'NaN " Infinity'),
        (b'{"a": {"k": 1}, "b": {"k": 1}}', {"a": {"k": 1}, "b": {"k": 1}}),
        (b"[" * 64 + b"]" * 64, None),
        (b'{"' + b"[" * 100 + b'": "' + b"{" * 100 + b'"}', {"[" * 100: "{" * 100}),
        (b"9" * 4000, int("9" * 4000)),
        (b'"' + b"9" * 6000 + b'"', "9" * 6000),
    ],
)
def test_strict_json_is_read(raw: bytes, value: object) -> None:
    assert parse(raw) == value or value is None


@pytest.mark.parametrize(
    ("raw", "reason", "byte"),
    [
        (b'{"a": 1', "EOF while parsing an object", 7),
        (b'{"a": 1,}', "trailing comma", 8),
        (b"{'a': 1}", "key must be a string", 1),
        (b"[1] 2", "trailing characters", 4),
        (b'"a\nb"', "control character", 2),
        (b'{"a": "\xff"}', "not UTF-8", 7),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8", 7),
        (b"\xff\xfe{\x00}\x00", "not UTF-8", 0),
        (b'{"model": "a", "model": "b"}', "'model' twice", 15),
        (b'[{"x": {"y": 1, "z": 2}, "y": 3}, {"q": 1, "q": 2}]', "'q' twice", 43),
        (b'{"a": 1, "\\u0061": 2}', "'a' twice", 9),
        (b'{"a": NaN}', "does not have", 6),
        (b'["NaN", -Infinity]', "does not have", 8),
        (b"[1e999]", "does not have", None),
        (b"[" + b"7" * 5000 + b"]", "digits", 1),
        (b'["1", 7.' + b"7" * 5000 + b"]", "digits", 8),
        (rb'["ok", "\ud800"]', "surrogate", 7),
        (rb'["\ude00"]', "surrogate", 1),
        (rb'["\ud83d\ud83d"]', "surrogate", 1),
        (rb'{"\ud83dx": 1}', "surrogate", 1),
        (rb'"\ud83d\\ude00"', "surrogate", 0),
        ('["é", "\\udc00"]'.encode(), "surrogate", 7),
        (rb'["ok", "\ud83dx', "surrogate", 7),
        (rb'["ok", "\ud83dx \\'[:-1], "surrogate", 7),
        (b"[" * 65 + b"]" * 65, "deeper than 64", None),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64", None),
        (b"[" * 100_000, "deep", None),
        (b"]" * 200_000, "value", 0),
    ],
)
def test_anything_else_is_refused_with_its_byte(raw: bytes, reason: str, byte: int | None) -> None:
    with pytest.raises(Invalid) as caught:
        parse(raw)
    message = str(caught.value)
    assert reason in message
    if byte is not None:
        assert re.search(rf"byte {byte}\b", message), message


def test_the_depth_is_an_argument() -> None:
    parse(b"[[[]]]", depth=3)
    with pytest.raises(Invalid, match="deeper than 2"):
        parse(b"[[[]]]", depth=2)


@pytest.mark.parametrize(
    "raw",
    [
        b'"' + b'\\"' * (4 * MIB),
        b'["",' * (2 * MIB),
        b"[" * (4 * MIB) + b"]" * (4 * MIB),
        (b"[[]" * (2 * MIB)) + b"]" * (2 * MIB),
        (b"[" * 60 + b"]" * 60 + b",") * 50_000,
        b'["' + b"\\n" * (3 * MIB) + b'\\ud800"]',
        b"[" + b'"a",' * (2 * MIB) + b"NaN]",
        b"[" + b"1" * (7 * MIB) + b"]",
        b'{"a":1,' * 30 + b'"b":1,' * (1 * MIB) + b'"b":2}',
        b"[1." + b"1" * (7 * MIB) + b"]",
    ],
    ids=[
        "open string",
        "open arrays",
        "deep",
        "deep with siblings",
        "wide and deep",
        "escapes",
        "constant at the end",
        "long number",
        "doubled keys",
        "long fraction",
    ],
)
def test_a_hostile_text_of_8_mib_is_refused_in_linear_time(raw: bytes) -> None:
    with processor_time() as cost, pytest.raises((Invalid, TooLarge)):
        parse(raw)
    assert cost.seconds < 60  # a second, where nothing else runs


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_every_json_value_is_read_unchanged(value: object, escaped: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(st.binary(max_size=200) | st.text('[]{}",:\\u0d8e1-N aI', max_size=60).map(str.encode))
def test_bytes_are_read_as_json_reads_them_or_refused(raw: bytes) -> None:
    try:
        value = parse(raw)
    except Invalid:
        return
    assert value == json.loads(raw)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def array(item: bytes, count: int) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


def keys(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":1' % i for i in range(count)) + b"}"


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        (array(b"1", MOST_VALUES), None),
        (array(b"1", MOST_VALUES + 1), f"more than {MOST_VALUES} values"),
        (array(b'""', MOST_VALUES + 1), f"more than {MOST_VALUES} values"),
        (array(b'""', 2 * MOST_VALUES), f"more than {MOST_VALUES} values"),
        (keys(MOST_KEYS), None),
        (keys(MOST_KEYS + 1), f"more than {MOST_KEYS} keys"),
        (array(b"[]", MOST_CONTAINERS - 1), None),
        (array(b"[]", MOST_CONTAINERS), f"more than {MOST_CONTAINERS} arrays and objects"),
        (array(b"{}", MOST_CONTAINERS), f"more than {MOST_CONTAINERS} arrays and objects"),
        (b'["' + b',:[{' * MOST_VALUES + b'"]', None),
        (b'["' + rb'\",' * (MOST_VALUES + 1) + b'"]', None),
        (b'["' + rb'\\' * 1000 + b'",' + b"1," * MOST_VALUES + b"1]", f"more than {MOST_VALUES} values"),
    ],
)  # fmt: skip
def test_the_values_of_a_body_are_counted_before_it_is_read(
    raw: bytes, refusal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks inside of strings do not count. The call into C that reads a body cannot be divided."""
    if refusal is None:
        assert parse(raw) is not None
        return
    monkeypatch.delattr(strict_json.pydantic_core, "from_json")
    with pytest.raises(TooLarge, match=refusal):
        parse(raw)


@given(VALUES)
def test_a_value_is_written_in_parts_as_in_one_call(value: JSONValue) -> None:
    assert to_json_parts(value) == to_json(value)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 129])
def test_a_long_list_is_written_in_parts(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    value: JSONValue = {"data": [{"embedding": [float("nan"), *range(count)]}], "rows": [[i] for i in range(count)]}
    whole, longest = to_json(value), 0

    def counted(part: object, **options: object) -> bytes:
        nonlocal longest
        longest = max(longest, len(part) if isinstance(part, list) else 1)
        return real(part, **options)

    real = strict_json.pydantic_core.to_json
    monkeypatch.setattr(strict_json.pydantic_core, "to_json", counted)
    assert to_json_parts(value) == whole
    assert longest <= 64
