"""Inputs that are text or token ids, in every form that clients send, and vectors in replies."""

from __future__ import annotations

import math

from mullama.chat.types import Vectors
from mullama.dialects import schema
from mullama.dialects.fields import to_integer, to_list, unfit
from mullama.dialects.sampling import MOST_TOKEN
from mullama.errors import Invalid, TooLarge
from mullama.names import JSONValue

MOST_INPUTS = 2048
MOST_TOKENS = 2**21
MOST_ANSWERS = 256

_TOKENS = schema.listed(schema.COUNT)
INPUT_SCHEMA = schema.either(
    schema.STRING,
    _TOKENS,
    schema.listed(schema.either(schema.STRING, _TOKENS), most=MOST_INPUTS),
)

Input = str | tuple[int, ...]


def inputs_of(value: JSONValue, path: str) -> tuple[Input, ...]:
    """Return the inputs of a string, a list of strings, a list of token ids, or a list of such lists; null has none."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise unfit(path, "a string, token ids, or a list of these")
    if value and isinstance(value[0], int | float):
        return (_tokens(value, path),)
    return to_list(value, path, _one, MOST_INPUTS)


def check_filled(inputs: tuple[Input, ...], path: str) -> None:
    """Raise `Invalid` for an empty input, which it names."""
    if not inputs:
        raise Invalid(f"{path} must not be empty", field=path)
    for i, one in enumerate(inputs):
        if not one:
            place = f"{path}[{i}]" if len(inputs) > 1 else path
            raise Invalid(f"{place} must not be empty", field=place)


def prompts_of(value: JSONValue, path: str, n: int) -> tuple[Input, ...]:
    """Return the prompts of a completion, or one empty prompt; each gets `n` answers."""
    prompts = inputs_of(value, path) or ("",)
    if len(prompts) * n > MOST_ANSWERS:
        raise TooLarge(
            f"{path}: {len(prompts)} prompts with {n} answers each are more than {MOST_ANSWERS} answers",
            hint="send several requests",
        )
    return prompts


def _one(value: JSONValue, path: str) -> Input:
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise unfit(path, "a string or a list of token ids")
    return _tokens(value, path)


def _tokens(value: JSONValue, path: str) -> tuple[int, ...]:
    return to_list(value, path, _token, MOST_TOKENS)


def _token(value: JSONValue, path: str) -> int:
    return to_integer(value, path, 0, MOST_TOKEN)


def finite_vectors(result: Vectors) -> list[list[float]]:
    """Return the vectors as lists, or raise `Invalid` for an input whose vector is not finite."""
    for i, vector in enumerate(result.vectors):
        if not all(map(math.isfinite, vector)):
            raise Invalid(
                f"the vector of input[{i}] is not finite",
                field=f"input[{i}]",
                hint="the model's arithmetic overflowed on this input only",
            )
    return [list(vector) for vector in result.vectors]
