"""The table of a fleet, with values alone."""

from __future__ import annotations

import pytest

from mullama.cli.page.fleet_table import FLEET_COLUMNS, HostView, fleet_rows, fleet_summary
from mullama.cli.page.live import LiveView, taken
from tests.cli.page.scripted import GIB, HOSTILE, failed, model, sample, status

HOSTS = (
    HostView(name="a", state="live", view=taken(
        LiveView(status=status(model("m", memory_own=GIB), failed("n", "no memory"))), sample(m=3.0)
    )),
    HostView(name="b", state="lost", reason=f"no server {HOSTILE}", view=LiveView(status=status(model("m")))),
    HostView(name="c", state="live", view=LiveView(status=status())),
    HostView(name="d", state="away"),
)  # fmt: skip


def test_each_host_has_rows() -> None:
    rows = fleet_rows(HOSTS)
    assert [(row.id, row.host, row.model) for row in rows] == [
        ("a/m", "a", "m"), ("a/n", "a", "n"), ("b/", "b", ""), ("c/", "c", ""), ("d/", "d", ""),
    ]  # fmt: skip
    assert all(len(row.cells) == len(FLEET_COLUMNS) for row in rows)
    assert [row.cells[2].text for row in rows] == ["● ready", "✗ failed", "✗ no answer", "○ no model", "○ away"]
    assert rows[1].cells[-1].text == "LoadFailed: no memory"
    assert rows[2].cells[-1].text.startswith("no server ")
    assert "\x1b" not in rows[2].cells[-1].text


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("a", ["a/m", "a/n", "b/", "d/"]), ("b answer", ["b/"]), ("n memory", ["a/n"]), ("nothing", [])],
)
def test_words_are_looked_for_in_models_hosts_and_reasons(wanted: str, found: list[str]) -> None:
    hosts = [HOSTS[0], HostView(name="b", state="lost", reason="x"), HOSTS[3]]
    assert [row.id for row in fleet_rows(hosts, wanted=wanted)] == found


def test_rows_are_sorted_over_all_hosts() -> None:
    assert [row.id for row in fleet_rows(HOSTS, order="state")][:2] == ["b/", "a/n"]
    assert fleet_rows(HOSTS, order="speed")[0].id == "a/m"


def test_the_summary_counts_models_and_the_hosts_that_answer() -> None:
    assert fleet_summary(fleet_rows(HOSTS), HOSTS, "memory", "x") == '2 models on 2 of 4 hosts, by memory, with "x"'
