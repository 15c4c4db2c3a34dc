"""`mullama wait` with a server that answers from a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import Ran
from tests.cli.server.test_status import STATUS
from tests.cli.tinyserver import Answer, Asked, TinyServer

Run = Callable[..., Ran]


def loading(*answers: Answer) -> Callable[[Asked], Answer]:
    following: Iterator[Answer] = iter(answers)
    return lambda asked: next(following)


def test_wait_returns_when_every_model_is_loaded(run: Run, tiny: TinyServer) -> None:
    missing = Answer({"ready": False, "missing": ["chat"]}, 503)
    tiny.answers["GET /readyz"] = loading(missing, missing, Answer({"ready": True}))
    ran = run("wait", "--host", tiny.url)
    assert (ran.code, ran.out) == (0, "the server is ready\n")
    assert len(tiny.asked) == 3


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("model/chat=ready", 0),
        ("model/chat=Loaded", 0),
        ("model/big=Loaded", 6),
        ("model/none=Loaded", 6),
        ("condition=ConfigValid", 0),
        ("condition=Synced", 6),
    ],
)
def test_wait_supports_models_and_conditions(run: Run, tiny: TinyServer, condition: str, code: int) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    assert run("wait", "--for", condition, "--timeout", "0", "--host", tiny.url).code == code


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ("model/chat=redy", "one of absent, loading, ready, idle, degraded, failed, loaded, Drifted"),
        ("model/chat=", "one of absent, "),
        ("condition=Sync", "one of Reconciling, ConfigValid, Synced, Degraded, "),
        ("condition=Ready", "one of Reconciling, "),
        ("condition", "one of Reconciling, "),
        ("redy", "use ready, condition=TYPE or model/NAME=STATE"),
    ],
)
def test_wait_refuses_what_cannot_come(run: Run, condition: str, hint: str) -> None:
    ran = run("wait", "--for", condition)
    assert (ran.code, ran.err.splitlines()[0]) == (4, f"error: --for: unknown condition {condition!r}")
    assert f"hint: {hint}" in ran.err


def test_wait_names_the_missing_models_at_the_timeout(run: Run, tiny: TinyServer) -> None:
    tiny.answers["GET /readyz"] = Answer({"ready": False, "missing": ["chat", "big"]}, 503)
    ran = run("wait", "--timeout", "0", "--host", tiny.url)
    assert ran.code == 6
    assert ran.err.startswith("error: ready is not met: not loaded: chat, big\n")


def test_wait_without_any_server_ends_with_no_connection(run: Run) -> None:
    assert run("wait", "--timeout", "0").code == 11
