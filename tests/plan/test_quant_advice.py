"""Which quantisation is recommended, by values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.plan.quant_advice import BITS, Offer, Profile, Room, judge

GIB = 2**30
OFFERS = (
    Offer(quant="Q8_0", file="a", size=8 * GIB),
    Offer(quant="Q5_K_M", file="b", size=5 * GIB),
    Offer(quant="Q4_K_M", file="c", size=4 * GIB),
    Offer(quant="Q4_0", file="d", size=int(3.8 * GIB)),
    Offer(quant="Q2_K", file="e", size=2 * GIB),
)


def recommended(room: Room, profile: Profile, context: int = 0) -> str | None:
    found = judge(OFFERS, fixed=0, per_token=GIB / 1024, context=context, room=room, profile=profile)
    return next((v.offer.quant for v in found if v.status == "recommended"), None)


@pytest.mark.parametrize(
    ("room", "profile", "context", "quant"),
    [
        (Room(gpu=0, ram=16 * GIB), "quality", 0, "Q8_0"),
        (Room(gpu=0, ram=16 * GIB), "balanced", 0, "Q4_K_M"),
        (Room(gpu=0, ram=16 * GIB), "fast", 0, "Q4_0"),
        (Room(gpu=0, ram=5 * GIB), "quality", 0, "Q5_K_M"),
        (Room(gpu=0, ram=5 * GIB), "quality", 2048, "Q2_K"),
        (Room(gpu=4 * GIB, ram=16 * GIB), "quality", 0, "Q4_K_M"),
        (Room(gpu=GIB, ram=3 * GIB), "balanced", 0, "Q4_K_M"),
        (Room(gpu=0, ram=GIB), "fast", 0, None),
    ],
)
def test_a_profile_takes_what_suits_the_room(room: Room, profile: Profile, context: int, quant: str | None) -> None:
    assert recommended(room, profile, context) == quant


def test_room_for_context_is_what_weights_leave() -> None:
    found = judge(OFFERS, fixed=0, per_token=GIB / 1024, context=0, room=Room(gpu=0, ram=6 * GIB), profile="quality")
    assert {v.offer.quant: v.room for v in found}["Q5_K_M"] == 1024


@given(
    st.lists(st.tuples(st.sampled_from(sorted(BITS)), st.integers(1, 64 * GIB)), max_size=12),
    st.integers(0, 64 * GIB), st.integers(1, 64 * GIB), st.sampled_from(["quality", "balanced", "fast"]),
)  # fmt: skip
def test_what_is_recommended_always_fits(found, gpu, ram, profile) -> None:  # type: ignore[no-untyped-def]
    offers = [Offer(quant=quant, file=quant, size=size) for quant, size in found]
    for verdict in judge(offers, fixed=0, per_token=1.0, context=0, room=Room(gpu=gpu, ram=ram), profile=profile):
        if verdict.status == "recommended":
            assert verdict.memory <= (gpu + ram if gpu else ram)
