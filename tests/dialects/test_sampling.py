"""Sampling, stop strings and durations: one table of bounds for all dialects."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mullama.chat.types import Sampling
from mullama.dialects.fields import Body
from mullama.dialects.sampling import KEEP_ALIVE, LOGIT_BIAS, SAMPLING, SEED, STOP, read_sampling
from mullama.errors import Invalid
from mullama.struct import field_names

BY_NAME = {field.name: field for field in SAMPLING}


def test_every_attribute_of_sampling_can_be_said_by_a_request() -> None:
    assert set(field_names(Sampling)) == set(BY_NAME)


def test_what_is_not_said_stays_unsaid() -> None:
    assert read_sampling(Body({"temperature": None, "model": "x"})) == Sampling()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 101),
        ("top_p", 1.5),
        ("top_k", -2),
        ("repeat_penalty", 0),
        ("frequency_penalty", -1000.1),
        ("mirostat", 3),
        ("samplers", ["coin"]),
        ("dry_sequence_breakers", ["x" * 257]),
        ("dry_sequence_breakers", ["x"] * 17),
        ("logit_bias", {"17": 101}),
        ("logit_bias", {"hello": True}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"x" * 257: 1}),
        ("logit_bias", [[1, 2, 3]]),
        ("logit_bias", [[1.5, 2]]),
        ("logit_bias", [[None, 2]]),
        ("samplers", "kq"),
        ("logit_bias", {str(i): 1 for i in range(1025)}),
        ("stop", ["x"] * 17),
        ("stop", "ü" * 129),
        ("stop", 5),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        Body({name: value}).get(BY_NAME.get(name, STOP))

    assert caught.value.field is not None
    assert caught.value.field.startswith(name)


@pytest.mark.parametrize(
    ("value", "bias"),
    [
        ({"17": -100, "3": 0.5}, ((17, -100.0), (3, 0.5))),
        ([[17, 1], ["18", 2]], ((17, 1.0), ("18", 2.0))),
        ({" the ": -100, "18": 2}, ((" the ", -100.0), (18, 2.0))),
        ([[" the ", False], [3, -5]], ((" the ", -math.inf), (3, -5.0))),
        ({" 17": 1, "+3": 1, "1a": 1}, ((17, 1.0), (3, 1.0), ("1a", 1.0))),
        ({"17": False}, ((17, -math.inf),)),
        ({}, ()),
    ],
)
def test_biases_come_as_an_object_or_as_pairs(value: Any, bias: Any) -> None:
    assert Body({"logit_bias": value}).get(LOGIT_BIAS) == bias


@pytest.mark.parametrize(
    ("value", "seed"), [(-1, -1), (0, 0), (7, 7), (2**32 - 1, 0), (2**53, 2**53 % (2**32 - 1)), (-2, 2**32 - 3)]
)
def test_a_seed_is_made_to_fit_32_bits(value: int, seed: int) -> None:
    assert Body({"seed": value}).get(SEED) == seed


@pytest.mark.parametrize(
    ("value", "stop"), [("a", ("a",)), (["a", "b"], ("a", "b")), ("", ()), (["", "a"], ("a",)), ([], ())]
)
def test_stop_strings_come_alone_or_in_a_list_and_never_empty(value: Any, stop: tuple[str, ...]) -> None:
    assert Body({"stop": value}).get(STOP) == stop


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (300, 300.0),
        (-1, -1.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("-1", -1.0),
        ("-1s", -1.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("100", 100.0),
        ("99999999h", 1e11),
    ],
)
def test_durations_are_seconds_or_the_notation_of_go(value: Any, seconds: float) -> None:
    assert Body({"keep_alive": value}).get(KEEP_ALIVE) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "m5", "5 m", "1d", "5m-", "1e5", "nan", "5" * 100 + "h", True, [5]])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(Invalid, match="keep_alive"):
        Body({"keep_alive": value}).get(KEEP_ALIVE)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (["typ_p", "top_k"], ("typical_p", "top_k")),
        (
            "edskypmxt",
            ("penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"),
        ),
        ("i", ("infill",)),
    ],
)
def test_samplers_come_as_names_or_letters(value: Any, names: tuple[str, ...]) -> None:
    assert Body({"samplers": value}).get(BY_NAME["samplers"]) == names
