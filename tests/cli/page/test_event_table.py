"""The rows of events and of usage, and the lines of the log."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.cli.page.event_table import USAGE_SUBJECTS, event_details, event_rows, usage_columns, usage_rows
from mullama.cli.page.log_lines import shown
from tests.cli.page.scripted import HOSTILE, event

EVENTS = (event(1, "applied", "revision 1"), event(2, "degraded", "chat", "no memory"), event(3, "held", "", "later"))


def test_events_are_shown_newest_first_with_a_sign_for_their_weight() -> None:
    assert [(id, cells[0].text) for id, cells in event_rows(EVENTS)] == [
        ("3", "! held"), ("2", "✗ degraded"), ("1", "applied"),
    ]  # fmt: skip


def test_an_event_of_a_worker_names_its_models() -> None:
    worker = {**event(1, "worker-failed", "70ada60add86d965", "killed"), "models": ["chat", "coder"]}
    ((_, cells),) = event_rows([worker], "coder")
    assert [cells[0].text, cells[2].text] == ["✗ worker-failed", "chat, coder"]
    assert dict(event_details(worker))["models"].text == "chat, coder"


def test_a_filter_has_to_match_every_word() -> None:
    assert [id for id, _ in event_rows(EVENTS, "CHAT memory")] == ["2"]
    assert event_rows(EVENTS, "chat later") == []


def test_the_details_of_an_event_have_fields_of_later_versions_too() -> None:
    rows = dict(event_details({**EVENTS[1], "commit": "abc"}))
    assert {name: fact.text for name, fact in rows.items() if name != "when"} == {
        "kind": "degraded", "subject": "chat", "message": "no memory", "commit": "abc",
    }  # fmt: skip


@pytest.mark.parametrize("subject", USAGE_SUBJECTS)
def test_usage_is_sorted_by_generated_tokens(subject: str) -> None:
    zero = {"errors": 0, "cached_tokens": 0, "seconds": 61.0, "prompt_tokens": 5}
    sums: list[dict[str, Any]] = [
        {subject: "a", "requests": 1, "generated_tokens": 10, **zero},
        {subject: "b", "requests": 2, "generated_tokens": 12_000, **zero, "errors": 2},
        {subject: "", "requests": 3, "generated_tokens": 11, **zero},
    ]
    rows = usage_rows(subject, sums)
    assert [name for name, _ in rows] == ["b", "", "a"]
    assert len(rows[0][1]) == len(usage_columns(subject))
    assert [one.text for one in rows[0][1]] == ["b", "2", "2", "5", "0", "12,000", "61 s"]
    assert rows[1][1][0].text == "(none)"


def line(text: str) -> dict[str, Any]:
    return {"id": 1, "when": 1e9, "level": "info", "part": "", "models": [], "text": text}


def test_a_line_of_the_log_is_shown_inertly() -> None:
    assert shown(line(HOSTILE)).endswith(" info \\x1b[31mred\\x1b[0m [bold red]big[/] \\u202egnp.exe")
    assert shown(line("a\ttab")).endswith("a    tab")
    assert len(shown(line("x" * 1_000_000))) < 2100


def test_a_request_is_shown_with_its_result_first() -> None:
    path = "/v1/chat/completions"
    text = f"request status=200 method=POST path={path} seconds=0.0427 model=chat key=ops client=127.0.0.1 id=req_4eb7"
    assert shown(line(text))[8:80].startswith(f" info 200 POST {path} 0.0427 s model=chat")
    assert shown(line("request req_4eb7 failed")).endswith("info request req_4eb7 failed")
