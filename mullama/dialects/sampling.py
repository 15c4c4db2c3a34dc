"""Sampling parameters, stop strings and durations: the fields that all dialects share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from mullama.chat.sampling_fields import SAMPLING_FIELDS, SamplingField, fold_seed
from mullama.chat.types import Sampling
from mullama.dialects import fields, schema
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.units import parse_go_duration

MOST_STOPS = 16
MOST_STOP_BYTES = 256
MOST_BIASES = 1024
MOST_TOKEN = 2**31 - 1
MOST_CHOICES = 8
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
)


def _seed(value: JSONValue, path: str) -> int:
    """Return a seed of 32 bits; -1 asks for a random one."""
    field = SAMPLING_FIELDS["seed"]
    folded = fold_seed(fields.to_integer(value, path, int(field.low), int(field.high)))
    return -1 if folded is None else folded


def _sampler(value: JSONValue, path: str) -> str:
    if value not in SAMPLERS:
        raise fields.unfit(path, f"one of {', '.join(SAMPLERS)}")
    return "typical_p" if value == "typ_p" else fields.to_text(value, path)


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
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,10}", value):
            raise Invalid(
                f"{path} must name tokens by id, not {value[:40]!r}",
                field=path,
                hint="POST /tokenize returns the ids of a text",
            )
        value = int(value)
    return fields.to_integer(value, path, 0, MOST_TOKEN)


def _bias_pair(value: JSONValue, path: str) -> tuple[int, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise fields.unfit(path, "a pair of token id and bias")
    return _token_id(value[0], f"{path}[0]"), _bias(value[1], f"{path}[1]")


def _logit_bias(value: JSONValue, path: str) -> tuple[tuple[int, float], ...]:
    """Return the biases of `{"token id": bias}` or `[[token id, bias]]`."""
    if not isinstance(value, Mapping):
        return fields.to_list(value, path, _bias_pair, MOST_BIASES)
    if len(value) > MOST_BIASES:
        raise fields.unfit(path, f"an object of at most {MOST_BIASES} tokens")
    return tuple((_token_id(k, path), _bias(v, f"{path}.{k}")) for k, v in value.items())


_SHORT = {**schema.STRING, "maxLength": MOST_STOP_BYTES}

STOP: fields.Field[tuple[str, ...]] = fields.Field(
    "stop", _stop, schema.either(_SHORT, schema.listed(_SHORT, most=MOST_STOPS))
)
LOGIT_BIAS: fields.Field[tuple[tuple[int, float], ...]] = fields.Field(
    "logit_bias",
    _logit_bias,
    {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
)
SEED: fields.Field[int] = fields.Field("seed", _seed, fields.integer("seed").schema)
TOP_LOGPROBS = fields.integer("top_logprobs", 0, MOST_LOGPROBS)


def number_field(name: str) -> fields.Field[float]:
    """Return the request field of a parameter of the table that is a number."""
    return fields.number(name, SAMPLING_FIELDS[name].low, SAMPLING_FIELDS[name].high)


def integer_field(name: str) -> fields.Field[int]:
    """Return the request field of a parameter of the table that is a whole number."""
    return fields.integer(name, int(SAMPLING_FIELDS[name].low), int(SAMPLING_FIELDS[name].high))


def _numeric(field: SamplingField) -> fields.Field[object]:
    if field.name == "seed":
        return SEED
    return integer_field(field.name) if field.type is int else number_field(field.name)


SAMPLING: tuple[fields.Field[object], ...] = (
    *map(_numeric, SAMPLING_FIELDS.values()),
    fields.many("dry_sequence_breakers", _short_text, _SHORT, MOST_STOPS),
    fields.many("samplers", _sampler, schema.one_of(*SAMPLERS), 32),
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
