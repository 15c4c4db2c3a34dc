"""The waves of a change: what is served stays served, few hosts change at once, and the canaries go first."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.plan.rollout import FleetChange, Surge, Wave, WaveOrder, rollout
from mullama.struct import replace


def told(order: WaveOrder) -> list[str]:
    """Each wave as `kind host:models host:models`."""
    return [
        " ".join([wave.kind, *(f"{host}:{''.join(wave.models[host])}" for host in wave.hosts)]) for wave in order.waves
    ]


def change(before: str, after: str, changed: str = "", others: str = "", gateways: str = "ab") -> FleetChange:
    """`a:xy b:z` are hosts with models of one letter."""

    def read(text: str) -> dict[str, tuple[str, ...]]:
        return {host: tuple(names) for host, _, names in (part.partition(":") for part in text.split())}

    return FleetChange(
        before=read(before), after=read(after), changed=read(changed), others=tuple(others), gateways=tuple(gateways)
    )


def test_nothing_changes_without_a_difference() -> None:
    assert rollout(change("a:xy b:z", "a:xy b:z")) == WaveOrder()


def test_a_moved_model_is_added_then_routed_then_removed() -> None:
    order = rollout(change("a:xy b:", "a:x b:y"))
    assert told(order) == ["change b:y", "route a:xy b:y", "remove a:x"]
    assert [dict(wave.routes) for wave in order.waves] == [
        {"x": ("a",), "y": ("a",)},
        {"x": ("a",), "y": ("b",)},
        {"x": ("a",), "y": ("b",)},
    ]


def test_a_removed_model_leaves_the_routes_before_the_hosts() -> None:
    order = rollout(change("a:xy b:y", "a:x b:"))
    assert told(order) == ["route a:xy b:y", "remove a:x b:"]
    assert "y" not in order.waves[0].routes


def test_a_model_that_changes_in_place_needs_no_new_routes() -> None:
    assert told(rollout(change("a:xy b:x", "a:xy b:x", "a:x b:x"))) == ["change a:xy", "change b:x"]


def test_a_change_outside_of_the_models_reaches_all_hosts() -> None:
    assert told(rollout(change("a:x b:", "a:x b:", others="ab"))) == ["change a:x b:", "route a:x b:"]


FOUR = "a:x b:x c:x d:x"


def test_hosts_change_as_few_at_a_time_as_the_rules_say() -> None:
    assert told(rollout(change(FOUR, FOUR, FOUR), max_unavailable=2)) == ["change a:x b:x", "change c:x d:x"]


def test_never_all_hosts_of_a_model_change_at_once() -> None:
    assert told(rollout(change(FOUR, FOUR, FOUR), max_unavailable=9)) == ["change a:x b:x c:x", "change d:x"]
    two = "a:x b:y"
    assert told(rollout(change(two, two, two), max_unavailable=9)) == ["change a:x b:y"]


def test_the_canaries_go_first_one_by_one_and_the_pause_is_after_the_last() -> None:
    order = rollout(change(FOUR, FOUR, FOUR), max_unavailable=9, canary=2, pause=30.0)
    assert told(order) == ["change a:x", "change b:x", "change c:x d:x"]
    assert [(wave.canary, wave.pause) for wave in order.waves] == [(True, 0.0), (True, 30.0), (False, 0.0)]


def test_a_canary_without_others_is_no_canary() -> None:
    order = rollout(change("a:x b:", "a:x b:", "a:x"), canary=1, pause="manual")
    assert [(wave.canary, wave.pause) for wave in order.waves] == [(False, 0.0)]


def test_the_next_apply_after_a_manual_pause_has_its_canaries_behind_it() -> None:
    """Host a has the new x since the apply before; b to d have not."""
    order = rollout(change(FOUR, FOUR, "b:x c:x d:x"), max_unavailable=9, canary=1, pause="manual")
    assert told(order) == ["change b:x c:x d:x"]
    assert not any(wave.canary or wave.pause for wave in order.waves)


def test_moves_without_room_wait_for_the_removal_of_others() -> None:
    """Each host has room for two models: y leaves a before z can come."""
    order = rollout(change("a:xy b:z c:", "a:xz b: c:y"), fits=lambda host, models: len(models) <= 2)
    assert told(order) == [
        "change c:y", "route a:xy b:z c:y", "remove a:x",
        "change a:xz", "route a:xz b:z", "remove b:",
    ]  # fmt: skip
    assert order.pauses == ()


def test_full_hosts_that_exchange_their_models_are_named() -> None:
    order = rollout(change("a:x b:y", "a:y b:x"), fits=lambda host, models: len(models) <= 1)
    assert told(order) == ["change a:xy b:xy", "route a:xy b:xy", "remove a:y b:x"]
    assert order.pauses == ("x", "y")


HOSTS, MODELS = "abcde", "uvwxyz"
LAYOUT = st.fixed_dictionaries({host: st.frozensets(st.sampled_from(MODELS), max_size=4) for host in HOSTS})


@st.composite
def changes(draw: st.DrawFn) -> FleetChange:
    before, after = draw(LAYOUT), draw(LAYOUT)
    changed = {host: frozenset(name for name in before[host] & after[host] if draw(st.booleans())) for host in HOSTS}
    others = draw(st.frozensets(st.sampled_from(HOSTS)))
    return FleetChange(before=before, after=after, changed=changed, others=others, gateways=HOSTS)


def serving(layout: Mapping[str, object], name: str) -> set[str]:
    return {host for host, names in layout.items() if name in names}  # type: ignore[operator]


@given(changes(), st.integers(1, 4), st.integers(0, 4), st.integers(2, 8))
@settings(max_examples=80, deadline=None)
def test_laws_of_the_waves(fleet: FleetChange, most: int, canary: int, room: int) -> None:
    order = rollout(
        fleet, max_unavailable=most, canary=canary, pause=1.0, fits=lambda host, models: len(models) <= room
    )
    layout = {host: frozenset(names) for host, names in fleet.before.items()}
    after_of = {name: serving(fleet.after, name) for name in MODELS}
    kept = [name for name in MODELS if serving(fleet.before, name) and after_of[name]]
    new = {host: set(fleet.after[host]) - set(fleet.before[host]) for host in HOSTS}
    changing = {host: set(fleet.changed[host]) for host in HOSTS}
    done: set[str] = set()
    for wave in order.waves:
        assert len(set(wave.hosts)) == len(wave.hosts) > 0
        # At most so many hosts change what they serve at a time, and never all of a model.
        now = [host for host in wave.hosts if wave.kind == "change" and changing[host] and host not in done]
        assert len(now) <= most
        for name in MODELS:
            having = after_of[name]
            assert len(having) < 2 or having - {host for host in now if name in changing[host]}
        # A host only gets what it lacks, and only loses what is not wanted there.
        for host in wave.hosts:
            models = frozenset(wave.models[host])
            assert layout[host] - models <= layout[host] - set(fleet.after[host])
            assert models - layout[host] <= new[host]
            assert wave.kind == "change" or models <= layout[host]
            assert wave.kind == "remove" or models >= layout[host]
            layout[host] = models
        done |= set(now)
        # What served before and shall serve has a ready host, and the gateways lead to hosts that have the model.
        for name in kept:
            assert serving(layout, name)
        for name, hosts in wave.routes.items():
            assert set(hosts) <= serving(layout, name)
    assert layout == {host: frozenset(names) for host, names in fleet.after.items()}
    assert done == {host for host in HOSTS if changing[host]}
    if order.waves:
        assert {n: set(hosts) for n, hosts in order.waves[-1].routes.items()} == {
            n: h for n, h in after_of.items() if h
        }
    assert set(order.pauses) <= set(kept)


@given(changes(), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_canaries_are_single_hosts_before_all_others(fleet: FleetChange, canary: int) -> None:
    order = rollout(fleet, canary=canary, pause=5.0)
    marks = [wave.canary for wave in order.waves]
    assert marks == sorted(marks, reverse=True)
    assert sum(marks) <= canary
    assert all(len(wave.hosts) == 1 for wave in order.waves if wave.canary)
    assert [wave.pause for wave in order.waves if wave.pause] in ([], [5.0])
    first: list[Wave] = [wave for wave in order.waves if wave.kind == "change"]
    assert not any(marks) or len(first) > sum(marks)


@pytest.mark.parametrize("canary", [0, 1])
def test_an_empty_fleet_is_filled_at_once_after_its_canary(canary: int) -> None:
    fleet = change("", "a:x b:y c:z", gateways="abc")
    waves = told(rollout(fleet, canary=canary))
    assert waves[-2:] == ["change a:x b:y c:z" if not canary else "change b:y c:z", "route a:x b:y c:z"]


def surging(most: int, may_have: str, beside: str = "") -> Surge:
    """Hosts that may have each model, and hosts with room for the old and the new models."""
    return Surge(most=most, may_have=lambda name: tuple(may_have), beside=lambda host, have, models: host in beside)


def reloading(before: str, changed: str, gateways: str = "ab") -> FleetChange:
    fleet = change(before, before, changed, gateways=gateways)
    return replace(fleet, reloaded=fleet.changed)


def test_a_surge_hands_the_model_over_changes_the_host_and_goes_back() -> None:
    order = rollout(reloading("a:x b:", "a:x"), surge=surging(1, "ab"), max_unavailable=0)
    assert told(order) == [
        "change b:x", "route a:x b:x", "remove a:", "change a:x", "route a:x b:x", "remove b:",
    ]  # fmt: skip
    assert [dict(wave.routes)["x"] for wave in order.waves] == [("a",), ("b",), ("b",), ("b",), ("a",), ("a",)]
    assert [wave.early for wave in order.waves] == [True, True, True, False, False, False]
    assert order.blocked == ()


def test_a_host_with_room_for_both_needs_no_surge() -> None:
    assert told(rollout(reloading("a:x b:", "a:x"), surge=surging(1, "ab", "a"), max_unavailable=0)) == ["change a:x"]


def test_without_room_elsewhere_the_model_pauses_or_the_change_is_blocked() -> None:
    fleet = reloading("a:x b:y", "a:x")
    full = rollout(fleet, surge=surging(1, "ab"), fits=lambda host, models: len(models) < 2)
    assert (told(full), full.blocked) == (["change a:x"], ())
    assert rollout(fleet, surge=surging(1, "a"), max_unavailable=0).blocked == ("x",)
    live = change("a:x b:y", "a:x b:y", "a:x")  # nothing loads again
    assert rollout(live, surge=surging(1, "a"), max_unavailable=0).blocked == ()


def test_a_further_replica_serves_for_one_host_after_the_other() -> None:
    order = rollout(reloading("a:x b:x c:", "a:x b:x", gateways="abc"), surge=surging(1, "abc"))
    assert told(order) == [
        "change c:x", "route a:x b:x c:x", "remove a:", "change a:x",
        "route a:x b:x c:x", "remove b:", "change b:x",
        "route a:x b:x c:x", "remove c:",
    ]  # fmt: skip
    routes = [dict(wave.routes)["x"] for wave in order.waves if wave.kind == "route"]
    assert routes == [("b", "c"), ("a", "c"), ("a", "b")]


def test_a_pause_after_the_canary_leaves_no_further_replica() -> None:
    order = rollout(
        reloading("a:x b:x c:", "a:x b:x", gateways="abc"), surge=surging(1, "abc"), canary=1, pause="manual"
    )
    first = next(index for index, wave in enumerate(order.waves) if wave.pause)
    assert (order.waves[first].kind, order.waves[first].models) == ("remove", {"c": ()})
    assert dict(order.waves[first].routes)["x"] == ("a", "b")


def test_two_models_of_a_host_have_a_further_replica_each() -> None:
    order = rollout(reloading("a:xy b: c:", "a:xy"), surge=surging(1, "abc"), max_unavailable=0)
    assert told(order)[0] == "change b:x c:y"


@given(changes(), st.integers(0, 3), st.integers(1, 3), st.integers(0, 2), st.integers(2, 8))
@settings(max_examples=80, deadline=None)
def test_laws_of_a_surge(fleet: FleetChange, most: int, further: int, canary: int, room: int) -> None:
    """A model that is handed over always has a host to which the gateways lead, and no host is too full."""
    fleet = replace(fleet, reloaded=fleet.changed)
    order = rollout(
        fleet, max_unavailable=most, surge=surging(further, HOSTS), canary=canary, pause=1.0,
        fits=lambda host, models: len(models) <= room,
    )  # fmt: skip
    layout = {host: frozenset(names) for host, names in fleet.before.items()}
    declared = {n: max(len(serving(fleet.before, n)), len(serving(fleet.after, n))) for n in MODELS}
    after_of = {name: serving(fleet.after, name) for name in MODELS}
    unchanged = {host: set(names) for host, names in fleet.changed.items()}
    for wave in order.waves:
        assert wave.hosts
        for host in wave.hosts:
            models = frozenset(wave.models[host])
            grown = models - layout[host]
            if wave.early and wave.kind == "change":
                assert len(models) <= room
                assert grown
            if wave.kind == "remove" and wave.early:
                assert not models - layout[host]
            layout[host] = models
            if wave.kind == "change" and not wave.early:
                unchanged[host] -= set(fleet.changed[host])
        for name, hosts in wave.routes.items():
            assert hosts
            if order.pauses == ():
                assert set(hosts) <= serving(layout, name)
        for name in MODELS:
            if serving(fleet.before, name) and after_of[name]:
                assert serving(layout, name)
            before_and_after = serving(fleet.before, name) | serving(fleet.after, name)
            assert len(serving(layout, name) - before_and_after) <= further
            assert declared[name] or not serving(layout, name)
    assert layout == {host: frozenset(names) for host, names in fleet.after.items()}
    assert not any(unchanged.values())
