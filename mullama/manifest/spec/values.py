"""The scalar types of the manifest: sizes, durations, rates, shares, layers; and the base class of blocks."""

import math
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)

from mullama.errors import Invalid
from mullama.manifest.addresses import parse_rpc_host
from mullama.names import parse_source
from mullama.units import parse_duration, parse_rate, parse_size, rate_literal

DialectName = Literal["ollama", "openai", "anthropic"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

NEVER = math.inf
LARGEST = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

_PERCENT = re.compile(r"(?:100|[1-9]?[0-9])%")
_DEVICE = re.compile(r"[0-9]{1,2}")
_MOST_LAYERS = 10_000


class Block(BaseModel):
    """A block of the manifest: immutable, without unknown fields, compared by value."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class InvalidValue(ValueError):
    """A validation error with a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a validator that accepts text if `parse` does, and keeps it as text."""

    def check(text: str) -> str:
        try:
            parse(text)
        except Invalid as error:
            raise InvalidValue(error.message, error.hint) from error
        return text

    return check


def read_size(value: object) -> object:
    """Convert text to bytes; other values stay, for the type to check."""
    return parse_size(value) if isinstance(value, str) else value


def read_duration(value: object) -> object:
    """Convert text to seconds; other values stay, for the type to check."""
    return parse_duration(value) if isinstance(value, str) else value


def canonical_rate(value: str) -> str:
    """Return the one spelling of a rate, so that equal rates are equal."""
    return rate_literal(*parse_rate(value))


def parse_share(value: object) -> object:
    """Keep a percentage such as `80%`; convert other text to bytes."""
    return value if isinstance(value, str) and _PERCENT.fullmatch(value) else read_size(value)


def share_of(share: str | int | None, total: int) -> int | None:
    """Return a share in bytes: a percentage of `total`, or a number as it is; None for no limit."""
    return total * int(share[:-1]) // 100 if isinstance(share, str) else share


def check_layers(value: object) -> object:
    """Check for `auto`, `all`, a number of layers, or a map of device numbers to numbers of layers."""
    if value in ("auto", "all") or _is_count(value):
        return value
    if isinstance(value, dict) and value:
        wrong = [k for k, v in value.items() if not (_DEVICE.fullmatch(str(k)) and _is_count(v))]
        if not wrong:
            return value
        raise ValueError(f'expected device numbers with layer counts, such as {{"0": 30}}, not {wrong[0]!r}')
    raise ValueError('expected auto, all, a number of layers, or a map such as {"0": 30, "1": 18}')


def check_experts(value: object) -> object:
    """Check for `auto`, `all` or a number of layers."""
    if value in ("auto", "all") or _is_count(value):
        return value
    raise ValueError("expected auto, all, or a number of layers")


def parse_flash(value: object) -> object:
    """Convert true and false to on and off: YAML 1.1 tools write them so."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def check_not_boolean(value: object) -> object:
    """Refuse true and false, which Python counts as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


def check_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_LAYERS


def _not_negative(value: str | int) -> str | int:
    if isinstance(value, int) and not 0 <= value <= LARGEST:
        raise ValueError("expected a share or a size that is not negative")
    return value


def _show_duration(seconds: float) -> float | str:
    return "never" if seconds == NEVER else seconds


_SIZE_TEXT = r"[0-9]+(\.[0-9]+)? ?([kKMGT]i?B?|B)?"

Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Source = Annotated[str, AfterValidator(checked(parse_source)), Field(min_length=1)]
Expression = Annotated[str, AfterValidator(check_expression), Field(min_length=1)]

Size = Annotated[
    int,
    Strict(),
    Field(le=LARGEST),
    BeforeValidator(read_size),
    WithJsonSchema(
        {"type": ["integer", "string"], "x-mullama-unit": "bytes", "minimum": 0, "pattern": f"^{_SIZE_TEXT}$"}
    ),
]
Duration = Annotated[
    float,
    Strict(),
    Field(ge=0),
    BeforeValidator(read_duration),
    PlainSerializer(_show_duration, return_type=float | str, when_used="json"),
    WithJsonSchema(
        {
            "type": ["number", "string"],
            "x-mullama-unit": "seconds",
            "minimum": 0,
            "pattern": r"^(never|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$",
        }
    ),
]
Rate = Annotated[
    str,
    AfterValidator(canonical_rate),
    WithJsonSchema({"type": "string", "x-mullama-unit": "rate", "pattern": r"^[0-9]+(\.[0-9]+)?[kMG]?/[smhd]$"}),
]
Share = Annotated[
    str | Whole,
    BeforeValidator(parse_share),
    AfterValidator(_not_negative),
    WithJsonSchema(
        {
            "type": ["integer", "string"],
            "x-mullama-unit": "share",
            "minimum": 0,
            "pattern": rf"^((100|[1-9]?[0-9])%|{_SIZE_TEXT})$",
        }
    ),
]
Layers = Annotated[
    Literal["auto", "all"] | int | dict[str, int],
    BeforeValidator(check_layers),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["auto", "all"]},
                {"type": "integer", "minimum": 0, "maximum": _MOST_LAYERS},
                {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": False,
                    "patternProperties": {r"^[0-9]{1,2}$": {"type": "integer", "minimum": 0, "maximum": _MOST_LAYERS}},
                },
            ]
        }
    ),
]
ExpertLayers = Annotated[
    Literal["auto", "all"] | int,
    BeforeValidator(check_experts),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "all"]}, {"type": "integer", "minimum": 0, "maximum": _MOST_LAYERS}]}),
]
RpcHost = Annotated[str, AfterValidator(checked(parse_rpc_host)), Field(min_length=1)]
Flash = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(parse_flash),
    WithJsonSchema({"enum": ["auto", "on", "off", True, False]}),
]
