"""The scalar types of the manifest: sizes, durations, rates, shares, layers; and the base class of blocks."""

from typing import Annotated, Any, Literal

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

from mullama.manifest.spec.readers import (
    MOST_LAYERS,
    MOST_TOKENS,
    canonical_rate,
    check_checkpoints,
    check_experts,
    check_expression,
    check_layers,
    check_pool,
    check_rpc_host,
    check_source,
    parse_flash,
    parse_share,
    read_duration,
    read_size,
    show_duration,
)


class Block(BaseModel):
    """A block of the manifest: immutable, without unknown fields, compared by value."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


_SIZE_TEXT = r"[0-9]+(\.[0-9]+)? ?([kKMGT]i?B?|B)?"

Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Source = Annotated[str, AfterValidator(check_source), Field(min_length=1)]
Expression = Annotated[str, AfterValidator(check_expression), Field(min_length=1)]

AnyValue = Annotated[
    Any,
    WithJsonSchema({"type": ["string", "number", "boolean", "array", "object", "null"], "x-mullama-unit": "any"}),
]
Size = Annotated[
    int,
    Strict(),
    BeforeValidator(read_size),
    WithJsonSchema(
        {"type": ["integer", "string"], "x-mullama-unit": "bytes", "minimum": 0, "pattern": f"^{_SIZE_TEXT}$"}
    ),
]
Duration = Annotated[
    float,
    Strict(),
    BeforeValidator(read_duration),
    PlainSerializer(show_duration, return_type=float | str, when_used="json"),
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
                {"type": "integer", "minimum": 0, "maximum": MOST_LAYERS},
                {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": False,
                    "patternProperties": {r"^[0-9]{1,2}$": {"type": "integer", "minimum": 0, "maximum": MOST_LAYERS}},
                },
            ]
        }
    ),
]
ExpertLayers = Annotated[
    Literal["auto", "all"] | int,
    BeforeValidator(check_experts),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "all"]}, {"type": "integer", "minimum": 0, "maximum": MOST_LAYERS}]}),
]
Pool = Annotated[
    Literal["auto", "worst_case"] | int,
    BeforeValidator(check_pool),
    WithJsonSchema(
        {"anyOf": [{"enum": ["auto", "worst_case"]}, {"type": "integer", "minimum": 1, "maximum": MOST_TOKENS}]}
    ),
]
Checkpoints = Annotated[Literal["auto"] | Size, BeforeValidator(check_checkpoints)]
RpcHost = Annotated[str, AfterValidator(check_rpc_host), Field(min_length=1)]
Flash = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(parse_flash),
    WithJsonSchema({"enum": ["auto", "on", "off", True, False]}),
]
