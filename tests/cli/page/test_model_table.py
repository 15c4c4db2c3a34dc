"""The rows of models, the lines above them, and the details of one."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.cli.page.details import model_details
from mullama.cli.page.live import LiveView, taken
from mullama.cli.page.model_table import COLUMNS, SORTS, model_rows, summary
from mullama.cli.page.overview import conditions, device_line, devices, headline
from tests.cli.page.scripted import GIB, event, failed, model, sample, status

MODELS = (
    model("small", memory=GIB, memory_own=GIB, is_default=True),
    model("Big", memory=9 * GIB, memory_own=9 * GIB, active=3, waiting=2),
    model("lazy", state="idle", memory=0, memory_own=0),
    failed("broken", "no memory on CUDA0"),
    model("twin", memory_own=0, shared_with="Big"),
    model("new", state="loading", progress=0.42, memory=0, memory_own=0),
)


def view(*models: dict[str, Any], events: tuple[dict[str, Any], ...] = (), **tokens: float) -> LiveView:
    return taken(taken(LiveView(), {"status": status(*models), "events": list(events)}), sample(**tokens))


def texts(rows: Any, key: str) -> list[str]:
    at = [column.key for column in COLUMNS].index(key)
    return [row.cells[at].text for row in rows]


def test_a_row_has_the_state_as_sign_and_word() -> None:
    rows = model_rows(view(*MODELS, Big=31.4, small=0.52))
    assert texts(rows, "name") == ["small *", "Big", "lazy", "broken", "twin", "new"]
    assert texts(rows, "state") == ["● ready", "● ready", "○ idle", "✗ failed", "● ready", "◌ loading 42%"]
    assert texts(rows, "memory") == ["1 GiB", "9 GiB", "-", "-", "shared", "-"]
    assert texts(rows, "requests") == ["0", "3+2", "0", "0", "0", "0"]
    assert texts(rows, "speed") == ["0.5", "31", "-", "-", "-", "-"]
    assert texts(rows, "reason") == ["", "", "", "LoadFailed: no memory on CUDA0", "", ""]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("manifest", ["small", "Big", "lazy", "broken", "twin", "new"]),
        ("name", ["Big", "broken", "lazy", "new", "small", "twin"]),
        ("state", ["broken", "new", "Big", "small", "twin", "lazy"]),
        ("memory", ["Big", "small", "broken", "lazy", "new", "twin"]),
        ("requests", ["Big", "broken", "lazy", "new", "small", "twin"]),
        ("speed", ["small", "Big", "broken", "lazy", "new", "twin"]),
    ],
)
def test_every_order_of_the_table(order: str, names: list[str]) -> None:
    assert order in SORTS
    assert [row.name for row in model_rows(view(*MODELS, Big=1.0, small=2.0), order=order)] == names


@pytest.mark.parametrize(
    ("words", "names"),
    [("BIG", ["Big"]), ("ready hf:", ["small", "Big", "twin"]), ("cuda0", ["broken"]), ("nothing", [])],
)
def test_a_filter_looks_at_name_state_source_and_error(words: str, names: list[str]) -> None:
    assert [row.name for row in model_rows(view(*MODELS), wanted=words)] == names


def test_an_error_that_is_over_stays_as_the_last_error() -> None:
    before = (event(1, "worker-failed", "small", "its process ended by signal 9"),)
    rows = model_rows(view(*MODELS, events=before))
    assert rows[0].cells[-1] == ("its process ended by signal 9", "dim")


def test_the_summary_names_order_and_filter() -> None:
    rows = model_rows(view(*MODELS))
    assert summary(rows, 6, "manifest", "") == "6 models"
    assert summary(rows[:1], 6, "memory", "sm\x1b") == '1 of 6 models, by memory, with "sm\\x1b"'
    assert summary(rows[:1], 1, "manifest", "") == "1 model"


def test_the_headline_leaves_out_what_does_not_fit() -> None:
    tree = status()
    assert [part.text for part in headline(tree, "live", 100)] == [
        "live", "ready", "revision 3 of mullama.yaml", "mullama 0.2.0", "127.0.0.1:11434",
    ]  # fmt: skip
    assert [part.text for part in headline(tree, "lost", 30)] == ["lost", "ready", "revision 3"]
    assert [part.text for part in headline({}, "connecting", 80)] == ["connecting"]


def test_only_conditions_that_need_attention_are_shown() -> None:
    tree = status(
        conditions=[
            {"type": "ConfigValid", "status": False, "reason": "Invalid", "message": "line 3: no such field"},
            {"type": "Degraded", "status": False, "reason": "Applied", "message": ""},
            {"type": "Reconciling", "status": True, "reason": "Loading", "message": ""},
        ]
    )
    assert [one.text for one in conditions(tree)] == [
        "! ConfigValid=false Invalid: line 3: no such field",
        "! Reconciling=true Loading",
    ]


GPU = {"name": "CUDA0", "description": "H", "total": 24 * GIB, "free": 10 * GIB, "fault": None}
MIXED = status(
    model("a", devices=[{"name": "CUDA0", "bytes": 3 * GIB, "layers": 33}]),
    memory={"used": 4 * GIB, "names": 1, "models": 1},
    machine={"ram_total": 32 * GIB, "ram_available": 20 * GIB, "gpus": [GPU], "cores": 8},
)


@pytest.mark.parametrize(
    ("budget", "limits"),
    [
        ({}, [(32 * GIB, False), (24 * GIB, False)]),
        ({"ram": 8 * GIB, "gpu": {"0": 0.5}}, [(8 * GIB, True), (12 * GIB, True)]),
        ({"ram": 0.25, "gpu": {"CUDA0": 20 * GIB}}, [(8 * GIB, True), (20 * GIB, True)]),
    ],
)
def test_memory_is_counted_by_device_against_its_budget(budget: Any, limits: list[tuple[int, bool]]) -> None:
    found = devices(MIXED, budget)
    assert [(use.name, use.used) for use in found] == [("main memory", GIB), ("CUDA0", 3 * GIB)]
    assert [(use.limit, use.budgeted) for use in found] == limits


def test_a_line_of_a_device_fits_the_width() -> None:
    use = devices(MIXED, {"ram": 8 * GIB})[0]
    for width in range(34, 120):
        assert len("".join(part.text for part in device_line(use, width))) <= width
    wide = "".join(part.text for part in device_line(use, 80))
    assert wide == "main memory ██▌░░░░░░░░░░░░░░░░░ 1 GiB of 8 GiB budget, 20 GiB free"


def test_a_device_with_a_fault_shows_it_instead_of_numbers() -> None:
    use = devices(MIXED, {})[1]._replace(fault="10.0.0.2:50052 does not answer")
    assert [part.text.strip() for part in device_line(use, 80)] == ["CUDA0", "10.0.0.2:50052 does not answer"]


def test_no_device_is_shown_before_the_machine_is_known() -> None:
    assert devices({}, {}) == ()


def test_the_details_of_a_model_have_its_conditions_events_and_memory() -> None:
    now = event(1, "x")["when"] + 60
    tree = model(
        "chat", devices=[{"name": "CUDA0", "bytes": 3 * GIB, "layers": 33}], expires=now + 300, ttl=600.0,
        pool={"size": 4096, "worst_case": 8192, "used": 1000, "set_aside": 1, "set_asides": 1, "resumes": 0},
    )  # fmt: skip
    shown = model_details(view(tree, events=(event(1, "worker-failed", "chat", "signal 9"),)), "chat", now)
    rows = {name: fact.text for name, fact in shown}
    assert rows["state"] == "● ready"
    assert rows["device"] == "CUDA0: 3 GiB, 33 layers"
    assert rows["pool"] == "1,000 of 4,096 tokens in use, 1 request set aside"
    assert rows["residency"] == "at start, unloaded after 10 min without a request, in 5 min"
    assert rows["event"] == "60 s ago, worker-failed: signal 9"


def test_a_model_that_is_gone_says_so() -> None:
    assert [fact.text for _, fact in model_details(view(), "gone", 0.0)] == ["this model is not served any more"]
