"""The lease of a fleet's controller on one host: values, its law, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.controller.fleet.lease import LeaseState, admitted, granted, held, lease_tree, released, restored, saved
from mullama.controller.fleet.lease_book import LeaseBook
from mullama.errors import Conflict, Unavailable
from mullama.runtime.base import ApplyOptions, LeaseRequest
from mullama.store.records import Records
from mullama.struct import replace
from tests.runtime.runtime_fixture import LocalServer


def ask(holder: str, fence: int, seconds: float = 30.0) -> LeaseRequest:
    return LeaseRequest(holder=holder, fleet="prod", seconds=seconds, fence=fence)


FRESH = LeaseState()
ANN = granted(FRESH, ask("ann", 1), 100.0)


@pytest.mark.parametrize(
    ("state", "request_", "now", "fence", "ends"),
    [
        (FRESH, ask("ann", 1), 0.0, 1, 30.0),
        (FRESH, ask("ann", 7), 0.0, 7, 30.0),  # a fence of other hosts
        (ANN, ask("ann", 1), 110.0, 1, 140.0),  # a renewal
        (ANN, ask("ann", 2), 110.0, 2, 140.0),
        (ANN, ask("ann", 1), 900.0, 1, 930.0),  # a late one: nobody else was here
        (ANN, ask("bob", 2), 130.0, 2, 160.0),  # it ran out
        (released(ANN, "ann", 101.0), ask("bob", 2), 102.0, 2, 132.0),
    ],
)
def test_a_lease_is_granted(state: LeaseState, request_: LeaseRequest, now: float, fence: int, ends: float) -> None:
    after = granted(state, request_, now)
    lease = held(after, now)
    assert lease is not None
    assert (after.fence, lease.holder, lease.ends) == (fence, request_.holder, ends)


@pytest.mark.parametrize(
    ("state", "request_", "now", "message"),
    [
        (ANN, ask("bob", 2), 129.9, "ann changes the fleet prod now"),
        (ANN, ask("bob", 1), 130.0, "the fence 1 is too low: 1 was used here by ann"),
        (granted(ANN, ask("bob", 2), 130.0), ask("ann", 1), 200.0, "the fence 1 is too low: 2 was used here by bob"),
        (released(ANN, "ann", 101.0), ask("ann", 1), 102.0, "the fence 1 is too low: 1 was used here"),
        (admitted(ANN, 9), ask("ann", 1), 101.0, "the fence 1 is too low: 9 was used here"),
    ],
)
def test_a_lease_is_refused_by_the_name_of_the_other(
    state: LeaseState, request_: LeaseRequest, now: float, message: str
) -> None:
    with pytest.raises(Conflict, match=message):
        granted(state, request_, now)


def test_only_the_holder_releases_a_lease_and_the_fence_stays() -> None:
    with pytest.raises(Conflict, match="held by ann, not by bob"):
        released(ANN, "bob", 101.0)
    assert released(ANN, "bob", 130.0) == released(ANN, "ann", 101.0) == LeaseState(fence=1)


def test_a_change_with_a_lower_fence_is_refused_and_a_higher_one_is_remembered() -> None:
    assert admitted(ANN, 1) == ANN
    assert admitted(ANN, 5) == replace(ANN, fence=5)
    with pytest.raises(Conflict, match="the fence 4 is too low: 5 was used here by ann"):
        admitted(admitted(ANN, 5), 4)


def test_the_published_form_has_the_remaining_seconds() -> None:
    assert lease_tree(ANN, 120.0) == {"fence": 1, "lease": {"holder": "ann", "fleet": "prod", "seconds_left": 10.0}}
    assert lease_tree(ANN, 130.0) == {"fence": 1, "lease": None}


def test_a_restart_keeps_the_fence_and_counts_the_lease_from_its_start() -> None:
    again = restored(saved(ANN), 5.0)
    assert (again.fence, held(again, 34.9) is not None, held(again, 35.0)) == (1, True, None)
    assert restored({}, 5.0) == FRESH


@pytest.mark.parametrize("lease", [{"holder": "ann"}, {**saved(ANN)["lease"], "seconds": "soon"}, ["ann"], 7])
def test_a_saved_lease_of_another_form_is_left_out_and_its_fence_is_kept(lease: Any) -> None:
    assert restored({"fence": 4, "lease": lease}, 5.0) == LeaseState(fence=4)
    more = {**saved(ANN), "lease": {**saved(ANN)["lease"], "later": 1}}
    assert restored(more, 5.0) == restored(saved(ANN), 5.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.floats(0, 20), st.booleans())))
def test_the_fence_never_falls_and_grows_with_every_other_holder(
    calls: list[tuple[str, int, float, bool]],
) -> None:
    state, now, last = FRESH, 0.0, ("", 0)
    for holder, fence, pause, leaves in calls:
        now += pause
        before = state
        try:
            state = released(state, holder, now) if leaves else granted(state, ask(holder, fence, 10.0), now)
        except Conflict:
            continue
        assert state.fence >= before.fence
        if not leaves:
            assert holder == last[0] or fence > last[1]
            last = holder, fence


@pytest.mark.anyio
async def test_the_lease_is_on_disk_before_it_is_in_force(tmp_path: Path) -> None:
    book = LeaseBook(Records(tmp_path, "main"), clock=lambda: 100.0)
    await book.take(ask("ann", 3))
    assert LeaseBook(Records(tmp_path, "main"), clock=lambda: 7.0).tree() == {
        "fence": 3,
        "lease": {"holder": "ann", "fleet": "prod", "seconds_left": 30.0},
    }
    await book.release("ann")
    assert LeaseBook(Records(tmp_path, "main")).tree() == {"fence": 3, "lease": None}


@pytest.mark.anyio
async def test_a_lease_that_cannot_be_saved_is_not_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path, "main")
    book = LeaseBook(records)

    def full(lease: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "save_lease", full)
    with pytest.raises(Unavailable, match="the lease cannot be saved: no space left on device"):
        await book.take(ask("ann", 3))
    assert book.tree() == {"fence": 0, "lease": None}


@pytest.mark.anyio
async def test_a_damaged_file_of_the_lease_does_not_end_the_start(tmp_path: Path) -> None:
    records = Records(tmp_path, "main")
    records.save_lease({})
    (records.folder / "lease.json").write_text("{")
    assert LeaseBook(records).tree() == {"fence": 0, "lease": None}


@pytest.mark.anyio
async def test_a_host_refuses_an_apply_and_an_undo_with_a_lower_fence(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(), "description": "one"}})
    await server.operator.leases.take(ask("ann", 4))
    change = server.change({"a": {"from": server.script(), "description": "two"}})

    async def result(fence: int) -> str:
        late = replace(change, options=ApplyOptions(fence=fence), progress=type(change.progress)())
        return [line async for line in server.reconciler.apply(late)][-1]["outcome"]

    assert await result(3) == "conflict"
    assert server.snapshot.manifest.models["a"].description == "one"
    assert await result(4) == "applied"
    (undone,) = [line async for line in server.operator.undo(None, ApplyOptions(trigger="undo", fence=3))]
    assert undone["outcome"] == "conflict"
    assert "fence 3 is too low" in undone["message"]
