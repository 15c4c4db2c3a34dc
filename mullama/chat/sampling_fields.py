"""The numeric sampling parameters: type, range and description of each.

The manifest, the request formats and the engine read this table, so a request may set what a manifest may set. A range
is what llama.cpp computes without overflow or endless loops, and includes the values that clients send for "off".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mullama.struct import Struct

_LARGEST_INT: Final = 2**31 - 1


class SamplingField(Struct, frozen=True):
    """One numeric attribute of `Sampling`; a value is in `low … high`, both included."""

    name: str
    type: type[int] | type[float]
    low: float
    high: float
    default: float
    """The value where neither the request nor the manifest sets one (Ollama's)."""
    description: str


SAMPLING_FIELDS: Final[Mapping[str, SamplingField]] = {
    field.name: field
    for field in (
        SamplingField("temperature", float, 0, 100, 0.8, "Sampling temperature; 0 selects the most likely token."),
        SamplingField("top_k", int, -1, _LARGEST_INT, 40, "Keep only the k most likely tokens; 0 or -1 keeps all."),
        SamplingField(
            "top_p", float, 0, 1, 0.9,
            "Keep the most likely tokens whose probabilities add up to this value; 1 keeps all.",
        ),
        SamplingField(
            "min_p", float, 0, 1, 0.0,
            "Keep tokens with at least this fraction of the highest probability; 0 keeps all.",
        ),
        SamplingField(
            "typical_p", float, 0, 1, 1.0,
            "Locally typical sampling: total probability of the tokens closest to the expected surprise; 1 keeps all.",
        ),
        SamplingField(
            "top_n_sigma", float, -1, 1000, -1.0,
            "Keep tokens whose logit is at most this many standard deviations below the highest; -1 or 0 keeps all.",
        ),
        SamplingField(
            "xtc_probability", float, 0, 1, 0.0, "XTC: probability that the most likely tokens are removed; 0 is off."
        ),
        SamplingField(
            "xtc_threshold", float, 0, 1, 0.1,
            "XTC: of the tokens above this probability, all but the least likely are removed; above 0.5 is off.",
        ),
        SamplingField(
            "dynatemp_range", float, 0, 100, 0.0,
            "Dynamic temperature: the temperature varies by this much in both directions with entropy; 0 is off.",
        ),
        SamplingField(
            "dynatemp_exponent", float, 0, 100, 1.0, "Dynamic temperature: exponent of the normalized entropy."
        ),
        SamplingField(
            "repeat_last_n", int, -1, _LARGEST_INT, 64,
            "Number of last tokens to which the repeat, presence and frequency penalties apply; 0 is off, "
            "-1 is the context size.",
        ),
        SamplingField(
            "repeat_penalty", float, 0.001, 100, 1.0, "Factor that makes repeated tokens less likely; 1 is off."
        ),
        SamplingField(
            "presence_penalty", float, -1000, 1000, 0.0,
            "Subtracted from the logit of each token that occurred; 0 is off.",
        ),
        SamplingField(
            "frequency_penalty", float, -1000, 1000, 0.0,
            "Subtracted from the logit of a token for each time that it occurred; 0 is off.",
        ),
        SamplingField(
            "dry_multiplier", float, 0, 1000, 0.0, "DRY: strength of the penalty for repeated sequences; 0 is off."
        ),
        SamplingField(
            "dry_base", float, 0, 1000, 1.75,
            "DRY: base of the penalty, which grows exponentially with the repeated length.",
        ),
        SamplingField(
            "dry_allowed_length", int, 0, _LARGEST_INT, 2,
            "DRY: length in tokens up to which a repetition has no penalty.",
        ),
        SamplingField(
            "dry_penalty_last_n", int, -1, _LARGEST_INT, -1,
            "DRY: number of last tokens that are searched for repetitions; 0 is off, -1 is the context size.",
        ),
        SamplingField(
            "mirostat", int, 0, 2, 0,
            "Mirostat version, 1 or 2, which replaces the other samplers that select tokens; 0 is off.",
        ),
        SamplingField("mirostat_tau", float, 0, 1000, 5.0, "Mirostat: target entropy (surprise) of the output."),
        SamplingField("mirostat_eta", float, 0, 1000, 0.1, "Mirostat: learning rate."),
        SamplingField(
            "seed", int, -(2**53), 2**53, -1, "Random seed, taken modulo 2^32 - 1; -1 selects a random one per request."
        ),
        SamplingField("min_keep", int, 0, _LARGEST_INT, 0, "Minimum number of tokens that each sampler keeps."),
    )
}  # fmt: skip
"""The fields by name, in the order of `Sampling`."""


def fold_seed(seed: int) -> int | None:
    """Return a seed as the 32 bits of llama.cpp, whose highest value means random; None for -1, a random seed."""
    return None if seed == -1 else seed % (2**32 - 1)
