"""Rules for every test: time limits, no deadlines of hypothesis, asyncio, and a record of failures for `.ci/test`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.processes.order import UNIT, is_in, is_law, module_of, ordered

# A machine that stops for a moment makes any example late and any drawing of values slow.
# The examples are the same in each run, because a run that fails by chance says nothing about the change that it tests.
settings.register_profile(
    "steady", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("random", settings.get_profile("steady"), derandomize=False, max_examples=500)
settings.load_profile("steady")

# Each HTTP client reads the certificates that it trusts, and no test opens a connection with TLS. The usual list takes
# 40 ms of processor time to read, this one certificate none.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("authority.pem"))

UNIT_SECONDS = 5


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the product does."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into the order in which parallel processes end at the same time, and limit unit tests.

    A mark on a test overrides its time limit, and a law runs many examples.
    """
    items[:] = ordered(items)
    for item in items:
        limited = item.get_closest_marker("timeout") or is_law(item)
        if is_in(module_of(item), UNIT) and not limited:
            item.add_marker(pytest.mark.timeout(UNIT_SECONDS))


def pytest_collection_finish() -> None:
    """Exempt what the collection made, some hundred thousand objects, from every later look of the collector."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record a failed test."""
    _record(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file whose tests cannot be collected."""
    _record(report)


def _record(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Append the id of a failure to MULLAMA_TEST_FAILURES, in the process that gathers the reports."""
    path = os.environ.get("MULLAMA_TEST_FAILURES")
    if path and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(report.nodeid + "\n")
