"""The sums of usage by minute, hour and day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mullama.store.usage import SUMS, Span, UsageFile, UsageQuery, UsageRow

DAY = 86400
NOW = 20_000.0 * DAY + 7000.0


def row(age: float, key: str = "ci", model: str = "a", tokens: int = 10, route: str = "r") -> UsageRow:
    sums = dict.fromkeys(SUMS, 0.0) | {"requests": 1, "prompt_tokens": tokens, "generated_tokens": 1, "seconds": 0.5}
    return UsageRow(
        minute=int(NOW - age) // 60 * 60, key=key, route=route, model=model, sums=tuple(sums[name] for name in SUMS)
    )


@pytest.fixture
def file(tmp_path: Path) -> UsageFile:
    return UsageFile(tmp_path / "usage.sqlite")


def test_rows_of_one_minute_are_added_up(file: UsageFile) -> None:
    assert file.read(UsageQuery(since=0), NOW) == []
    file.add([row(0), row(0), row(0, key="ops", tokens=500)])
    file.add([row(0)])
    (total,) = file.read(UsageQuery(since=NOW - 60), NOW)
    assert (total["requests"], total["prompt_tokens"], total["seconds"]) == (4, 530, 2.0)
    by = file.read(UsageQuery(since=NOW - 60, by=("key",)), NOW)
    assert [(r["key"], r["requests"]) for r in by] == [("ops", 1), ("ci", 3)]
    both = file.read(UsageQuery(since=NOW - 60, by=("key", "route", "model")), NOW)
    assert {(r["key"], r["route"], r["model"]) for r in both} == {("ops", "r", "a"), ("ci", "r", "a")}


@pytest.mark.parametrize(
    ("since", "span", "requests"),
    [
        (600, None, [2]),
        (600, "minute", [1, 1]),
        (3 * DAY, "hour", [1, 2]),
        (40 * DAY, None, [4]),
        (40 * DAY, "day", [1, 1, 2]),
        (40 * DAY, "minute", [1, 2, 1, 1]),
    ],
)
def test_a_time_is_read_from_the_shortest_span_that_is_kept_for_as_long(
    since: float, span: Span | None, requests: list[int], file: UsageFile
) -> None:
    file.add([row(0), row(120), row(2.5 * DAY), row(35 * DAY)])
    rows = file.read(UsageQuery(since=NOW - since, span=span), NOW)
    if span == "minute" and since > DAY:  # summed up from the minutes that are there
        assert sum(r["requests"] for r in rows) == 4
    else:
        assert [r["requests"] for r in rows] == requests
    assert [r["start"] for r in rows] == sorted(r["start"] for r in rows) if span else True


def test_old_rows_are_deleted_short_spans_first(file: UsageFile) -> None:
    file.add([row(0), row(5 * DAY), row(40 * DAY), row(100 * DAY)])
    file.purge(90 * DAY, NOW)
    counts = {
        span: len(file.read(UsageQuery(since=NOW - age, span=span), NOW))
        for span, age in {"minute": DAY, "hour": 20 * DAY, "day": 200 * DAY}.items()
    }  # type: ignore[misc]
    assert counts == {"minute": 1, "hour": 2, "day": 3}
    file.purge(0, NOW + 10 * DAY)
    assert file.read(UsageQuery(since=0), NOW) == []


def test_a_damaged_file_is_set_aside(file: UsageFile, tmp_path: Path) -> None:
    (tmp_path / "usage.sqlite").write_bytes(b"no database" * 1000)
    file.add([row(0)])
    assert file.read(UsageQuery(since=NOW - 60), NOW)[0]["requests"] == 1
    assert (tmp_path / "usage.corrupt").exists()


def test_another_process_reads_what_a_killed_one_wrote(file: UsageFile, tmp_path: Path) -> None:
    """The connection of the first stays open, as that of a process without an orderly end."""
    file.add([row(0)])
    again = UsageFile(tmp_path / "usage.sqlite")
    assert again.read(UsageQuery(since=NOW - 60), NOW)[0]["requests"] == 1
    again.close()
    file.close()


def test_a_renamed_key_route_or_model_has_the_sums_of_its_old_name(file: UsageFile) -> None:
    file.rename([("key", "ci", "build")])  # without a file
    file.add([row(0), row(35 * DAY), row(0, key="build"), row(0, key="ops", route="a"), row(0, key="ops", model="b")])

    file.rename([("key", "ci", "build"), ("route", "r", "s"), ("model", "a", "c")])
    file.rename([("key", "ci", "build"), ("route", "r", "s"), ("model", "a", "c")])

    def sums(since: float, *by: Any) -> dict[tuple[str, ...], int]:
        rows = file.read(UsageQuery(since=NOW - since, by=by), NOW)
        return {tuple(found[name] for name in by): found["requests"] for found in rows}

    assert sums(60, "key") == {("build",): 2, ("ops",): 2}
    assert sums(40 * DAY, "key") == {("build",): 3, ("ops",): 2}
    # A request that named the model itself has its new name as the route.
    assert sums(60, "route", "model") == {("s", "c"): 2, ("c", "c"): 1, ("s", "b"): 1}
