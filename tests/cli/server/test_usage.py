"""`mullama usage` and `mullama requests` with a server whose answers are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

ROW = {
    "model": "chat", "requests": 3, "errors": 1, "cancelled": 0, "prompt_tokens": 7, "cached_tokens": 2,
    "generated_tokens": 5, "drafted_tokens": 0, "accepted_tokens": 0, "seconds": 1.5,
}  # fmt: skip


@pytest.mark.parametrize(("given", "sent"), [("12h", "43200s"), ("never", "never")])
def test_usage_looks_back_for_a_time_or_to_the_first_record(
    run: Callable[..., Ran], tiny: TinyServer, given: str, sent: str
) -> None:
    tiny.answers[f"GET /api/v1/usage?since={sent}&by=model"] = Answer({"rows": [ROW]})
    ran = run("usage", "--since", given, "--csv", "--host", tiny.url)
    assert ran.code == 0
    assert ran.out.splitlines()[1] == "chat,3,1,0,7,2,5,0,0,1.5"


@pytest.mark.parametrize(
    ("command", "block", "line"),
    [
        ("usage", {}, "no requests in the last 7 d"),
        ("usage", {"usage": {"keep": 0.0}}, "usage is not recorded: observability.usage.keep is 0s"),
        ("requests", {}, "nothing is captured: observability.captures in the manifest switches it on"),
        ("requests", {"captures": {"bodies": "all"}}, "no captured requests"),
    ],
)
def test_an_empty_list_has_its_reason(
    run: Callable[..., Ran], tiny: TinyServer, command: str, block: dict[str, Any], line: str
) -> None:
    tiny.answers["GET /api/v1/usage?since=604800s&by=model"] = Answer({"rows": []})
    tiny.answers["GET /api/v1/requests?"] = Answer({"requests": []})
    tiny.answers["GET /api/v1/stack"] = Answer({"manifest": {"observability": block} if block else {}})
    ran = run(command, "--host", tiny.url)
    assert (ran.code, ran.out) == (0, f"{line}\n")


def test_two_forms_at_once_are_refused(run: Callable[..., Ran], tiny: TinyServer) -> None:
    ran = run("usage", "--json", "--csv", "--host", tiny.url)
    assert (ran.code, ran.out) == (4, "")
    assert "--csv: not allowed with argument --json" in ran.err
