"""Advice on the quantization for a machine, computed from file sizes and one GGUF header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mullama.struct import Struct, replace

Profile = Literal["quality", "balanced", "fast"]
Status = Literal["recommended", "fits", "hybrid", "too large"]

# Bits per weight: the measure of quality. More bits lose less.
_BITS = (
    ("F32", 32.0), ("BF16", 16.0), ("F16", 16.0), ("Q8_0", 8.5), ("Q6_K", 6.6), ("Q5_K_M", 5.7), ("Q5_K_S", 5.5),
    ("Q5_1", 6.0), ("Q5_0", 5.5), ("Q4_K_M", 4.85), ("Q4_K_S", 4.6), ("Q4_1", 4.9), ("IQ4_NL", 4.5), ("Q4_0", 4.5),
    ("IQ4_XS", 4.3), ("Q3_K_L", 4.3), ("Q3_K_M", 3.9), ("IQ3_M", 3.7), ("Q3_K_S", 3.5), ("IQ3_S", 3.4),
    ("IQ3_XXS", 3.1), ("Q2_K", 3.0), ("IQ2_M", 2.7), ("IQ2_S", 2.5), ("IQ2_XS", 2.3), ("IQ2_XXS", 2.1), ("IQ1_M", 1.8),
    ("IQ1_S", 1.6),
)  # fmt: skip
BITS = dict(_BITS)

# (lowest, highest) bits per weight that a profile prefers.
_WINDOWS: dict[Profile, tuple[float, float]] = {"quality": (0.0, 99.0), "balanced": (4.4, 6.0), "fast": (4.0, 4.7)}


class Offer(Struct, frozen=True, kw_only=True):
    """One available quantization: its name, its file or first part, and the bytes of all parts."""

    quant: str
    file: str
    size: int


class Room(Struct, frozen=True, kw_only=True):
    """Bytes that a model may use: on all GPUs together, and in main memory."""

    gpu: int
    ram: int


class QuantRating(Struct, frozen=True, kw_only=True):
    """The rating of an offer. memory: bytes of weights and context. room: tokens of context that fit in the rest."""

    offer: Offer
    memory: int
    share: float
    room: int
    bits: float
    status: Status


def judge(
    offers: Sequence[Offer], *, fixed: int, per_token: float, context: int, room: Room, profile: Profile
) -> tuple[QuantRating, ...]:
    """Return the ratings of all offers, best quality first; at most one is recommended.

    fixed: bytes of buffers in addition to the weights. per_token: bytes of KV cache for each token of context.
    """
    found = [_verdict(o, fixed=fixed, per_token=per_token, context=context, room=room) for o in offers]
    found.sort(key=lambda v: (-v.bits, -v.offer.size))
    best = choice(found, profile)
    return tuple(replace(v, status="recommended") if v is best else v for v in found)


def _verdict(offer: Offer, *, fixed: int, per_token: float, context: int, room: Room) -> QuantRating:
    memory = offer.size + fixed + int(per_token * context)
    main = room.gpu or room.ram
    status: Status = (
        "fits" if memory <= main else "hybrid" if room.gpu and memory <= room.gpu + room.ram else "too large"
    )
    left = (main if status == "fits" else room.gpu + room.ram) - offer.size - fixed
    return QuantRating(
        offer=offer,
        memory=memory,
        share=memory / main if main else 0.0,
        room=max(0, int(left / per_token)) if per_token else 0,
        bits=BITS.get(offer.quant, 0.0),
        status=status,
    )


def choice(found: Sequence[QuantRating], profile: Profile) -> QuantRating | None:
    """Return the best offer that fits, else the best that fits in part; offers in the profile's range first."""
    for wanted in ("fits", "hybrid"):
        fitting = [v for v in found if v.status == wanted and v.bits]
        if not fitting:
            continue
        low, high = _WINDOWS[profile]
        inside = [v for v in fitting if low <= v.bits <= high]
        if profile == "balanced":
            usual = [v for v in inside if v.offer.quant == "Q4_K_M"]
            return (usual or inside or fitting)[0]
        if profile == "fast":
            return min(inside or fitting, key=lambda v: v.offer.size)
        return max(fitting, key=lambda v: (v.bits, v.offer.size))
    return None
