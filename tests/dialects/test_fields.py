"""Fields: what fits is read, what does not is refused by its path, and null is the same as absent."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mullama.dialects.fields import (
    MODEL,
    Body,
    Field,
    body_of,
    choice,
    flag,
    integer,
    many,
    number,
    record,
    request_schema,
    text,
    to_text,
)
from mullama.errors import Invalid
from tests.dialects.wire import HELLO
from tests.dialects.wire import decode as decoded

N: Field[object] = integer("x", 0, 10)


@pytest.mark.parametrize(
    ("field", "value", "meaning"),
    [
        (integer("x", 0, 10), 3, 3),
        (integer("x", 0, 10), 3.0, 3),
        (integer("x"), 2**53, 2**53),
        (number("x", 0, 1), 1, 1.0),
        (number("x", 0, 1), 0.25, 0.25),
        (flag("x"), False, False),
        (text("x"), "", ""),
        (choice("x", ("a", "b")), "b", "b"),
        (record("x"), {"a": None}, {"a": None}),
        (many("x", to_text, {}, 2), ["a", "b"], ("a", "b")),
        (N, None, None),
    ],
)
def test_what_fits_is_read(field: Field[object], value: Any, meaning: Any) -> None:
    assert Body({"x": value}).get(field) == meaning


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (integer("x", 0, 10), 11, "x must be an integer between 0 and 10"),
        (integer("x", 0, 10), -1, "between 0 and 10"),
        (integer("x", 0, 10), True, "x must be an integer"),
        (integer("x", 0, 10), 2.5, "x must be an integer"),
        (integer("x", 0, 10), "3", "x must be an integer"),
        (integer("x"), 2**53 + 1, "of at most 53 bits"),
        (integer("x"), 1e300, "of at most 53 bits"),
        (number("x", 0, 1), math.nan, "x must be a number between 0 and 1"),
        (number("x", 0, 1), math.inf, "x must be a number between 0 and 1"),
        (number("x", 0, 1), False, "x must be a number"),
        (flag("x"), 1, "x must be true or false"),
        (flag("x"), "true", "x must be true or false"),
        (text("x"), 5, "x must be a string"),
        (text("x", 2), "abc", "at most 2 characters"),
        (choice("x", ("a", "b")), "c", "one of a, b, not 'c'"),
        (choice("x", ("a", "b")), ["a"], "one of a, b"),
        (record("x"), [], "x must be an object"),
        (many("x", to_text, {}, 2), "ab", "x must be a list"),
        (many("x", to_text, {}, 2), ["a", 1], r"x\[1\] must be a string"),
        (many("x", to_text, {}, 2), ["a"] * 3, "at most 2 items, not 3"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(field: Field[object], value: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        Body({"x": value}).get(field)

    assert caught.value.field is not None
    assert caught.value.field.startswith("x")


def test_the_path_of_a_nested_field_names_every_step() -> None:
    inner = Body({"a": {"b": {"c": 1}}}).child("a")
    assert inner is not None
    deeper = inner.child("b")
    assert deeper is not None

    with pytest.raises(Invalid, match=r"a\.b\.c must be a string") as caught:
        deeper.get(text("c"))

    assert caught.value.field == "a.b.c"


def test_a_missing_field_is_refused_in_the_words_of_the_dialect() -> None:
    with pytest.raises(Invalid, match="model is required"):
        Body({"model": None}).need(MODEL)
    with pytest.raises(Invalid, match="say which"):
        Body({}).need(MODEL, "say which")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "missing request body"),
        ([], "must be a JSON object"),
        ("text", "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        body_of(body)


def test_the_schema_of_a_body_lets_optional_fields_be_null() -> None:
    schema = request_schema(MODEL, flag("x"), required="model")

    assert schema["required"] == ["model"]
    assert schema["properties"] == {
        "model": {"type": "string", "maxLength": 512},
        "x": {"type": ["boolean", "null"]},
    }


@pytest.mark.parametrize(
    ("path", "body", "read"),
    [
        ("/v1/messages", {**HELLO, "max_tokens": 4}, ()),
        ("/v1/messages/count_tokens", HELLO, ()),
        ("/v1/responses", {"model": "tiny", "input": "Hello"}, ("return_progress", "timings_per_token")),
    ],
)
def test_fields_of_llama_server_that_an_api_does_not_have_are_named(
    path: str, body: dict[str, Any], read: tuple[str, ...]
) -> None:
    given = {
        "return_progress": True,
        "timings_per_token": True,
        "response_fields": ["a"],
        "min_p": 0.1,
        "verbose": None,
    }
    operation = decoded(path, {**body, **given, "verbose": None})
    warnings = getattr(operation, "chat", operation).warnings
    api = "/v1/messages" if "messages" in path else path
    names = [name for name in ("return_progress", "timings_per_token", "response_fields", "min_p") if name not in read]
    assert sorted(warnings) == sorted(f"{name} has no effect in {api}" for name in names)
