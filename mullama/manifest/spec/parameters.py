"""Sampling and length of answers."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mullama.chat.sampling_fields import SAMPLING_FIELDS
from mullama.manifest.spec.readers import check_not_boolean
from mullama.manifest.spec.values import Block, Number, Whole

Mirostat = Annotated[Literal[0, 1, 2], BeforeValidator(check_not_boolean)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]

MOST_STOPS = 16


def _sampling(name: str, examples: list[Any] | None = None) -> Any:
    """A field of `Parameters` with the range and description of the sampling parameter of this name."""
    field = SAMPLING_FIELDS[name]
    return Field(
        default=None,
        ge=field.low,
        le=field.high,
        description=f"{field.description} Default: {field.default:g}.",
        examples=examples,
    )


class Parameters(Block):
    """Sampling and length of answers, under the names of a Modelfile; a request may override each."""

    temperature: Number | None = _sampling("temperature", [0.3])
    top_k: Whole | None = _sampling("top_k", [40])
    top_p: Number | None = _sampling("top_p", [0.9])
    min_p: Number | None = _sampling("min_p", [0.05])
    typical_p: Number | None = _sampling("typical_p")
    top_n_sigma: Number | None = _sampling("top_n_sigma")
    xtc_probability: Number | None = _sampling("xtc_probability")
    xtc_threshold: Number | None = _sampling("xtc_threshold")
    dynatemp_range: Number | None = _sampling("dynatemp_range")
    dynatemp_exponent: Number | None = _sampling("dynatemp_exponent")
    repeat_last_n: Whole | None = _sampling("repeat_last_n")
    repeat_penalty: Number | None = _sampling("repeat_penalty", [1.1])
    presence_penalty: Number | None = _sampling("presence_penalty")
    frequency_penalty: Number | None = _sampling("frequency_penalty")
    dry_multiplier: Number | None = _sampling("dry_multiplier")
    dry_base: Number | None = _sampling("dry_base")
    dry_allowed_length: Whole | None = _sampling("dry_allowed_length")
    dry_penalty_last_n: Whole | None = _sampling("dry_penalty_last_n")
    mirostat: Mirostat | None = _sampling("mirostat")
    mirostat_tau: Number | None = _sampling("mirostat_tau")
    mirostat_eta: Number | None = _sampling("mirostat_eta")
    seed: Whole | None = _sampling("seed", [7])
    min_keep: Whole | None = _sampling("min_keep")
    stop: tuple[Stop, ...] = Field(default=(), max_length=MOST_STOPS, examples=[["<|im_end|>"]])
    """Stop sequences: an answer ends before the first of them."""
    num_predict: Whole | None = Field(default=None, ge=-2, le=2**31 - 1, examples=[512])
    """Maximum number of tokens of an answer; -1 for no limit, -2 to fill the context."""
    num_keep: Whole | None = Field(default=None, ge=-1, le=2**31 - 1)
    """Accepted with a warning and without effect: a prompt that is too long loses complete messages only."""
