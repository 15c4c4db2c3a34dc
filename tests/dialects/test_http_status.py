"""The status of each kind of error, and the advice to retry."""

from __future__ import annotations

import pytest

from mullama.dialects import DIALECTS
from mullama.dialects.http_status import STATUS, retry_headers, status_of
from mullama.errors import Busy, EngineFailed, Kind, MullamaError, Refused, Unavailable
from tests.dialects.error_examples import EXAMPLES


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_the_dialects_differ_from_the_table_of_statuses_in_refusals_and_full_queues_alone(error: MullamaError) -> None:
    same = not isinstance(error, Refused | Busy) or getattr(error, "limited", False)

    assert not same or {DIALECTS[dialect].error(error, "req_1").status for dialect in DIALECTS} == {status_of(error)}


def test_every_kind_has_a_status_and_403_means_missing_rights() -> None:
    assert set(STATUS) == set(Kind)
    assert [kind for kind, status in STATUS.items() if status == 403] == [Kind.DENIED]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_a_client_retries_what_is_busy_or_unavailable_and_nothing_else(error: MullamaError) -> None:
    advice = retry_headers(error).get("x-should-retry")

    # Without the header the official clients retry 408, 409, 429, and every status from 500 up.
    retried = status_of(error) in (408, 409, 429) or status_of(error) >= 500
    assert advice == (None if not retried else "true" if isinstance(error, Busy | Unavailable) else "false")


def test_the_delay_before_a_retry_is_in_seconds_and_in_milliseconds() -> None:
    assert retry_headers(Busy("full", retry_after=2.5)) == {
        "x-should-retry": "true",
        "retry-after": "3",
        "retry-after-ms": "2500",
    }
    assert retry_headers(Busy("full", retry_after=0.1))["retry-after"] == "1"
    assert retry_headers(Busy("full", retry_after=0.1))["retry-after-ms"] == "100"
    assert retry_headers(EngineFailed("restarting")) == {"x-should-retry": "true"}
