"""Placement: no host is over its memory, nothing moves without a reason, and the result is the same every time."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.plan.place import FleetPlacement, HostRoom, MemoryDemand, PlacedModel, Strategy, place

GIB = 1 << 30
STRATEGIES: tuple[Strategy, ...] = ("spread", "pack")


def room(name: str, gib: float | None, kind: str = "") -> HostRoom:
    return HostRoom(name=name, memory=None if gib is None else int(gib * GIB), kind=kind)


def wants(name: str, gib: float, *, on: Sequence[str] = ("a", "b", "c"), n: int = 1, stays: bool = True) -> PlacedModel:
    need = {"": MemoryDemand(((name, int(gib * GIB)),))}
    return PlacedModel(name=name, hosts=tuple(on), replicas=n, stays=stays, need=need)


def hosts(placement: FleetPlacement) -> dict[str, str]:
    return {name: "".join(found) for name, found in placement.hosts.items()}


ROOMS = [room("a", 10), room("b", 10), room("c", 10)]


def test_spread_prefers_the_emptiest_host_and_pack_the_fullest() -> None:
    models = [wants("x", 4), wants("y", 3), wants("z", 2)]
    assert hosts(place(models, ROOMS, {}, "spread")) == {"x": "a", "y": "b", "z": "c"}
    assert hosts(place(models, ROOMS, {}, "pack")) == {"x": "a", "y": "a", "z": "a"}


def test_a_model_stays_where_it_is_though_another_host_is_emptier() -> None:
    models = [wants("x", 4), wants("y", 3), wants("z", 2)]
    current = {"x": "b", "y": "b", "z": "b"}
    assert hosts(place(models, ROOMS, current, "spread")) == current


def test_replicas_are_on_hosts_of_their_own_and_the_surplus_leaves_the_fullest() -> None:
    assert hosts(place([wants("x", 4, n=3)], ROOMS, {})) == {"x": "abc"}
    models = [wants("x", 4, n=2), wants("y", 3)]
    assert hosts(place(models, ROOMS, {"x": "abc", "y": "b"})) == {"x": "ac", "y": "b"}


def test_a_host_that_is_too_full_gives_away_the_smallest_model_that_helps() -> None:
    models = [wants("x", 6), wants("y", 3), wants("z", 2)]
    assert hosts(place(models, ROOMS, dict.fromkeys("xyz", "a"))) == {"x": "a", "y": "a", "z": "b"}


def test_a_host_that_is_gone_or_not_allowed_any_more_loses_its_models() -> None:
    models = [wants("x", 4, on="bc"), wants("y", 4)]
    assert hosts(place(models, ROOMS, {"x": "a", "y": "q"})) == {"x": "b", "y": "a"}


def test_weights_that_models_share_count_once_on_a_host() -> None:
    shared = [
        PlacedModel(name=name, hosts=("a",), need={"": MemoryDemand((("w", 8 * GIB), (name, GIB)))}) for name in "xy"
    ]
    assert hosts(place(shared, ROOMS, {})) == {"x": "a", "y": "a"}
    more = [*shared, wants("z", 1, on="a")]
    assert [each.model for each in place(more, ROOMS, {}).unplaced] == ["z"]


def test_models_that_are_unloaded_while_idle_need_the_room_of_the_largest() -> None:
    models = [wants(name, 4, on="a", stays=False) for name in "xyz"]
    assert not place([*models, wants("s", 6, on="a")], ROOMS, {}).unplaced
    assert [each.model for each in place([*models, wants("s", 7, on="a")], ROOMS, {}).unplaced] == ["x", "y", "z"]


def test_another_model_moves_if_only_that_makes_room() -> None:
    models = [wants("big", 9, on="a"), wants("x", 2)]
    assert hosts(place(models, ROOMS, {"x": "a"})) == {"big": "a", "x": "b"}


def test_all_is_placed_anew_if_single_moves_are_not_enough() -> None:
    rooms = [room("a", 10), room("b", 10)]
    models = [wants(name, gib, on="ab") for name, gib in (("p", 5), ("q", 5), ("r", 4), ("s", 3), ("t", 3))]
    assert not place(models, rooms, {"r": "a", "s": "a", "t": "b"}).unplaced


def test_a_model_that_fits_nowhere_is_named_with_the_numbers() -> None:
    rooms = [room("a", 10), room("b", 24), HostRoom(name="c", memory=64 * GIB, kind="cpu")]
    models = [
        wants("y", 20, on="b"),
        PlacedModel(
            name="x",
            hosts=("a", "b", "c"),
            replicas=2,
            need={"": MemoryDemand((("x", 12 * GIB),)), "cpu": MemoryDemand((), "it has no device CUDA0")},
        ),
    ]
    found = place(models, rooms, {})
    assert [each.reason for each in found.unplaced] == [
        "x needs 12.0 GiB on each of 2 hosts: a has 10.0 GiB of 10.0 GiB left; b has 4.0 GiB of 24.0 GiB left; "
        "c: it has no device CUDA0"
    ]


def test_a_host_of_unknown_memory_is_the_last_choice_and_has_room_for_all() -> None:
    assert hosts(place([wants("x", 4), wants("y", 400)], [room("a", None), room("b", 10)], {})) == {"x": "b", "y": "a"}


def test_a_model_whose_hosts_do_not_answer_is_named() -> None:
    reason = place([wants("x", 4, on="q")], ROOMS, {}).unplaced[0].reason
    assert reason == "x needs a host: none of those that may have it answers"


NAMES = "abcdef"
SIZES = st.integers(0, 12)
KINDS = ("", "gpu")


World = tuple[list[PlacedModel], list[HostRoom], dict[str, tuple[str, ...]]]
"""Models, hosts, and the hosts that have each model now."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    names = NAMES[: draw(st.integers(1, 6))]
    rooms = [room(name, draw(st.integers(4, 20)), draw(st.sampled_from(KINDS))) for name in names]
    some = st.lists(st.sampled_from(names), unique=True, min_size=1).map(tuple)
    models = []
    for index in range(draw(st.integers(0, 8))):
        key, allowed, sizes = draw(st.sampled_from(["w", f"m{index}"])), draw(some), draw(st.tuples(*[SIZES] * 4))
        need = {
            kind: MemoryDemand(((key, weights * GIB), (f"c{index}", context * GIB // 4)))
            for kind, weights, context in zip(KINDS, sizes[:2], sizes[2:], strict=True)
        }
        models.append(
            PlacedModel(
                name=f"m{index}", hosts=allowed, replicas=draw(st.integers(1, len(allowed))),
                stays=draw(st.booleans()), need=need,
            )
        )  # fmt: skip
    current = {model.name: draw(some) for model in models if draw(st.booleans())}
    return models, rooms, current


def used(models: Sequence[PlacedModel], at: HostRoom) -> int:
    """The bytes of these models on a host, counted the slow way."""
    parts: dict[str, int] = {}
    for model in models:
        for key, count in model.need[at.kind].parts if model.stays else ():
            parts[key] = max(count, parts.get(key, 0))
    brief = [model.need[at.kind].total for model in models if not model.stays]
    return sum(parts.values()) + max(brief, default=0)


@given(worlds(), st.sampled_from(STRATEGIES), st.randoms())
@settings(max_examples=60, deadline=None)
def test_laws_of_placement(
    world: tuple[list[PlacedModel], list[HostRoom], dict[str, tuple[str, ...]]],
    strategy: Strategy,
    order: random.Random,
) -> None:
    models, rooms, current = world
    found = place(models, rooms, current, strategy)
    by_name = {model.name: model for model in models}

    # Deterministic: the order of the arguments changes nothing.
    shuffled = order.sample(models, len(models)), order.sample(rooms, len(rooms))
    assert place(*shuffled, dict(sorted(current.items(), reverse=True)), strategy) == found

    # Never over the memory of a host.
    for at in rooms:
        assert used([by_name[name] for name, on in found.hosts.items() if at.name in on], at) <= (at.memory or 0)

    # Replicas on distinct hosts that may have them, as many as wanted, else the model is named.
    short = {each.model for each in found.unplaced}
    for name, placed in found.hosts.items():
        assert len(set(placed)) == len(placed)
        assert set(placed) <= set(by_name[name].hosts)
        assert len(placed) <= by_name[name].replicas
        assert (len(placed) < by_name[name].replicas) == (name in short)

    # Stable: a placement without anything missing is kept as it is.
    if not short:
        assert place(models, rooms, found.hosts, strategy) == found


@given(worlds(), st.sampled_from(STRATEGIES))
@settings(max_examples=40, deadline=None)
def test_nothing_moves_if_what_is_there_fits(world: World, strategy: Strategy) -> None:
    """Least moves: a placed fleet with another model, or with one less, moves no model that has room."""
    models, rooms, _ = world
    placed = place(models, rooms, {}, strategy)
    if placed.unplaced or not models:
        return
    assert place(models[1:], rooms, placed.hosts, strategy).hosts == {
        name: hosts for name, hosts in placed.hosts.items() if name != models[0].name
    }
    small = PlacedModel(name="new", hosts=tuple(at.name for at in rooms))
    assert place([*models, small], rooms, placed.hosts, strategy).hosts.items() >= placed.hosts.items()


def random_fleet(models: int, count: int) -> World:
    draw = random.Random(18)
    rooms = [room(f"h{i}", draw.choice([80, 160, 640])) for i in range(count)]
    names = tuple(each.name for each in rooms)
    wanted = [wants(f"m{i}", draw.choice([1, 2, 5, 9, 20]), on=names, n=draw.choice([1, 1, 2])) for i in range(models)]
    return wanted, rooms, {}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_thousand_models_on_a_hundred_hosts_take_less_than_a_second(strategy: Strategy) -> None:
    wanted, rooms, current = random_fleet(1000, 100)
    begun = time.process_time()
    found = place(wanted, rooms, current, strategy)
    gone: Mapping[str, tuple[str, ...]] = {n: tuple(h for h in hs if h != "h7") for n, hs in found.hosts.items()}
    again = place(wanted, [each for each in rooms if each.name != "h7"], gone, strategy)
    assert time.process_time() - begun < 2  # two placements
    assert not found.unplaced
    assert not again.unplaced
    assert all(set(gone[name]) <= set(again.hosts[name]) for name in gone)
