"""Sampling parameters, stop strings and durations: the fields that all dialects share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeVar

from mullama.chat.sampling_fields import SAMPLING_FIELDS, SamplingField, fold_seed
from mullama.chat.types import Sampling
from mullama.dialects import fields, schema
from mullama.names import JSONValue
from mullama.struct import replace
from mullama.units import parse_go_duration

T = TypeVar("T")

MOST_STOPS = 16
MOST_STOP_BYTES = 256
MOST_BIASES = 1024
MOST_TOKEN = 2**31 - 1
MOST_CHOICES = 8
MOST_GUESSES = 1024
MOST_LOGPROBS = 20

SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
    "infill",
)
_SAMPLER_LETTERS = {
    "e": "penalties", "d": "dry", "s": "top_n_sigma", "k": "top_k", "y": "typical_p", "p": "top_p", "m": "min_p",
    "x": "xtc", "t": "temperature", "i": "infill",
}  # fmt: skip
_MOST_SAMPLERS = 32


def _seed(value: JSONValue, path: str) -> int:
    """Return a seed of 32 bits; -1 asks for a random one."""
    field = SAMPLING_FIELDS["seed"]
    folded = fold_seed(fields.to_integer(value, path, int(field.low), int(field.high)))
    return -1 if folded is None else folded


def _sampler(value: JSONValue, path: str) -> str:
    if value not in SAMPLERS:
        raise fields.unfit(path, f"one of {', '.join(SAMPLERS)}")
    return "typical_p" if value == "typ_p" else fields.to_text(value, path)


def _samplers(value: JSONValue, path: str) -> tuple[str, ...]:
    """Return the samplers of a list of names, or of llama.cpp's letters in one string."""
    if not isinstance(value, str):
        return fields.to_list(value, path, _sampler, _MOST_SAMPLERS)
    if len(value) > _MOST_SAMPLERS or not set(value) <= _SAMPLER_LETTERS.keys():
        raise fields.unfit(
            path, f"a list of names, or at most {_MOST_SAMPLERS} of the letters {''.join(_SAMPLER_LETTERS)}"
        )
    return tuple(_SAMPLER_LETTERS[letter] for letter in value)


def _short_text(value: JSONValue, path: str) -> str:
    text = fields.to_text(value, path)
    if len(text.encode()) > MOST_STOP_BYTES:
        raise fields.unfit(path, f"at most {MOST_STOP_BYTES} bytes long")
    return text


def _stop(value: JSONValue, path: str) -> tuple[str, ...]:
    """Return the stop strings of one string or a list. Empty strings would match everywhere and are skipped."""
    if isinstance(value, str):
        found: tuple[str, ...] = (_short_text(value, path),)
    else:
        found = fields.to_list(value, path, _short_text, MOST_STOPS)
    return tuple(text for text in found if text)


def _bias(value: JSONValue, path: str) -> float:
    """Return a value added to a logit; false forbids the token."""
    return -math.inf if value is False else fields.to_number(value, path, -100, 100)


def _token_id(value: JSONValue, path: str) -> int:
    return fields.to_integer(value, path, 0, MOST_TOKEN)


def _bias_pair(value: JSONValue, path: str) -> tuple[int | str, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise fields.unfit(path, "a pair of a token and its bias")
    token = value[0]
    named = _short_text(token, f"{path}[0]") if isinstance(token, str) else _token_id(token, f"{path}[0]")
    return named, _bias(value[1], f"{path}[1]")


def _logit_bias(value: JSONValue, path: str) -> tuple[tuple[int | str, float], ...]:
    """Return the biases of `{"token": bias}` or `[[token, bias]]`: a token is an id, or a text for all its tokens.

    A key of digits is an id, because the keys of an object are strings; in a pair, a string is a text.
    """
    if not isinstance(value, Mapping):
        return fields.to_list(value, path, _bias_pair, MOST_BIASES)
    if len(value) > MOST_BIASES:
        raise fields.unfit(path, f"an object of at most {MOST_BIASES} tokens")
    return tuple((_bias_key(k, path), _bias(v, f"{path}.{k[:40]}")) for k, v in value.items())


def _bias_key(key: str, path: str) -> int | str:
    """Return an id for a key that C's strtol reads to its end, as llama-server does; a text for any other."""
    if re.fullmatch(r"\s*[+-]?[0-9]{1,10}", key):
        return _token_id(int(key), path)
    return _short_text(key, f"{path}.{key[:40]}")


_SHORT = {**schema.STRING, "maxLength": MOST_STOP_BYTES}

STOP: fields.Field[tuple[str, ...]] = fields.Field(
    "stop", _stop, schema.either(_SHORT, schema.listed(_SHORT, most=MOST_STOPS))
)
_BIAS = schema.either({"type": "number", "minimum": -100, "maximum": 100}, schema.constant(False))
LOGIT_BIAS: fields.Field[tuple[tuple[int | str, float], ...]] = fields.Field(
    "logit_bias",
    _logit_bias,
    schema.either(schema.mapped(_BIAS), schema.listed({"type": "array", "minItems": 2, "maxItems": 2})),
)
SEED: fields.Field[int] = fields.Field("seed", _seed, fields.integer("seed").schema)
TOP_LOGPROBS = fields.integer("top_logprobs", 0, MOST_LOGPROBS)


def number_field(name: str) -> fields.Field[float]:
    """Return the request field of a parameter of the table that is a number."""
    return _described(fields.number(name, SAMPLING_FIELDS[name].low, SAMPLING_FIELDS[name].high))


def integer_field(name: str) -> fields.Field[int]:
    """Return the request field of a parameter of the table that is a whole number."""
    return _described(fields.integer(name, int(SAMPLING_FIELDS[name].low), int(SAMPLING_FIELDS[name].high)))


def _described(field: fields.Field[T]) -> fields.Field[T]:
    """Return the field with the description of its parameter in its schema."""
    return replace(field, schema={**field.schema, "description": SAMPLING_FIELDS[field.name].description})


def _numeric(field: SamplingField) -> fields.Field[object]:
    if field.name == "seed":
        return SEED
    return integer_field(field.name) if field.type is int else number_field(field.name)


SAMPLING: tuple[fields.Field[object], ...] = (
    *map(_numeric, SAMPLING_FIELDS.values()),
    fields.many("dry_sequence_breakers", _short_text, _SHORT, MOST_STOPS),
    fields.Field(
        "samplers",
        _samplers,
        schema.either(schema.listed(schema.one_of(*SAMPLERS), most=_MOST_SAMPLERS), schema.STRING),
    ),
    LOGIT_BIAS,
)
"""The fields of a request that set an attribute of `Sampling`, under its name."""


def read_sampling(body: fields.Body) -> Sampling:
    """Return the sampling parameters of a body."""
    given = {f.name: value for f in SAMPLING if (value := body.get(f)) is not None}
    return Sampling(**given)  # type: ignore[arg-type]  # each field converts to the type of its attribute


# The duration of keep_alive.

_MOST_SECONDS = 1e11


def _duration(value: JSONValue, path: str) -> float:
    """Return the seconds of a number or of a Go duration such as `5m` or `1h30m`; negative is without end."""
    if not isinstance(value, str):
        return fields.to_number(value, path, -_MOST_SECONDS, _MOST_SECONDS)
    sign = -1.0 if value.startswith("-") else 1.0
    text = value.removeprefix("-").removeprefix("+")
    if re.fullmatch(r"\d{1,12}(\.\d{0,9})?", text):
        return sign * min(float(text), _MOST_SECONDS)
    try:
        return sign * min(parse_go_duration(text), _MOST_SECONDS)
    except ValueError as error:
        raise fields.unfit(path, f"seconds or a duration such as 5m or 1h30m, not {value[:40]!r}") from error


KEEP_ALIVE: fields.Field[float] = fields.Field("keep_alive", _duration, schema.either(schema.NUMBER, schema.STRING))
