"""How the next token is chosen and where the text ends: the fields that all wire formats share, with their bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from mullama.chat.types import Sampling
from mullama.dialects import schema
from mullama.dialects.fields import (
    Body,
    Field,
    integer,
    many,
    number,
    to_integer,
    to_list,
    to_number,
    to_text,
    unfit,
)
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
    """Seeds are 32 bits wide in the engine; -1 asks for a random one."""
    seed = to_integer(value, path, -(2**53), 2**53)
    return seed if seed == -1 else seed % (2**32 - 1)


def _sampler(value: JSONValue, path: str) -> str:
    if value not in SAMPLERS:
        raise unfit(path, f"one of {', '.join(SAMPLERS)}")
    return "typical_p" if value == "typ_p" else to_text(value, path)


def _short_text(value: JSONValue, path: str) -> str:
    text = to_text(value, path)
    if len(text.encode()) > MOST_STOP_BYTES:
        raise unfit(path, f"at most {MOST_STOP_BYTES} bytes long")
    return text


def _stop(value: JSONValue, path: str) -> tuple[str, ...]:
    """One string or a list; an empty string would match everywhere and is left out."""
    if isinstance(value, str):
        found: tuple[str, ...] = (_short_text(value, path),)
    else:
        found = to_list(value, path, _short_text, MOST_STOPS)
    return tuple(text for text in found if text)


def _bias(value: JSONValue, path: str) -> float:
    """A value added to a logit; false forbids the token."""
    return -math.inf if value is False else to_number(value, path, -100, 100)


def _token_id(value: JSONValue, path: str) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,10}", value):
            raise Invalid(
                f"{path} must name tokens by id, not {value[:40]!r}",
                field=path,
                hint="POST /tokenize tells the ids of a text",
            )
        value = int(value)
    return to_integer(value, path, 0, MOST_TOKEN)


def _bias_pair(value: JSONValue, path: str) -> tuple[int, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise unfit(path, "a pair of token id and bias")
    return _token_id(value[0], f"{path}[0]"), _bias(value[1], f"{path}[1]")


def _logit_bias(value: JSONValue, path: str) -> tuple[tuple[int, float], ...]:
    """`{"token id": bias}` or `[[token id, bias]]`."""
    if not isinstance(value, Mapping):
        return to_list(value, path, _bias_pair, MOST_BIASES)
    if len(value) > MOST_BIASES:
        raise unfit(path, f"an object of at most {MOST_BIASES} tokens")
    return tuple((_token_id(k, path), _bias(v, f"{path}.{k}")) for k, v in value.items())


_SHORT = {**schema.STRING, "maxLength": MOST_STOP_BYTES}

STOP: Field[tuple[str, ...]] = Field("stop", _stop, schema.either(_SHORT, schema.listed(_SHORT, most=MOST_STOPS)))
LOGIT_BIAS: Field[tuple[tuple[int, float], ...]] = Field(
    "logit_bias",
    _logit_bias,
    {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
)
SEED: Field[int] = Field("seed", _seed, schema.INTEGER)
TOP_LOGPROBS = integer("top_logprobs", 0, MOST_LOGPROBS)

# The names are the attributes of Sampling. Bounds are wider than anything useful and narrower than
# what makes the arithmetic of the engine overflow or hang.
SAMPLING: tuple[Field[object], ...] = (
    number("temperature", 0, 100),
    integer("top_k", -1, MOST_TOKEN),
    number("top_p", 0, 1),
    number("min_p", 0, 1),
    number("typical_p", 0, 1),
    number("top_n_sigma", -1, 1000),
    number("xtc_probability", 0, 1),
    number("xtc_threshold", 0, 1),
    number("dynatemp_range", 0, 100),
    number("dynatemp_exponent", 0, 100),
    integer("repeat_last_n", -1, MOST_TOKEN),
    number("repeat_penalty", 0.01, 100),
    number("presence_penalty", -2, 2),
    number("frequency_penalty", -2, 2),
    number("dry_multiplier", 0, 100),
    number("dry_base", 0, 100),
    integer("dry_allowed_length", 0, MOST_TOKEN),
    integer("dry_penalty_last_n", -1, MOST_TOKEN),
    many("dry_sequence_breakers", _short_text, _SHORT, MOST_STOPS),
    integer("mirostat", 0, 2),
    number("mirostat_tau", 0, 100),
    number("mirostat_eta", 0, 100),
    SEED,
    integer("min_keep", 0, MOST_TOKEN),
    many("samplers", _sampler, schema.one_of(*SAMPLERS), 32),
    LOGIT_BIAS,
)


def read_sampling(body: Body) -> Sampling:
    """Every sampling field that the body says."""
    said = {f.name: value for f in SAMPLING if (value := body.get(f)) is not None}
    return Sampling(**said)  # type: ignore[arg-type]  # each field converts to the type of its attribute


# Durations, as keep_alive says them.

_MOST_SECONDS = 1e11


def _duration(value: JSONValue, path: str) -> float:
    """Seconds from a number or from Go's notation, such as `5m` or `1h30m`; negative means for ever."""
    if not isinstance(value, str):
        return to_number(value, path, -_MOST_SECONDS, _MOST_SECONDS)
    sign = -1.0 if value.startswith("-") else 1.0
    text = value.removeprefix("-").removeprefix("+")
    if re.fullmatch(r"\d{1,12}(\.\d{0,9})?", text):
        return sign * min(float(text), _MOST_SECONDS)
    try:
        return sign * min(parse_go_duration(text), _MOST_SECONDS)
    except ValueError as error:
        raise unfit(path, f"seconds or a duration such as 5m or 1h30m, not {value[:40]!r}") from error


KEEP_ALIVE: Field[float] = Field("keep_alive", _duration, schema.either(schema.NUMBER, schema.STRING))
